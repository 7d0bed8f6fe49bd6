//! Callers of other machines who can reach this one only: their bytes are passed on.
//!
//! They speak TLS with the other machine, which knows them by their own certificates and decides what they may: this
//! one learns nothing, and lends nobody its name.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use machine_api::{Chunk, ForwardPart};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio_util::io::ReaderStream;
use tonic::Status;

use super::refusal::{away, bad, busy, conflict};
use super::{Incoming, Known, Messages, Server, keep_alive, next};

/// The other machine has this long to take the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How much goes on at once.
const PART_BYTES: usize = 64 << 10;

/// Connects the caller with another machine, or says why not.
pub(super) async fn answer(
    server: &Server,
    caller: &Known,
    mut parts: Incoming<ForwardPart>,
) -> Result<Messages<Chunk>, Status> {
    let first = next(&mut parts).await?.unwrap_or_default();
    let target = target(&first.target, server.forwards_to)?;
    let Ok(permit) = server.tunnels.clone().try_acquire_owned() else {
        return Err(busy("too many callers are forwarded; try again later"));
    };
    let there = match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(away(format!("{target} cannot be reached: {error}"))),
        Err(_elapsed) => {
            let reason = format!("{target} did not answer within {} s", CONNECT.as_secs());
            return Err(Status::deadline_exceeded(reason));
        }
    };
    keep_alive(&there);
    tracing::info!(caller = caller.name, %target, "machine API: forwarded");
    let (from_there, to_there) = there.into_split();
    let passing = tokio::spawn(pass_on(first, parts, to_there));
    let shutdown = server.shutdown.clone();
    let answers = ReaderStream::with_capacity(from_there, PART_BYTES).map(|part| match part {
        Ok(data) => Ok(Chunk { data }),
        Err(error) => Err(away(format!("the connection broke: {error}"))),
    });
    // With the call, whose stream this is, everything of it ends.
    let held = (permit, Ending(passing));
    let answers = answers.map(move |answer| {
        let _held = &held;
        answer
    });
    Ok(answers.take_until(async move { shutdown.wait().await }).boxed())
}

/// Ends a task with whoever has it.
struct Ending(tokio::task::JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes on what the caller sends, until they send no more.
async fn pass_on(first: ForwardPart, parts: Incoming<ForwardPart>, mut there: OwnedWriteHalf) {
    let mut parts = futures::stream::iter([Ok(first)]).chain(parts);
    while let Some(Ok(part)) = parts.next().await {
        if there.write_all(&part.data).await.is_err() {
            return;
        }
    }
    there.shutdown().await.ok();
}

/// The machine API of another machine. Nothing else is reached through a master.
fn target(asked: &str, port: Option<u16>) -> Result<SocketAddr, Status> {
    let port = port.ok_or_else(|| conflict("this machine is no master; only those forward"))?;
    let target: SocketAddr = asked.parse().map_err(|_| bad(format!("{asked:?} is not like ADDRESS:PORT")))?;
    if target.port() == port {
        return Ok(target);
    }
    Err(Status::permission_denied(format!("only port {port} of other machines is forwarded to")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_api_of_addresses_is_reached_and_only_through_masters() {
        let asked = |text: &str, port| target(text, port).map_err(|refused| refused.message().to_owned());
        assert_eq!(asked("10.0.0.2:50000", Some(50_000)), Ok("10.0.0.2:50000".parse().unwrap()));
        assert_eq!(asked("[fd00::2]:50000", Some(50_000)), Ok("[fd00::2]:50000".parse().unwrap()));
        assert!(asked("10.0.0.2:22", Some(50_000)).unwrap_err().starts_with("only port 50000"));
        for bad in ["", "10.0.0.2", "localhost:50000"] {
            assert!(asked(bad, Some(50_000)).unwrap_err().contains("not like ADDRESS:PORT"), "{bad}");
        }
        assert!(asked("10.0.0.2:50000", None).unwrap_err().contains("no master"));
    }
}
