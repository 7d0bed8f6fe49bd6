//! Connections: TCP with keep-alive, TLS, HTTP/2 where the server offers it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::config::Config;
use crate::error::{BoxError, ConfigError, Error};
use crate::tls;

/// The body of a request: always complete before it is sent.
pub type RequestBody = Full<Bytes>;
/// The body of a response: may be a stream without end.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
/// Anything that answers requests.
pub(crate) type HttpService = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, BoxError>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is asked for a sign of life after this, and given up after the second figure.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS: usize = 8;
/// Servers commonly grant 100 streams on a connection.
const LANE_WATCHES: usize = 80;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The connections of one client.
pub(crate) struct Transport {
    /// For requests that end.
    pub(crate) requests: HttpService,
    /// For watches, which would otherwise use up the streams that a server grants a connection.
    pub(crate) watches: Lanes,
}

/// Connections for watches: another one whenever the last is well used.
pub(crate) struct Lanes {
    /// `None` in-process, where nothing is limited.
    connector: Option<Connector>,
    lanes: Mutex<Vec<Lane>>,
}

struct Lane {
    service: HttpService,
    /// Cloned for every watch under way.
    users: Arc<()>,
}

impl Lane {
    fn join(&self) -> (HttpService, LaneUse) {
        (self.service.clone(), self.users.clone())
    }
}

/// Keeps a place in a lane until dropped.
pub(crate) type LaneUse = Arc<()>;

impl Lanes {
    fn new(first: HttpService, connector: Option<Connector>) -> Self {
        let lane = Lane { service: first, users: Arc::new(()) };
        Self { connector, lanes: Mutex::new(vec![lane]) }
    }

    /// A service for one watch, and its place there.
    pub(crate) fn take(&self) -> (HttpService, LaneUse) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connector) = &self.connector else { return lanes[0].join() };
        if let Some(free) = lanes.iter().find(|lane| Arc::strong_count(&lane.users) <= LANE_WATCHES) {
            return free.join();
        }
        let lane = Lane { service: http_service(connector.clone()), users: Arc::new(()) };
        let joined = lane.join();
        lanes.push(lane);
        joined
    }
}

impl Transport {
    /// Connections as `config` describes; nothing is dialled yet.
    pub(crate) fn connect(config: &Config) -> Result<Self, ConfigError> {
        let connector = Connector::try_new(config)?;
        let watches = Lanes::new(http_service(connector.clone()), Some(connector.clone()));
        Ok(Self { requests: http_service(connector), watches })
    }

    /// The service itself, in this process.
    pub(crate) fn from_service<S, B>(service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = BoxCloneSyncService::new(service.map_response(box_body).map_err(Into::into));
        Self { requests: service.clone(), watches: Lanes::new(service, None) }
    }
}

fn http_service(connector: Connector) -> HttpService {
    let client: HyperClient<Connector, RequestBody> = HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .build(connector);
    BoxCloneSyncService::new(client.map_response(box_body).map_err(Into::into))
}

fn box_body<B>(response: Response<B>) -> Response<ResponseBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// A way to servers that does not lead straight over the network.
pub trait Way: Send + Sync + std::fmt::Debug {
    /// The bytes of a connection with who answers at a host's port. Every way has deadlines of its own.
    fn reach<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// Dials one server.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    way: Option<Arc<dyn Way>>,
}

impl Connector {
    fn try_new(config: &Config) -> Result<Self, ConfigError> {
        let server = &config.server;
        let bad = || ConfigError::ServerScheme(server.to_string());
        let host = server.host().ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (secure, default_port) = match server.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            Some(_) | None => return Err(bad()),
        };
        let port = server.port_u16().unwrap_or(default_port);
        let way = config.way.clone();
        if !secure {
            return Ok(Self { host, port, tls: None, way });
        }
        let verified = config.tls_server_name.as_ref().unwrap_or(&host).clone();
        let name = ServerName::try_from(verified).map_err(|_invalid| bad())?;
        let connector = TlsConnector::from(Arc::new(tls::client_config(config)?));
        Ok(Self { host, port, tls: Some((connector, name)), way })
    }

    /// A connection, in time.
    async fn dial(&self) -> io::Result<Wire> {
        match &self.way {
            Some(way) => {
                let stream = way.reach(&self.host, self.port).await?;
                in_time(self.secure(stream)).await
            }
            None => in_time(async { self.secure(self.straight().await?).await }).await,
        }
    }

    async fn straight(&self) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(PING_INTERVAL).with_interval(PING_TIMEOUT);
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(PING_INTERVAL + PING_TIMEOUT))?;
        Ok(Box::new(stream))
    }

    async fn secure(&self, stream: Box<dyn Io>) -> io::Result<Wire> {
        let Some((connector, name)) = &self.tls else {
            return Ok(Wire { io: TokioIo::new(stream), http2: false });
        };
        let stream = connector.connect(name.clone(), stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Wire { io: TokioIo::new(Box::new(stream)), http2 })
    }
}

/// Makes connections with the server of a [`Config`], for who speaks another protocol with it.
#[derive(Clone)]
pub struct Dialer(Connector);

impl Dialer {
    /// Nothing is dialled yet.
    ///
    /// # Errors
    /// When certificates or keys in `config` cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Connector::try_new(config).map(Self).map_err(Error::Config)
    }

    /// A connection over the network.
    ///
    /// # Errors
    /// When there is none in time, or either end does not trust the other.
    pub async fn dial(&self) -> io::Result<Box<dyn Io>> {
        self.0.dial().await.map(|wire| wire.io.into_inner())
    }

    /// A connection over something that leads to the server.
    ///
    /// # Errors
    /// The same.
    pub async fn dial_over(&self, way: Box<dyn Io>) -> io::Result<Box<dyn Io>> {
        in_time(self.0.secure(way)).await.map(|wire| wire.io.into_inner())
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(CONNECT_TIMEOUT, work).await;
    done.unwrap_or_else(|_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")))
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.dial().await })
    }
}

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, plain or TLS.
struct Wire {
    io: TokioIo<Box<dyn Io>>,
    http2: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
