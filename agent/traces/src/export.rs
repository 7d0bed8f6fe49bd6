//! The way of spans to their collector: in batches, in the background, and to nobody's harm if it is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use client::Way;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use lifecycle::Shutdown;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint as Target};
use tonic_prost::ProstCodec;

use crate::proto::{ExportRequest, ExportResponse, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use crate::settings::Endpoint;

/// Spans that wait; those that find no place are dropped. This and what follows is as in OpenTelemetry's libraries.
pub(crate) const QUEUE_LEN: usize = 2048;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long spans wait for others.
const EVERY: Duration = Duration::from_secs(5);
/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is sent before it is given up.
const TRIES: u32 = 4;
const BACKOFF: stdx::Backoff =
    stdx::Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(10), jitter: 0.0 };
/// How long the last spans may take at a shutdown.
const LAST: Duration = Duration::from_secs(2);
/// The port of a host that is given without one.
const HTTP: u16 = 80;
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends spans.
pub struct Exporter {
    channel: Result<Channel, String>,
    resource: Resource,
    spans: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    pub(crate) fn new(
        channel: Result<Channel, String>,
        (service, instance): (&str, &str),
        (spans, dropped): (mpsc::Receiver<Span>, Arc<AtomicU64>),
    ) -> Self {
        let attributes = [("service.name", service), ("service.instance.id", instance)];
        let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        Self { channel, resource: Resource { attributes }, spans, dropped }
    }

    #[cfg(test)]
    pub(crate) fn into_spans(self) -> mpsc::Receiver<Span> {
        self.spans
    }

    /// Sends spans until the shutdown, and those that are left then.
    pub async fn run(mut self, shutdown: &Shutdown) {
        let (mut batch, mut is_told) = (Vec::with_capacity(BATCH), false);
        loop {
            tokio::select! {
                () = self.fill(&mut batch) => {}
                () = shutdown.wait() => break,
            }
            tokio::select! {
                sent = self.send_patiently(&batch) => self.note(&sent, &mut is_told),
                () = shutdown.wait() => break,
            }
            batch.clear();
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            let sent = tokio::time::timeout(LAST, self.send(&batch)).await;
            self.note(&sent.unwrap_or_else(|_| Err(late())), &mut is_told);
        }
    }

    /// Takes the next spans: those that come within a while of the first. What it took stays when this is dropped.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        let Some(first) = self.spans.recv().await else { return std::future::pending().await };
        batch.push(first);
        let _while = tokio::time::timeout(EVERY, async {
            while batch.len() < BATCH
                && let Some(span) = self.spans.recv().await
            {
                batch.push(span);
            }
        })
        .await;
    }

    async fn send_patiently(&self, batch: &[Span]) -> Result<(), tonic::Status> {
        let mut attempt = 0;
        loop {
            match self.send(batch).await {
                Err(status) if is_passing(status.code()) && attempt + 1 < TRIES => {
                    tokio::time::sleep(BACKOFF.base(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn send(&self, batch: &[Span]) -> Result<(), tonic::Status> {
        let channel = self.channel.clone().map_err(tonic::Status::invalid_argument)?;
        let scope = Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: batch.to_vec() }];
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }],
        };
        let exchange = async {
            let mut client = Grpc::new(channel);
            client.ready().await.map_err(|error| tonic::Status::unavailable(stdx::chain(&error).to_string()))?;
            let codec: ProstCodec<ExportRequest, ExportResponse> = ProstCodec::default();
            client.unary(tonic::Request::new(request), PathAndQuery::from_static(METHOD), codec).await
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(late()))?.into_inner();
        if let Some(partial) = answer.partial_success.filter(|partial| partial.rejected_spans > 0) {
            let (count, why) = (partial.rejected_spans, partial.error_message);
            tracing::warn!(count, why, "the collector of traces did not take all spans");
        }
        Ok(())
    }

    /// One line when the collector goes, and one when it is back.
    fn note(&self, sent: &Result<(), tonic::Status>, is_told: &mut bool) {
        match sent {
            Err(status) if !*is_told => {
                tracing::warn!(code = ?status.code(), why = status.message(), "spans could not be sent, and are dropped");
            }
            Ok(()) if *is_told => tracing::info!("spans can be sent again"),
            _ => {}
        }
        *is_told = sent.is_err();
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "there were more spans than could be sent");
        }
    }
}

