//! The machine API: the calls of its service description, on a local socket and, by the roles of certificates, over the
//! network; while there is no manifest, a way to hand one in.
//!
//! ```text
//! connection ─▶ who is it? ─ gate.rs ─▶ may they? ─ service.rs ─▶ one file for each kind of call
//! ```

mod around;
mod capture;
mod check;
mod debug;
mod etcd;
pub(crate) mod extension;
mod fetch;
mod forward;
mod gate;
mod leaving;
mod locks;
mod look;
mod manifest;
mod preflight;
mod refusal;
mod reset;
mod secret;
mod service;
mod support;
mod tls;
mod turn;
mod update;
mod volumes;
mod wipe;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lifecycle::Shutdown;
use machine_api::{Chunk, NetworkStatus, Role, TimeStatus};
use sys::{Linux, System};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::Status;

use crate::config::{Config, LookUps};
use crate::debug::Containerd;
use crate::error::Error;
use crate::etcd::Etcd;
use crate::network::{Firewall, plan_firewall};
use crate::redact::Secrets;

pub(crate) use manifest::in_force as manifest_in_force;
pub use preflight::Peer;
use turn::Turns;
pub use update::Updates;

/// Nobody needs more at once.
const CONNECTIONS: usize = 16;
/// ... and so many of them may be those of callers who wait for new lines of logs.
const FOLLOWERS: usize = 6;
/// Each may keep a processor busy.
const CAPTURES: usize = 2;
/// Nobody looks around in more at once.
const DEBUGGERS: u32 = 2;
/// So many callers of other machines are forwarded at once.
const TUNNELS: usize = 16;
/// A caller who is gone without a word is noticed after about twice this.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);
/// A caller has this long to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// ... and this long for each message.
const BODY: Duration = Duration::from_secs(30);

/// So many logs and archives are put together at once: each may take the memory of a whole log.
const READERS: usize = 3;

/// Nobody needs more calls of one connection at once.
const CALLS: u32 = 16;
/// More than callers say of themselves.
const HEADER_BYTES: u32 = 16 << 10;
/// How much a message may have that a caller sends: a manifest has less.
const MESSAGE_BYTES: usize = 1 << 20;

/// Said where a machine's root does not lie in a slot of a disk.
const NO_SLOTS: &str = "this machine was not started from a disk of slots: boot it with a newer image instead";

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Caller {
    /// Somebody by name and roles.
    Known(Known),
    /// Whoever sets a machine up that has no manifest.
    Maintenance,
}

/// Whoever has this name and these roles; nobody in particular, without any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    name: String,
    roles: Vec<Role>,
    /// The connection's addresses, here and there; none on the local socket.
    connection: Option<(SocketAddr, SocketAddr)>,
}

impl Caller {
    /// Whoever it is; nobody in particular, of a machine without a manifest.
    fn known(&self) -> Known {
        match self {
            Self::Known(known) => known.clone(),
            Self::Maintenance => Known::default(),
        }
    }
}

/// What a call streams.
type Messages<M> = BoxStream<'static, Result<M, Status>>;
/// What a caller streams.
type Incoming<M> = BoxStream<'static, Result<M, Status>>;

