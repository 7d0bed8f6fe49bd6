//! Callers of other machines who can reach this one only: `CONNECT ADDRESS:PORT`, after which their bytes are passed on.
//!
//! They speak TLS with the other machine, which knows them by their own certificates and decides what they may: this
//! one learns nothing, and lends nobody its name.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use machine_api::Role;
use tokio::net::TcpStream;

use super::{Server, keep_alive, text};

/// The other machine has this long to take the connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects the caller with another machine, or says why not.
pub(super) async fn answer(
    server: &Server,
    (name, roles): (&str, &[Role]),
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Some(authority) = request.uri().authority() else {
        return text(StatusCode::BAD_REQUEST, "CONNECT wants ADDRESS:PORT\n".to_owned());
    };
    if roles.is_empty() {
        let reason = format!("CONNECT {authority} needs a role; this certificate gives none\n");
        return text(StatusCode::FORBIDDEN, reason);
    }
    let target = match target(authority, server.forwards_to) {
        Ok(target) => target,
        Err(reason) => return text(StatusCode::FORBIDDEN, format!("{reason}\n")),
    };
    let Ok(permit) = server.tunnels.clone().try_acquire_owned() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many callers are forwarded; try again later\n".to_owned());
    };
    let mut there = match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return text(StatusCode::BAD_GATEWAY, format!("{target} cannot be reached: {error}\n")),
        Err(_elapsed) => {
            let reason = format!("{target} did not answer within {} s\n", CONNECT.as_secs());
            return text(StatusCode::GATEWAY_TIMEOUT, reason);
        }
    };
    keep_alive(&there);
    tracing::info!(caller = name, %target, "machine API: forwarded");
    let shutdown = server.shutdown.clone();
    drop(tokio::spawn(async move {
        let Ok(here) = hyper::upgrade::on(request).await else { return };
        let mut here = TokioIo::new(here);
        tokio::select! {
            ended = tokio::io::copy_bidirectional(&mut here, &mut there) => {
                tracing::debug!(%target, error = ended.err().map(|error| error.to_string()), "forwarding ended");
            }
            () = shutdown.wait() => {}
        }
        drop(permit);
    }));
    Response::new(Full::new(Bytes::new()))
}

/// The machine API of another machine. Nothing else is reached through a master.
fn target(authority: &Authority, port: Option<u16>) -> Result<SocketAddr, String> {
    let port = port.ok_or("this machine is no master; only those forward")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse().map_err(|_| format!("{host} is no address"))?;
    match authority.port_u16() {
        Some(asked) if asked == port => Ok(SocketAddr::new(address, port)),
        _ => Err(format!("only port {port} of other machines is forwarded to")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machine_api_of_addresses_is_reached_and_only_through_masters() {
        let asked = |text: &str, port| target(&text.parse().unwrap(), port);
        assert_eq!(asked("10.0.0.2:50000", Some(50_000)), Ok("10.0.0.2:50000".parse().unwrap()));
        assert_eq!(asked("[fd00::2]:50000", Some(50_000)), Ok("[fd00::2]:50000".parse().unwrap()));
        assert!(asked("10.0.0.2:22", Some(50_000)).unwrap_err().starts_with("only port 50000"));
        assert!(asked("10.0.0.2", Some(50_000)).unwrap_err().starts_with("only port 50000"));
        assert!(asked("localhost:50000", Some(50_000)).unwrap_err().contains("no address"));
        assert!(asked("10.0.0.2:50000", None).unwrap_err().contains("no master"));
    }
}
