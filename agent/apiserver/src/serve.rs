//! The listener: TLS, HTTP/1 and HTTP/2, draining.

mod cork;
mod limits;
mod named;
mod stall;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use lifecycle::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Body, BodyError, BoxError};
use crate::app::App;
use crate::pipeline::{self, PeerAddress, PeerCertificates};
use cork::Corked;

pub use limits::{TlsError, TlsLimits};
use stall::{Patience, Stall};
pub use tls::{Certificates, certificates, key};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams that a client may open on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;
/// Bytes of a request's line and headers: long selectors are in them.
const MAX_HEADER_BYTES: u32 = (1 << 20) + 4096;

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
pub async fn listen(app: Arc<App>, listener: TcpListener, tls: Option<Certificates>, shutdown: Shutdown) {
    let graceful = GracefulShutdown::new();
    let drain = app.config.drain_timeout;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => break,
        };
        match stream {
            Ok((stream, from)) => {
                let acceptor = tls.as_ref().map(Certificates::acceptor);
                let connection = connection(app.clone(), (stream, from), acceptor, graceful.watcher());
                tokio::spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections were still open after the time to drain");
    }
}

async fn connection(
    app: Arc<App>,
    (stream, from): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Without this small answers wait for the client's acknowledgement; failing to set it only costs time.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(usize::try_from(MAX_HEADER_BYTES).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .enable_connect_protocol();
    let patience = Patience::default();
    let stream = Corked::new(Stall::new(stream, app.config.request_timeout, patience.clone()));
    let cork = stream.handle();
    let result = match tls {
        None => {
            let service = hyper::service::service_fn(move |r| answer(app.clone(), r, (from, None), patience.clone()));
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            cork.run(Box::pin(watcher.watch(connection))).await
        }
        Some(acceptor) => {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
                app.metrics.handshake_errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return;
            };
            let peer = stream
                .get_ref()
                .1
                .peer_certificates()
                .map(|c| PeerCertificates(Arc::new(c.iter().map(|c| c.clone().into_owned()).collect())));
            let of_peer = move |r| answer(app.clone(), r, (from, peer.clone()), patience.clone());
            let service = hyper::service::service_fn(of_peer);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            cork.run(Box::pin(watcher.watch(connection))).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(
    app: Arc<App>,
    mut request: Request<Incoming>,
    (from, peer): (SocketAddr, Option<PeerCertificates>),
    patience: Patience,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(PeerAddress(from.ip()));
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let request = request.map(|body| body.map_err(BodyError::new).boxed_unsync());
    let response = pipeline::serve(app, request).await;
    if response.extensions().get::<pipeline::Interactive>().is_some() {
        patience.grant();
    }
    Ok(response)
}
