//! Frames of an interface, as a pcapng file that is never kept: it goes to whoever asked for it as fast as they take it.
//!
//! ```text
//! words ─ filter.rs ─▶ tree ─ program.rs ─▶ the kernel's filter ─▶ socket ─▶ one buffer ─ pcapng.rs ─▶ caller
//! ```
//!
//! It holds one frame and [`QUEUE_LEN`] parts in memory; what the caller does not take in time the kernel drops, and
//! counts. It ends after its time or its bytes, with the machine API, and when the caller goes away.
//!
//! Not here: promiscuous mode, several interfaces in one file, VLAN tags (the kernel takes them off before).

mod filter;
mod pcapng;
mod program;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::Shutdown;
use machine_api::CaptureRequest;
use sys::{CaptureSocket, System};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use filter::Condition;

/// How much waits for a slow caller.
const QUEUE_LEN: usize = 8;
const PART_BYTES: usize = 64 << 10;

/// Why nothing is captured, in words for the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such interface.
    Absent(String),
    /// What is asked for cannot be done.
    Bad(String),
    /// The kernel does not let us.
    Failed(String),
}

/// What frames of a link begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkKind {
    /// An Ethernet header.
    Ethernet,
    /// The same; the kernel shows each frame twice.
    Loopback,
    /// The IP header.
    Raw,
}

impl LinkKind {
    /// The kernel's numbers are those of `ARPHRD_…`.
    fn observe(system: &dyn System, interface: &str) -> Result<Self, Refused> {
        let folder = Path::new("/sys/class/net");
        let known = system.list(folder).unwrap_or_default();
        if !known.iter().any(|name| name == interface) {
            return Err(Refused::Absent(format!(
                "there is no interface {interface:?}; there are {}",
                known.join(", ")
            )));
        }
        let kind = crate::views::text(system, folder.join(interface).join("type"));
        match kind.trim() {
            "1" => Ok(Self::Ethernet),
            "772" => Ok(Self::Loopback),
            "65534" | "512" | "519" => Ok(Self::Raw),
            other => Err(Refused::Bad(format!("{interface} is a link of kind {other}, of which nothing is captured"))),
        }
    }

    /// The number of the kind in files.
    const fn in_file(self) -> u16 {
        match self {
            Self::Ethernet | Self::Loopback => 1,
            Self::Raw => 101,
        }
    }
}

/// A capture that has begun.
#[derive(Debug)]
pub(crate) struct Capture {
    socket: AsyncFd<CaptureSocket>,
    kind: LinkKind,
    asked: CaptureRequest,
}

impl Capture {
    /// Begins; frames that carry this capture to its caller (the addresses of that connection) are left out: each of them
    /// would make the next one.
    pub(crate) fn open(asked: CaptureRequest, own: Option<(SocketAddr, SocketAddr)>) -> Result<Self, Refused> {
        let asked = asked.filled();
        check(&asked).map_err(Refused::Bad)?;
        let kind = LinkKind::observe(&sys::Linux, &asked.interface)?;
        let wanted = filter::parse(&asked.filter).map_err(|error| Refused::Bad(format!("the filter: {error}")))?;
        let unwanted = own.map(|(here, there)| Condition::connection(here, there));
        let program = program::compile(&wanted, unwanted.as_ref(), kind)
            .map_err(|error| Refused::Bad(format!("the filter: {error}")))?;
        let index = crate::views::text(&sys::Linux, format!("/sys/class/net/{}/ifindex", asked.interface));
        let failed = |error: &dyn std::error::Error| Refused::Failed(stdx::chain(error).to_string());
        let index = index.trim().parse().map_err(|error: std::num::ParseIntError| failed(&error))?;
        let socket = CaptureSocket::open(index, &program).map_err(|error| failed(&error))?;
        let socket = wait_on(socket).map_err(|error| failed(&error))?;
        Ok(Self { socket, kind, asked })
    }

