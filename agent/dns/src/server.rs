//! Sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::Shutdown;
use stdx::exposition::Text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, UPSTREAM_TIMEOUT, Upstreams};
use crate::counters::{self, ServerCounters};
use crate::directory::Directory;
use crate::forward::Forwarder;
use crate::respond::{Answer, Own, Responder, Step, Transport, Way};
use crate::zone::Zone;

/// A TCP connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// TCP connections at once; more wait in the kernel.
const CONNECTIONS: usize = 128;
/// Forwarded UDP questions at once; more are dropped, and their askers ask again.
const PENDING: usize = 1024;
/// The longest question that is read.
const QUESTION_BYTES: usize = 4096;
/// After an accept failed for lack of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bound sockets, ready to serve.
pub struct Server {
    responder: Arc<Responder>,
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
}

/// Why the server could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The cluster's domain is no domain.
    #[error("{domain:?} is no domain name")]
    Domain {
        /// As configured.
        domain: String,
    },
    /// An address could not be bound.
    #[error("cannot listen on {address} for DNS")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
}

impl Server {
    /// Binds every address of the configuration by UDP and TCP; port 0 takes a free one, the same for both.
    pub async fn bind(config: &Config, directory: Box<dyn Directory>) -> Result<Self, ServerError> {
        let no_domain = || ServerError::Domain { domain: config.domain.clone() };
        let zone = Zone::new(&config.domain, config.ttl_seconds).ok_or_else(no_domain)?;
        // Pods come when the clock has been told, or nobody is there to tell it.
        let forwarder = Forwarder::new(config.upstreams.clone(), config.upstream_timeout, Clock::new(true));
        Self::listen(&config.listen, Some(Own { zone, directory }), forwarder).await
    }

    /// Binds an address for a cache alone, of what other resolvers say. It is never one of those itself. Until the clock
    /// was told, see [`View::tell_clock`], no certificate is too young.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn cache(address: SocketAddr, upstreams: Upstreams) -> Result<Self, ServerError> {
        let forwarder = Forwarder::new(upstreams, UPSTREAM_TIMEOUT, Clock::new(false));
        Self::listen(&[address], None, forwarder).await
    }

    async fn listen(addresses: &[SocketAddr], own: Option<Own>, forwarder: Forwarder) -> Result<Self, ServerError> {
        let responder = Arc::new(Responder { own, forwarder, counters: ServerCounters::default() });
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in addresses {
            let failed = |source| ServerError::Bind { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            udp.push(Arc::new(UdpSocket::bind(bound).await.map_err(failed)?));
            tcp.push(listener);
        }
        Ok(Self { responder, udp, tcp })
    }

    /// The addresses that are bound.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// How it fares, also while it serves.
    #[must_use]
    pub fn view(&self) -> View {
        let address = self.addresses().first().map(ToString::to_string).unwrap_or_default();
        View { name: format!("dns://{address}"), responder: self.responder.clone() }
    }

    /// Answers until `shutdown`. Questions that are being forwarded then are dropped.
    pub async fn serve(self, shutdown: Shutdown) {
        let mut loops = JoinSet::new();
        for socket in self.udp {
            loops.spawn(serve_udp(socket, self.responder.clone()));
        }
        for listener in self.tcp {
            loops.spawn(serve_tcp(listener, self.responder.clone()));
        }
        shutdown.wait().await;
        loops.shutdown().await;
    }
}

/// How a server fares.
#[derive(Clone)]
pub struct View {
    name: String,
    responder: Arc<Responder>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("name", &self.name).finish_non_exhaustive()
    }
}

impl View {
    /// What was counted, as monitoring reads it.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = Text::default();
        counters::write(&self.name, &self.responder.counters, &self.responder.forwarder, &mut out);
        out.finish()
    }

    /// Which name servers cannot be asked by TLS at present, and why.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let upstreams = self.responder.forwarder.look(|resolvers| resolvers.upstreams());
        let told = upstreams.iter().filter_map(|upstream| Some((upstream.server(), upstream.trouble()?)));
        told.map(|(server, why)| format!("{server}: {why}")).collect()
    }

    /// Certificates are judged by the clock from now on, for somebody has told it the time.
    pub fn tell_clock(&self) {
        self.responder.forwarder.clock.tell();
    }
}

impl Responder {
    fn count(&self, answer: Answer, since: Instant) -> Vec<u8> {
        self.counters.count_response(answer.code, since.elapsed());
        answer.bytes
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, responder: Arc<Responder>) {
    let mut buffer = vec![0; QUESTION_BYTES];
    let mut pending = JoinSet::new();
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // The kernel reports here that an earlier answer found nobody.
                Err(error) => {
                    tracing::debug!(%error, "cannot receive");
                    continue;
                }
            },
            Some(_answered) = pending.join_next() => continue,
        };
        let since = Instant::now();
        let way = Way { transport: Transport::Udp, is_ipv6: from.is_ipv6() };
        match responder.begin(&buffer[..length], way) {
            Step::Done(answer) => reply(&socket, &responder.count(answer, since), from).await,
            Step::Ask(task) if pending.len() < PENDING => {
                let (socket, responder) = (socket.clone(), responder.clone());
                pending.spawn(async move {
                    if let Some(answer) = responder.finish(task).await {
                        reply(&socket, &responder.count(answer, since), from).await;
                    }
                });
            }
            Step::Ask(_) | Step::Ignore => {}
        }
    }
}

async fn reply(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "cannot answer");
    }
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let responder = responder.clone();
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, from, &responder).await {
                            tracing::debug!(%error, "connection ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, from: SocketAddr, responder: &Responder) -> io::Result<()> {
    let way = Way { transport: Transport::Tcp, is_ipv6: from.is_ipv6() };
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_idle) => return Ok(()),
        };
        let mut question = vec![0; length.into()];
        tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
        let since = Instant::now();
        let answer = match responder.begin(&question, way) {
            Step::Done(answer) => Some(answer),
            Step::Ask(task) => responder.finish(task).await,
            Step::Ignore => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        let bytes = responder.count(answer, since);
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
