//! The kubelet's HTTPS server: logs, streams into containers, listings, statistics.
//!
//! Callers are known by a client certificate of the given authority or by a token that the API server reviews, and
//! may do what the API server's SubjectAccessReview says. Streams are not understood here: the request is sent on to
//! the runtime's own streaming server on loopback, and bytes are copied both ways.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::context::NodeContext;
use crate::error::Error;
use crate::manager::PodTable;
use crate::observed::Nanos;

mod auth;
mod body;
mod cadvisor;
mod disk;
mod log_stream;
mod machine;
mod metrics;
mod routes;
mod stats;
mod tls;
mod tunnel;
mod usage;

use auth::{Gate, Refusal};
use body::{Answer, text};
pub use tls::TlsError;
use tls::TlsSource;

/// Connections at a time; logs that are followed and streams hold one each.
const MAX_CONNECTIONS: usize = 1024;
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Wait after a connection could not be accepted (no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What every request needs.
pub(crate) struct Server {
    node: Arc<NodeContext>,
    table: PodTable,
    gate: Gate,
    /// When the machine's processor time was read last, and what it was.
    node_cpu: Mutex<Option<(Nanos, u64)>>,
}

/// Starts to listen. Returns once the addresses are taken.
pub(crate) async fn start(node: &Arc<NodeContext>, table: &PodTable) -> Result<(), Error> {
    let Some(config) = node.config.server.clone() else { return Ok(()) };
    let tls = TlsSource::try_new(config.certificate.clone(), config.client_ca_pem.clone())?;
    let server = Arc::new(Server {
        node: node.clone(),
        table: table.clone(),
        gate: Gate::new(node.client.clone()),
        node_cpu: Mutex::default(),
    });
    let listener = listen(config.listen).await?;
    let shutdown = node.shutdown.clone();
    let plain = match config.healthz {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    node.tasks.spawn("kubelet server", async move {
        tokio::select! {
            () = shutdown.wait() => {}
            () = accept(listener, tls, server) => {}
        }
    });
    if let Some(plain) = plain {
        let shutdown = node.shutdown.clone();
        node.tasks.spawn("kubelet health", async move {
            tokio::select! {
                () = shutdown.wait() => {}
                () = accept_health(plain) => {}
            }
        });
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

async fn accept(listener: TcpListener, tls: TlsSource, server: Arc<Server>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (acceptor, server) = (tls.acceptor(), server.clone());
        let tasks = server.node.tasks.clone();
        tasks.spawn("kubelet connection", async move {
            serve(stream, acceptor, server).await;
            drop(slot);
        });
    }
}

async fn serve(stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor, server: Arc<Server>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().to_vec());
    let shutdown = server.node.shutdown.clone();
    let certificate = Arc::new(certificate);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, certificate) = (server.clone(), certificate.clone());
        async move {
            let is_head = request.method() == http::Method::HEAD;
            let response = server.answer(request, certificate.as_deref()).await;
            // Over HTTP/2 hyper would send the body, which breaks the stream.
            Ok::<_, std::convert::Infallible>(if is_head { body::without(response) } else { response })
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        },
        () = shutdown.wait() => {}
    }
}

/// Answers `/healthz` in plain text, for whoever supervises this process.
async fn accept_health(listener: TcpListener) {
    loop {
        let Ok((stream, _peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let service = service_fn(|request: Request<Incoming>| async move {
            let answer = match request.uri().path() {
                "/healthz" => text(StatusCode::OK, "ok"),
                _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            };
            Ok::<Response<_>, std::convert::Infallible>(answer)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(hyper_util::rt::TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        if let Ok(Err(error)) = tokio::time::timeout(HANDSHAKE, connection).await {
            tracing::debug!(%error, "health connection ended");
        }
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, certificate: Option<&[u8]>) -> Response<Answer> {
        match self.gate.admit(&self.node.config.node_name, &request, certificate).await {
            Ok(()) => self.route(request).await,
            Err(Refusal::Unauthenticated) => text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(Refusal::Forbidden(why)) => text(StatusCode::FORBIDDEN, &why),
            Err(Refusal::Unknown(why)) => text(StatusCode::INTERNAL_SERVER_ERROR, &why),
        }
    }
}
