//! One name server, by whatever way it is asked.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use machine_api::NameServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::clock::Clock;
use crate::counters::UpstreamCounters;
use crate::secure::Secure;
use crate::wire::{self, UDP_BYTES};

/// For so long one that did not answer comes after those that did.
const LAST: Duration = Duration::from_secs(10);

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("it is silent")]
    Silent,
    #[error("it cannot be asked")]
    Io(#[from] io::Error),
    #[error("{why}")]
    Tls { why: String },
    #[error("it closed the connection")]
    Closed,
    #[error("too many questions wait for it")]
    Busy,
}

impl AskError {
    /// One word, to count by.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Io(_) => "unreachable",
            Self::Tls { .. } => "tls",
            Self::Closed => "closed",
            Self::Busy => "busy",
        }
    }
}

/// A name server.
pub(crate) struct Upstream {
    server: NameServer,
    /// There if it is asked by TLS, and then it is asked by nothing else.
    secure: Option<Secure>,
    failed: Mutex<Option<Instant>>,
    counters: Arc<UpstreamCounters>,
}

impl Upstream {
    /// `counters` are those of all servers at its address.
    pub(crate) fn new(server: &NameServer, clock: &Clock, counters: Arc<UpstreamCounters>) -> Self {
        let start = |tls| Secure::start(server.address, tls, clock.clone(), counters.clone());
        let secure = server.tls.as_ref().map(start);
        Self { server: server.clone(), secure, failed: Mutex::default(), counters }
    }

    pub(crate) fn server(&self) -> &NameServer {
        &self.server
    }

    pub(crate) fn counters(&self) -> &Arc<UpstreamCounters> {
        &self.counters
    }

    /// Why it cannot be asked by TLS at present.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.secure.as_ref().and_then(Secure::trouble)
    }

    /// Whether it did not answer a short while ago.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed().is_some_and(|failed| failed.elapsed() < LAST)
    }

    /// One question, for so long.
    pub(crate) async fn ask(&self, query: &Query, within: Duration) -> Result<Message, AskError> {
        let since = Instant::now();
        let question = wire::question(query);
        let asked = async {
            match &self.secure {
                Some(secure) => secure.ask(question).await,
                None => Ok(exchange(self.server.address, &question).await?),
            }
        };
        let answered = tokio::time::timeout(within, asked).await.unwrap_or(Err(AskError::Silent));
        match &answered {
            Ok(answer) => {
                *self.failed() = None;
                self.counters.count_answer(answer.metadata.response_code, since.elapsed());
            }
            Err(error) => {
                *self.failed() = Some(Instant::now());
                self.counters.count_failure(error.word());
            }
        }
        answered
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question to one resolver, by UDP from a fresh port, and by TCP if the answer does not fit.
async fn exchange(upstream: SocketAddr, question: &Message) -> io::Result<Message> {
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; usize::from(UDP_BYTES).max(4096)];
    let answer = loop {
        let length = socket.recv(&mut buffer).await?;
        // Whatever is no answer to this question may be forged.
        if let Some(answer) = wire::answer(&buffer[..length], question) {
            break answer;
        }
    };
    if answer.metadata.truncation { by_tcp(upstream, &bytes, question).await } else { Ok(answer) }
}

async fn by_tcp(upstream: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    wire::answer(&buffer, question).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
