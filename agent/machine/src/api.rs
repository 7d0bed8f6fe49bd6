//! The machine API: what [`machine_api::CALLS`] lists, on a local socket and, by the roles of certificates, over the
//! network; while there is no manifest, a way to hand one in.

mod calls;
mod capture;
mod check;
mod debug;
mod etcd;
mod fetch;
mod forward;
mod locks;
mod look;
mod manifest;
mod preflight;
mod reset;
mod support;
mod tls;
mod update;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lifecycle::Shutdown;
use machine_api::{NetworkStatus, Role, TimeStatus};
use sys::{Linux, System};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Config;
use crate::error::Error;
use crate::etcd::Etcd;
use crate::network::{Firewall, plan_firewall};
use crate::redact::Secrets;

/// Mirrors of registries, by registry.
type Mirrors = std::collections::BTreeMap<::manifest::RegistryHost, ::manifest::Mirror>;

pub use preflight::Peer;
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
/// ... and this long to say all of it.
const BODY: Duration = Duration::from_secs(30);

/// So many logs and archives are put together at once: each may take the memory of a whole log.
const READERS: usize = 3;

/// Said where a machine's root does not lie in a slot of a disk.
const NO_SLOTS: &str = "this machine was not started from a disk of slots: boot it with a newer image instead\n";

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

/// What is answered.
type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// What answers are made from.
pub(crate) struct Server {
    pub(crate) run: PathBuf,
    pub(crate) pki: PathBuf,
    pub(crate) boots: PathBuf,
    pub(crate) containerd: PathBuf,
    pub(crate) secrets: Secrets,
    logs: PathBuf,
    pod_logs: PathBuf,
    crash: PathBuf,
    peers: Vec<Peer>,
    updates: Option<Updates>,
    /// Where images come from.
    mirrors: Mirrors,
    etcd: Option<Arc<Etcd>>,
    time: watch::Receiver<TimeStatus>,
    /// The network that this process makes, and how far it is.
    network: Option<::manifest::Network>,
    network_status: watch::Receiver<NetworkStatus>,
    pub(crate) firewall: Option<Firewall>,
    shutdown: Shutdown,
    /// One change at a time of which system runs.
    turn: Arc<Semaphore>,
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
            pki: config.pki.clone(),
            boots: config.boots.clone(),
            containerd: config.containerd.clone(),
            secrets: Secrets::new(config.manifest.as_ref()),
            logs: config.logs.clone(),
            pod_logs: config.pod_logs.clone(),
            crash: config.crash.clone(),
            peers: config.peers.clone(),
            updates: config.updates.clone(),
            mirrors: config.manifest.as_ref().map(|it| it.registries.mirrors.clone()).unwrap_or_default(),
            etcd,
            time,
            network: config.manifest.as_ref().map(|manifest| manifest.network.clone()),
            network_status,
            firewall: config.manifest.as_ref().and_then(|it| plan_firewall(it, &config.pod_links)),
            shutdown: shutdown.clone(),
            turn: Arc::new(Semaphore::new(1)),
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

    /// The same, with a network like this.
    #[cfg(test)]
    fn with_network(config: &Config, network: NetworkStatus) -> Arc<Self> {
        let known = (watch::channel(network).1, watch::channel(TimeStatus::default()).1);
        Self::new(config, None, known, &Shutdown::new())
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
    tracing::info!(%address, "waiting for a manifest: PUT /manifest");
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
    let service = service_fn(|request| {
        let (server, caller) = (server.clone(), caller.clone());
        async move { Ok::<_, Infallible>(calls::answer(&caller, &server, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // What has been asked for is answered.
        () = server.shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "machine API connection ended");
    }
}

/// An answer that goes out as its parts come, and gives `turn` back at its end.
fn streamed<T: Send + 'static>(parts: mpsc::Receiver<Bytes>, turn: T, kind: &'static str) -> Answer {
    let frames = stream::unfold((parts, turn), |(mut parts, turn)| async move {
        let part = parts.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(part)), (parts, turn)))
    });
    let body = StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Answer::new(body);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

/// An answer that is known from its beginning to its end.
fn whole(response: Response<Full<Bytes>>) -> Answer {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod access_tests;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn server(run: &Path) -> Arc<Server> {
        Server::alone(&Config { run: run.to_owned(), ..Config::new(None, std::time::UNIX_EPOCH) })
    }

    async fn call(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn put(body: &str) -> String {
        let length = body.len();
        format!("PUT /manifest HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn a_manifest_is_checked_and_handed_on() {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir(run.path().join("inbox")).unwrap();
        std::fs::write(run.path().join("status.json"), r#"{"hostname":"m1"}"#).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve_maintenance(listener, server(run.path()), shutdown.clone()));
        let bad = call(address, &put("version = 1\n[machine]\nhostnam = \"a\"\n")).await;
        assert!(bad.starts_with("HTTP/1.1 422") && bad.contains("hostname"), "{bad}");
        let good = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n";
        let answer = call(address, &put(good)).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert_eq!(std::fs::read_to_string(run.path().join("inbox/manifest.toml")).unwrap(), good);
        let status = call(address, "GET /status HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
        assert!(status.starts_with("HTTP/1.1 200") && status.contains(r#""hostname":"m1""#), "{status}");
        let wrong = call(address, "GET /manifest HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
        assert!(wrong.starts_with("HTTP/1.1 405"), "{wrong}");
        shutdown.trigger();
        server.await.unwrap();
    }
}
