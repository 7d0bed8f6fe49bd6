//! Asking other resolvers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::cache::Answers;
use crate::config::Upstreams;

/// What fits unfragmented through any network of today.
pub(crate) const UDP_BYTES: u16 = 1232;
/// Questions on their way at once; more are refused at once instead of waiting in line.
const IN_FLIGHT: usize = 1024;
/// Times each resolver is asked.
const ROUNDS: usize = 2;

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no upstream resolver is configured")]
    Nobody,
    #[error("too many questions are on their way to upstream resolvers")]
    Busy,
    #[error("no upstream resolver answered")]
    Silent,
}

pub(crate) struct Forwarder {
    upstreams: Upstreams,
    timeout: Duration,
    answers: Mutex<Answers>,
    in_flight: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams, timeout: Duration) -> Self {
        Self { upstreams, timeout, answers: Mutex::default(), in_flight: Semaphore::new(IN_FLIGHT) }
    }

    /// Answers from memory or by asking. The message's number and flags of the original question are the caller's
    /// business.
    pub(crate) async fn ask(&self, query: &Query) -> Result<Message, ForwardError> {
        let key = (query.name().to_lowercase(), query.query_type());
        let upstreams = self.upstreams.now();
        if let Some(answer) = self.answers().of(&upstreams).get(&key, Instant::now()) {
            return Ok(answer);
        }
        if upstreams.is_empty() {
            return Err(ForwardError::Nobody);
        }
        let _permit = self.in_flight.try_acquire().map_err(|_full| ForwardError::Busy)?;
        let mut refusal = None;
        for _round in 0..ROUNDS {
            for upstream in &upstreams {
                match tokio::time::timeout(self.timeout, exchange(*upstream, query)).await {
                    // It does not know, and that is not the name's fault.
                    Ok(Ok(answer)) if is_refusal(&answer) => {
                        tracing::debug!(%upstream, code = %answer.metadata.response_code, name = %query.name(), "refused");
                        refusal = Some(answer);
                    }
                    Ok(Ok(answer)) => {
                        self.answers().of(&upstreams).put(key, &answer, Instant::now());
                        return Ok(answer);
                    }
                    Ok(Err(error)) => tracing::debug!(%upstream, %error, name = %query.name(), "upstream failed"),
                    Err(_elapsed) => tracing::debug!(%upstream, name = %query.name(), "upstream is silent"),
                }
            }
            // Whoever has refused does so again.
            if let Some(answer) = refusal {
                return Ok(answer);
            }
        }
        Err(ForwardError::Silent)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another resolver may do better.
fn is_refusal(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

/// One question to one resolver, by UDP from a fresh port, and by TCP if the answer does not fit.
async fn exchange(upstream: SocketAddr, query: &Query) -> io::Result<Message> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;

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
        if let Some(answer) = parse(&buffer[..length], &message) {
            break answer;
        }
    };
    if answer.metadata.truncation { by_tcp(upstream, &bytes, &message).await } else { Ok(answer) }
}

async fn by_tcp(upstream: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    parse(&buffer, question).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_answer = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries == question.queries;
    is_answer.then_some(answer)
}
