//! The listener: TLS, HTTP/1 and HTTP/2, draining.

mod cork;
mod idle;
mod limits;
mod named;
mod sending;
mod stall;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_LENGTH, Entry};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lifecycle::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::answer::{Body, BodyError, BoxError};
use crate::app::App;
use crate::config::Config;
use crate::ending::LastOfConnection;
use crate::pipeline::{self, PeerAddress, PeerCertificates};
use cork::Corked;
use idle::{Activity, Busy};
pub use limits::{TlsError, TlsLimits};
pub use sending::SentBy;
use sending::{Bounds, Streams};
use stall::{Patience, Stall};
pub use tls::{Certificates, certificates, key};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's line and headers: long selectors are in them.
const MAX_HEADER_BYTES: u32 = (1 << 20) + 4096;
/// Bytes of an answer that an HTTP/2 stream keeps for a client that does not read.
const MAX_SEND_BYTES: usize = 64 << 10;
/// After so long without a word a client is asked whether it is still there; as upstream.
const KEEP_ALIVE: Duration = Duration::from_secs(180);
/// Bytes that the kernel takes of a connection beyond those that are on their way.
const UNSENT_BYTES: u32 = 128 << 10;

/// The server as a service, without a socket.
#[derive(Clone)]
pub struct ApiService(Arc<App>);

impl ApiService {
    /// A service over shared state.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(BodyError::new).boxed_unsync());
        pipeline::serve(self.0.clone(), request).map(Ok).boxed()
    }
}

/// Serves connections until shutdown, then lets those in flight finish.
pub async fn listen(app: Arc<App>, listener: TcpListener, tls: Option<Certificates>) {
    let (connections, shutdown) = (TaskTracker::new(), Shutdown::new());
    let stopping = app.config.conduct.stopping;
    let drain = app.config.drain_timeout + stopping.watch_grace;
    let mut closed = std::pin::pin!(closed(&app));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closed => break,
        };
        match stream {
            Ok((stream, from)) => {
                let acceptor = tls.as_ref().map(Certificates::acceptor);
                connections.spawn(connection(app.clone(), (stream, from), acceptor, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    shutdown.trigger();
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!("some connections were still open after the time to drain");
    }
}

/// Returns once no connections are to be accepted any more.
async fn closed(app: &App) {
    app.shutdown.wait().await;
    if app.config.conduct.stopping.sends_elsewhere {
        // Clients that come now are told to go elsewhere.
        let _late = tokio::time::timeout(app.config.drain_timeout, app.ending.drained()).await;
    }
}

/// Without the first small answers wait for the client's acknowledgement; without the second a client whose machine is
/// gone is noticed when something is sent to it; without the third the kernel takes megabytes for each client that does
/// not read, and has none left for the others.
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    let keep_alive = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

async fn connection(
    app: Arc<App>,
    (stream, from): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
    shutdown: Shutdown,
) {
    if let Err(error) = set_up(&stream) {
        tracing::debug!(%error, "a connection could not be set up");
    }
    let patience = Patience::default();
    let stream = Stall::new(stream, app.config.request_timeout, patience.clone());
    let Some(acceptor) = tls else {
        return serve(app, stream, ((from, None), patience), shutdown).await;
    };
    let metrics = app.clone();
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = tokio::select! {
        done = handshake => done,
        () = shutdown.wait() => return,
    };
    let Ok(Ok(stream)) = stream else {
        metrics.metrics.handshake_errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        return;
    };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|c| PeerCertificates(Arc::new(c.iter().map(|c| c.clone().into_owned()).collect())));
    serve(app, stream, ((from, peer), patience), shutdown).await;
}

/// Who is at the other end.
type Peer = (SocketAddr, Option<PeerCertificates>);

/// Serves a connection. What is encrypted is corked before, so that small frames share records and what these cost.
async fn serve<S>(app: Arc<App>, stream: S, (peer, patience): (Peer, Patience), shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = Corked::new(stream);
    let cork = stream.handle();
    let activity = Activity::new();
    let (begun, granted) = (activity.clone(), patience.clone());
    let builder = builder(&app.config);
    let service = hyper::service::service_fn(move |request| {
        let busy = begun.begin();
        // Boxed, since connections and streams keep the room for it as long as they live.
        Box::pin(answer(app.clone(), request, peer.clone(), (granted.clone(), busy)))
    });
    let mut connection = Box::pin(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let running = std::pin::pin!(async {
        let running = idle::run(connection.as_mut(), |c| c.graceful_shutdown(), (&activity, &patience), &shutdown);
        running.await.unwrap_or(Ok(()))
    });
    if let Err(error) = cork.run(running, || activity.is_busy()).await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn builder(config: &Config) -> Builder<Streams> {
    let mut builder = Builder::new(Streams { patience: config.request_timeout });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(usize::try_from(MAX_HEADER_BYTES).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.conduct.max_streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_SEND_BYTES)
        .enable_connect_protocol();
    if config.tls.as_ref().is_some_and(|tls| tls.limits.is_http1_only()) { builder.http1_only() } else { builder }
}

/// The answer to HEAD: the headers of what GET would be answered. Over HTTP/2 hyper would send the body, which breaks
/// the stream.
fn headers_of(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let (Some(length), Entry::Vacant(header)) = (length, response.headers_mut().entry(CONTENT_LENGTH)) {
        header.insert(length.into());
    }
    response.map(|_| crate::answer::full(""))
}

async fn answer(
    app: Arc<App>,
    mut request: Request<Incoming>,
    (from, peer): Peer,
    (patience, busy): (Patience, Busy),
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(PeerAddress(from.ip()));
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let is_http1 = request.version() < http::Version::HTTP_2;
    let is_head = request.method() == Method::HEAD;
    let chance = app.config.conduct.goaway_chance;
    let goes_away = !is_http1 && chance > 0.0 && rand::random::<f64>() < chance;
    let request = request.map(|body| body.map_err(BodyError::new).boxed_unsync());
    let mut response = pipeline::serve(app, request).await;
    let is_last = response.extensions().get::<LastOfConnection>().is_some();
    if is_last && is_http1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    } else if is_last || goes_away {
        busy.dismiss();
    }
    if response.extensions().get::<pipeline::Interactive>().is_some() {
        patience.grant();
    }
    let end = response.extensions().get::<SentBy>().copied();
    let response = if is_head { headers_of(response) } else { response };
    Ok(response.map(|body| sending::bounded(body, Bounds { end, is_http1, busy })))
}