/// What answers are made from.
pub(crate) struct Server {
    pub(crate) run: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) pki: PathBuf,
    pub(crate) boots: PathBuf,
    pub(crate) containerd: PathBuf,
    pub(crate) secrets: Secrets,
    logs: PathBuf,
    pod_logs: PathBuf,
    crash: PathBuf,
    peers: Vec<Peer>,
    updates: Option<Updates>,
    /// The manifest in force.
    manifest: Option<::manifest::Manifest>,
    pub(crate) etcd: Option<Arc<Etcd>>,
    pub(crate) look_ups: Option<Arc<dyn LookUps>>,
    time: watch::Receiver<TimeStatus>,
    /// The network that this process makes, and how far it is.
    network: Option<::manifest::Network>,
    network_status: watch::Receiver<NetworkStatus>,
    pub(crate) firewall: Option<Firewall>,
    shutdown: Shutdown,
    turns: Turns,
    connections: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    captures: Arc<Semaphore>,
    debuggers: Arc<Semaphore>,
    /// The port of other machines that callers are forwarded to, on a master.
    forwards_to: Option<u16>,
    tunnels: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(
        config: &Config,
        etcd: Option<Arc<Etcd>>,
        (network_status, time): (watch::Receiver<NetworkStatus>, watch::Receiver<TimeStatus>),
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            run: config.run.clone(),
            state: config.state.clone(),
            pki: config.pki.clone(),
            boots: config.boots.clone(),
            containerd: config.containerd.clone(),
            secrets: Secrets::new(config.manifest.as_ref()),
            logs: config.logs.clone(),
            pod_logs: config.pod_logs.clone(),
            crash: config.crash.clone(),
            peers: config.peers.clone(),
            updates: config.updates.clone(),
            manifest: config.manifest.clone(),
            etcd,
            look_ups: config.look_ups.clone(),
            time,
            network: config.networking().map(|manifest| manifest.network.clone()),
            network_status,
            firewall: config.networking().and_then(|it| plan_firewall(it, &config.pod_links)),
            shutdown: shutdown.clone(),
            turns: Turns::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            readers: Arc::new(Semaphore::new(READERS)),
            captures: Arc::new(Semaphore::new(CAPTURES)),
            debuggers: Arc::new(Semaphore::new(DEBUGGERS as usize)),
            forwards_to: config.forwards_to,
            tunnels: Arc::new(Semaphore::new(TUNNELS)),
        })
    }

    /// One of a machine that has nothing else.
    #[cfg(test)]
    fn alone(config: &Config) -> Arc<Self> {
        Self::with_network(config, NetworkStatus::default())
    }

    /// The same, of a master.
    #[cfg(test)]
    fn with_etcd(config: &Config, etcd: Arc<Etcd>) -> Arc<Self> {
        let known = (watch::channel(NetworkStatus::default()).1, watch::channel(TimeStatus::default()).1);
        Self::new(config, Some(etcd), known, &Shutdown::new())
    }

    /// The same, with a network like this.
    #[cfg(test)]
    fn with_network(config: &Config, network: NetworkStatus) -> Arc<Self> {
        let known = (watch::channel(network).1, watch::channel(TimeStatus::default()).1);
        Self::new(config, None, known, &Shutdown::new())
    }

    /// The container runtime.
    fn runtime(&self) -> Containerd {
        let logins = self.manifest.as_ref().map(crate::outbound::logins).unwrap_or_default();
        Containerd { socket: self.containerd.clone(), logins }
    }

    /// Waits until all connections have ended; not for long.
    pub(crate) async fn drain(&self, within: Duration) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        drop(tokio::time::timeout(within, self.connections.acquire_many(all)).await);
    }

    /// The clock as it is now.
    pub(crate) fn time(&self) -> TimeStatus {
        let now = Linux.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        TimeStatus { now, uptime_seconds: Linux.uptime().as_secs_f64(), ..self.time.borrow().clone() }
    }
}

/// Serves the local socket until shutdown.
///
/// # Errors
/// When it cannot be listened on.
pub(crate) async fn run_local(server: Arc<Server>, shutdown: Shutdown) -> Result<(), Error> {
    let path = server.run.join("machine.sock");
    Linux.remove_file(&path).ok();
    let listener = UnixListener::bind(&path).map_err(|source| Error::ListenLocal { path, source })?;
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                // Only the machine's own root reaches the socket.
                let root = Known { name: "root".to_owned(), roles: vec![Role::Admin], connection: None };
                spawn_connection(&server, move |server| serve(server, stream, Caller::Known(root)));
            },
        }
    }
}

/// Takes a manifest in until shutdown.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn run_maintenance(address: SocketAddr, server: Arc<Server>, shutdown: Shutdown) -> Result<(), Error> {
    let listener = listen(address).await?;
    tracing::info!(%address, "waiting for a manifest: `keelson apply`");
    serve_maintenance(listener, server, shutdown).await;
    Ok(())
}

/// Serves callers with certificates until shutdown.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn run_known(address: SocketAddr, server: Arc<Server>, shutdown: Shutdown) -> Result<(), Error> {
    serve_known(listen(address).await?, server, shutdown).await;
    Ok(())
}

async fn serve_known(listener: TcpListener, server: Arc<Server>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => if let Ok((stream, peer)) = accepted {
                keep_alive(&stream);
                spawn_connection(&server, move |server| async move {
                    if let Err(reason) = serve_certificate(server, stream).await {
                        tracing::info!(%peer, reason, "machine API: caller not served");
                    }
                });
            },
        }
    }
}