fn late() -> tonic::Status {
    tonic::Status::deadline_exceeded("the collector did not answer in time")
}

/// Whether sending again may help.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss
    )
}

/// A connection that is made when it is needed, and made again. A way leads to hosts, not to sockets of this machine.
pub(crate) fn channel(endpoint: &Endpoint, way: Option<Arc<dyn Way>>) -> Result<Channel, String> {
    match endpoint {
        Endpoint::Host(host) => {
            let target = Target::from_shared(format!("http://{host}")).map_err(|error| error.to_string())?;
            let target = target.connect_timeout(TIMEOUT);
            let Some(way) = way else { return Ok(target.connect_lazy()) };
            let connector = tower::service_fn(move |place: http::Uri| {
                let way = way.clone();
                let host = place.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                async move { way.reach(&host, place.port_u16().unwrap_or(HTTP)).await.map(TokioIo::new) }
            });
            Ok(target.connect_with_connector_lazy(connector))
        }
        Endpoint::Socket(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: http::Uri| {
                let path = path.clone();
                async move { UnixStream::connect(&*stdx::socket_path(&path)).await.map(TokioIo::new) }
            });
            // The name is never looked up: the connector knows one place only.
            Ok(Target::from_static("http://localhost").connect_timeout(TIMEOUT).connect_with_connector_lazy(connector))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request, Response};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper_util::rt::TokioExecutor;
    use prost::Message as _;
    use tokio::net::UnixListener;

    use super::*;
    use crate::{Kind, Origin, Settings, Tracer};

    /// A frame that says nothing, and the end of an answer that nothing is wrong with.
    fn thanks() -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
        let end = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(end)].map(Ok);
        let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    /// Takes spans over gRPC.
    fn collect(listener: UnixListener) -> mpsc::Receiver<(String, ExportRequest)> {
        let (told, seen) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let told = told.clone();
                let serve = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let told = told.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        told.send((path, ExportRequest::decode(&body[5..]).unwrap())).await.unwrap();
                        Ok::<_, Infallible>(thanks())
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), serve));
            }
        });
        seen
    }

    /// Leads everywhere by one socket.
    #[derive(Debug)]
    struct By(String);

    impl Way for By {
        fn reach<'a>(
            &'a self,
            host: &'a str,
            port: u16,
        ) -> futures::future::BoxFuture<'a, std::io::Result<Box<dyn client::Io>>> {
            assert_eq!((host, port), ("collector.test", 4317));
            Box::pin(async { Ok(Box::new(UnixStream::connect(&self.0).await?) as Box<dyn client::Io>) })
        }
    }

    #[tokio::test]
    async fn spans_reach_their_collector() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("otel").to_str().unwrap().to_owned();
        let hidden = format!("@{path}");
        for (socket, endpoint, way) in [
            (&path, Endpoint::Socket(path.clone()), None),
            (&hidden, Endpoint::Socket(hidden.clone()), None),
            (&path, Endpoint::Host("collector.test:4317".to_owned()), Some(Arc::new(By(path.clone())) as _)),
        ] {
            let _free_again = std::fs::remove_file(&path);
            let mut seen = collect(UnixListener::bind(&*stdx::socket_path(socket)).unwrap());
            let settings = Settings { endpoint, rate_per_million: 1_000_000 };
            let (tracer, exporter) = Tracer::new(&settings, ("apiserver", "me"), way);
            let shutdown = Shutdown::new();
            drop(tracer.begin(Origin::Trusted(None), || "GET".to_owned(), Kind::Server));
            // What is left at the end is sent, too.
            shutdown.trigger();
            exporter.run(&shutdown).await;
            let (path, request) = seen.try_recv().unwrap();
            assert_eq!(path, METHOD);
            let [spans] = &request.resource_spans[..] else { panic!("{request:?}") };
            assert_eq!(spans.resource.as_ref().unwrap().attributes[0], KeyValue::new("service.name", "apiserver"));
            assert_eq!(spans.scope_spans[0].spans[0].name, "GET");
        }
    }
}
