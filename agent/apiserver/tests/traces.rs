//! What requests do is followed, by whoever is asked on the way.
#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
}

/// Takes spans over gRPC.
async fn collector(listener: TcpListener, told: mpsc::Sender<Span>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let told = told.clone();
        let serve = hyper::service::service_fn(move |request: Request<Incoming>| {
            let told = told.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let export = Export::decode(&body[5..]).unwrap();
                let scopes = export.resources.into_iter().flat_map(|resource| resource.scopes);
                for span in scopes.flat_map(|scope| scope.spans) {
                    told.send(span).await.unwrap();
                }
                let status = (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                let frames =
                    [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(HeaderMap::from_iter([status]))];
                let mut response =
                    Response::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>))));
                response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                Ok::<_, Infallible>(response)
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), serve));
    }
}

/// A server that tells all spans.
async fn traced(shutdown: &lifecycle::Shutdown) -> (ApiService, mpsc::Receiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (told, seen) = mpsc::channel(64);
    let settings = format!(
        "{{\"kind\": \"TracingConfiguration\", \"apiVersion\": \"apiserver.config.k8s.io/v1\", \"endpoint\": \"{}\", \
         \"samplingRatePerMillion\": 1000000}}",
        listener.local_addr().unwrap()
    );
    tokio::spawn(collector(listener, told));
    let store = store::Embedded::in_memory().await.unwrap();
    let traces = Some(traces::Settings::parse(&settings).unwrap());
    let config = Config { authorization: Authorization::AlwaysAllow, traces, ..Config::default() };
    let (server, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    (server, seen)
}

/// The spans that were sent, as many as have to come.
async fn spans(seen: &mut mpsc::Receiver<Span>, count: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    while spans.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), seen.recv()).await;
        spans.push(next.expect("the spans come").unwrap());
    }
    spans
}

#[tokio::test]
async fn a_request_is_a_span_with_its_handler_and_the_store_below() {
    let shutdown = lifecycle::Shutdown::new();
    let (server, mut seen) = traced(&shutdown).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(support::send(&server, Method::POST, path, support::JSON, map).await.0, 201);
    assert_eq!(support::send(&server, Method::GET, "/version", support::JSON, Value::Null).await.0, 200);
    // The last spans are sent at the end.
    shutdown.trigger();
    let spans = spans(&mut seen, 4).await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let request = named("POST /api/v1/namespaces/{:namespace}/configmaps");
    let (handler, write) = (named("Create"), named("etcdserverpb.KV/Txn"));
    assert!(request.parent.is_empty() && request.trace.len() == 16);
    assert_eq!((&handler.trace, &handler.parent), (&request.trace, &request.id));
    assert_eq!((&write.trace, &write.parent), (&request.trace, &handler.id));
    assert_ne!(named("GET").trace, request.trace);
}

#[tokio::test]
async fn nobody_is_trusted_with_a_trace_for_the_name_they_go_by() {
    let shutdown = lifecycle::Shutdown::new();
    let (server, mut seen) = traced(&shutdown).await;
    let request = Request::get("/version")
        .header("traceparent", "00-07070707070707070707070707070707-0909090909090909-01")
        .header("impersonate-user", "jane")
        .header("impersonate-group", "system:masters");
    let response = server.oneshot(request.body(http_body_util::Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    shutdown.trigger();
    let spans = spans(&mut seen, 1).await;
    assert!(spans[0].name == "GET" && spans[0].parent.is_empty() && spans[0].trace != [7; 16], "{spans:?}");
}