async fn serve_certificate(server: Arc<Server>, stream: TcpStream) -> Result<(), String> {
    let connection = stream.local_addr().ok().zip(stream.peer_addr().ok());
    let acceptor = tls::acceptor(&server.pki).map_err(|error| stdx::chain(&error).to_string())?;
    let handshake = tokio::time::timeout(HEADERS, acceptor.accept(stream)).await;
    let stream = handshake.map_err(|_| "no handshake in time".to_owned())?.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let (name, roles) = certificate.map(|certificate| tls::caller(certificate)).unwrap_or_default();
    serve(server, stream, Caller::Known(Known { name, roles, connection })).await;
    Ok(())
}

/// Lets the kernel find out whether whoever is silent is still there: without it the place would never be free again.
fn keep_alive(stream: &TcpStream) {
    let signs = socket2::TcpKeepalive::new().with_time(SIGN_OF_LIFE).with_interval(SIGN_OF_LIFE / 4);
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&signs) {
        tracing::debug!(%error, "a connection could not be set up");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        // A kernel without IPv6 cannot listen for both families at once.
        Err(_refused) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
        }
        Err(source) => Err(Error::Listen { address, source }),
    }
}

async fn serve_maintenance(listener: TcpListener, server: Arc<Server>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                spawn_connection(&server, move |server| serve(server, stream, Caller::Maintenance));
            },
        }
    }
}

/// Serves one connection; if there are too many, closes it at once.
fn spawn_connection<F, Fut>(server: &Arc<Server>, work: F)
where
    F: FnOnce(Arc<Server>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Ok(permit) = server.connections.clone().try_acquire_owned() else { return };
    let server = server.clone();
    drop(tokio::spawn(async move {
        work(server).await;
        drop(permit);
    }));
}

async fn serve<S>(server: Arc<Server>, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let calls = Arc::new(());
    let (own, under_way) = (server.clone(), calls.clone());
    let service = service_fn(move |request| {
        let (server, caller, under_way) = (own.clone(), caller.clone(), under_way.clone());
        async move {
            let answer = gate::answer(caller, server, request).await;
            // A call is over when its last byte went out, or nobody wants it any more.
            Ok::<_, Infallible>(answer.map(|body| {
                body.map_frame(move |frame| {
                    let _under_way = &under_way;
                    frame
                })
            }))
        }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(SIGN_OF_LIFE)
        .keep_alive_timeout(SIGN_OF_LIFE / 4)
        .max_concurrent_streams(CALLS)
        .max_header_list_size(HEADER_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // What has been asked for is answered.
        () = server.shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = until_idle(&calls) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(HEADERS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "machine API connection ended");
    }
}

/// Waits until nothing was asked for a while: whoever has a connection and no use for it keeps others from one.
async fn until_idle(calls: &Arc<()>) {
    // The service has one, and this is another.
    const OWN: usize = 2;
    let mut was_idle = false;
    loop {
        tokio::time::sleep(HEADERS).await;
        let is_idle = Arc::strong_count(calls) <= OWN;
        if is_idle && was_idle {
            return;
        }
        was_idle = is_idle;
    }
}

/// What goes out as it comes, each part as a message; `turn` is given back at its end.
fn streamed<P, M, T>(parts: mpsc::Receiver<P>, turn: T, message: fn(P) -> Result<M, Status>) -> Messages<M>
where
    P: Send + 'static,
    M: Send + 'static,
    T: Send + 'static,
{
    let messages = stream::unfold((parts, turn), move |(mut parts, turn)| async move {
        let part = parts.recv().await?;
        Some((message(part), (parts, turn)))
    });
    messages.boxed()
}

/// The next message of those that a caller sends; it has to come in time.
async fn next<M>(messages: &mut Incoming<M>) -> Result<Option<M>, Status> {
    let next = tokio::time::timeout(BODY, messages.try_next()).await;
    next.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded(format!("nothing came for {} s", BODY.as_secs()))))
}

/// A part of something long, as a message.
#[allow(clippy::unnecessary_wraps, reason = "what else goes out may fail on the way")]
fn chunk(data: Bytes) -> Result<Chunk, Status> {
    Ok(Chunk { data })
}

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod wire;