    /// Runs to its end, and gives `turn` back then; the parts make the file.
    pub(crate) fn start<T: Send + 'static>(self, turn: T, shutdown: Shutdown) -> mpsc::Receiver<Bytes> {
        let (sender, parts) = mpsc::channel(QUEUE_LEN);
        drop(tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = self.run(&sender, &shutdown) => {}
                () = gone.closed() => {}
            }
            drop((self, turn));
        }));
        parts
    }

    async fn run(&self, sender: &mpsc::Sender<Bytes>, shutdown: &Shutdown) {
        let end = Instant::now() + Duration::from_secs(self.asked.seconds);
        let mut file = File { part: Vec::new(), sent: 0, most: self.asked.bytes };
        pcapng::begin(&mut file.part, self.kind.in_file(), &self.asked);
        // A caller knows at once that it has begun.
        file.flush(sender).await;
        let mut buffer = vec![0; self.asked.frame_bytes as usize];
        let why = loop {
            let readable = tokio::select! {
                readable = self.socket.readable() => readable,
                () = tokio::time::sleep_until(end) => break "its time is over".to_owned(),
                () = shutdown.wait() => break "the machine API ends".to_owned(),
            };
            let mut ready = match readable {
                Ok(ready) => ready,
                Err(error) => break error.to_string(),
            };
            match self.take(&mut buffer, &mut file) {
                Taken::Full => break format!("it has {} bytes", file.most),
                Taken::More => {}
                Taken::Nothing => ready.clear_ready(),
                Taken::Failed(error) => break error.to_string(),
            }
            drop(ready);
            // A caller who takes nothing for so long gets the end of what there was.
            if tokio::time::timeout_at(end, file.flush(sender)).await.is_err() {
                break "its time is over".to_owned();
            }
        };
        let (accepted, dropped) = self.socket.get_ref().counts().unwrap_or_default();
        pcapng::end(&mut file.part, (accepted, dropped), &why);
        file.flush(sender).await;
    }

    /// Takes what the kernel has, as far as there is room in a part.
    fn take(&self, buffer: &mut [u8], file: &mut File) -> Taken {
        while file.part.len() < PART_BYTES {
            match self.socket.get_ref().receive(buffer) {
                Ok(frame) if file.has_room(pcapng::frame_bytes(frame.captured)) => {
                    pcapng::frame(&mut file.part, frame, &buffer[..frame.captured]);
                }
                Ok(_one_too_many) => return Taken::Full,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Nothing,
                // The link went down; it may come back.
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {}
                Err(error) => return Taken::Failed(error),
            }
        }
        Taken::More
    }
}

/// Registers the socket with the runtime.
#[allow(deprecated, reason = "the successor is unsafe; the socket owns its descriptor and never lets it go")]
fn wait_on(socket: CaptureSocket) -> io::Result<AsyncFd<CaptureSocket>> {
    AsyncFd::new(socket)
}

enum Taken {
    More,
    Nothing,
    Full,
    Failed(io::Error),
}

/// The file as far as it is not sent.
struct File {
    part: Vec<u8>,
    sent: u64,
    most: u64,
}

impl File {
    fn has_room(&self, bytes: usize) -> bool {
        self.sent + self.part.len() as u64 + bytes as u64 <= self.most
    }

    async fn flush(&mut self, sender: &mpsc::Sender<Bytes>) {
        // One that is gone is noticed elsewhere.
        if !self.part.is_empty()
            && let Ok(place) = sender.reserve().await
        {
            self.sent += self.part.len() as u64;
            place.send(Bytes::from(std::mem::take(&mut self.part)));
        }
    }
}

fn check(asked: &CaptureRequest) -> Result<(), String> {
    let within = |what: &str, number: u64, most: u64| {
        if (1..=most).contains(&number) { Ok(()) } else { Err(format!("{what}: {number} is not within 1 and {most}")) }
    };
    within("seconds", asked.seconds, CaptureRequest::MOST_SECONDS)?;
    within("bytes", asked.bytes, CaptureRequest::MOST_BYTES)?;
    within("frame_bytes", asked.frame_bytes.into(), CaptureRequest::MOST_FRAME_BYTES.into())
}

#[cfg(test)]
mod tests;
