//! Events on their way: what they hold, how they are gathered, and what becomes of those nobody takes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit::{Auditor, Batch, Config, Event, Format, Level, LogConfig, Mode, Request, Stage, Truncation, WebhookConfig};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lifecycle::Shutdown;
use serde_json::Value;
use tokio::sync::mpsc;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, verbs: [watch]}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, omitManagedFields: true, omitStages: [RequestReceived]}
";

fn request<'a>(verb: &'a str, resource: &'a str) -> Request<'a> {
    Request {
        user: "jane",
        groups: &[],
        verb,
        is_resource: true,
        group: "",
        resource,
        subresource: "",
        namespace: "a",
        name: "x",
        path: "/",
    }
}

fn log(folder: &Path) -> LogConfig {
    LogConfig {
        path: folder.join("audit.log"),
        format: Format::Json,
        max_bytes: 1 << 20,
        max_age: None,
        max_backups: 0,
        compress: false,
    }
}

fn config(folder: &Path) -> Config {
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    Config { policy, log: None, webhook: None }
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn ask(auditor: &Arc<Auditor>, verb: &str, resource: &str) {
    let begun = auditor.begin(&request(verb, resource), |level| Event::new("id".into(), level, jiff_now()));
    assert!(begun.process(Stage::RequestReceived).await);
    let object = br#"{"kind":"X", "metadata":{"name":"x","managedFields":[]},"data":{"key":"secret"}}"#;
    begun.request_object(object);
    begun.annotate("a", "1");
    begun.annotate("a", "2");
    begun.code(201);
    begun.response_object(object);
    begun.process(Stage::ResponseComplete).await;
}

fn jiff_now() -> jiff::Timestamp {
    jiff::Timestamp::UNIX_EPOCH
}

#[tokio::test]
async fn bodies_are_written_from_their_level_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { log: Some((log(folder.path()), Mode::Blocking, None)), ..config(folder.path()) };
    let auditor = Auditor::new(&config, None).unwrap();
    for (verb, resource) in [("watch", "pods"), ("create", "secrets"), ("create", "pods")] {
        ask(&auditor, verb, resource).await;
    }
    let events = lines(folder.path());
    let shown: Vec<_> = events.iter().map(|e| (e["level"].as_str().unwrap(), e["stage"].as_str().unwrap())).collect();
    let complete = "ResponseComplete";
    assert_eq!(shown, [("Metadata", "RequestReceived"), ("Metadata", complete), ("RequestResponse", complete)]);
    assert!(!events[..2].iter().any(|e| e.to_string().contains("secret\"")), "{events:?}");
    assert_eq!(events[1]["responseStatus"]["code"], 201);
    assert_eq!(events[1]["annotations"]["a"], "1");
    let object = serde_json::json!({"kind": "X", "metadata": {"name": "x"}, "data": {"key": "secret"}});
    assert_eq!((&events[2]["requestObject"], &events[2]["responseObject"]), (&object, &object));
    let counts = auditor.counts();
    assert_eq!((counts.events, counts.levels["None"], counts.levels["Metadata"]), (3, 1, 1));
}

#[tokio::test]
async fn large_events_lose_their_objects() {
    let folder = tempfile::tempdir().unwrap();
    let truncation = Some(Truncation { max_event_bytes: 400 });
    let config = Config { log: Some((log(folder.path()), Mode::Blocking, truncation)), ..config(folder.path()) };
    let auditor = Auditor::new(&config, None).unwrap();
    ask(&auditor, "create", "pods").await;
    let events = lines(folder.path());
    assert!(events[0].get("requestObject").is_none());
    assert_eq!(events[0]["annotations"]["audit.k8s.io/truncated"], "true");
    let truncation = Some(Truncation { max_event_bytes: 40 });
    let config = Config { log: Some((log(folder.path()), Mode::Blocking, truncation)), ..config };
    let auditor = Auditor::new(&config, None).unwrap();
    ask(&auditor, "create", "pods").await;
    assert_eq!(auditor.counts().lost["truncate"], 1);
}

#[tokio::test]
async fn a_full_buffer_drops_and_counts_and_shutdown_delivers_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let batch = Batch { buffer: 2, max_size: 1, max_wait: Duration::ZERO, throttle: None };
    let config = Config { log: Some((log(folder.path()), Mode::Batch(batch), None)), ..config(folder.path()) };
    let auditor = Auditor::new(&config, None).unwrap();
    for _ in 0..5 {
        ask(&auditor, "create", "pods").await;
    }
    assert_eq!(auditor.counts().lost["buffered"], 3);
    let shutdown = Shutdown::new();
    shutdown.trigger();
    auditor.run(&shutdown).await;
    assert_eq!(lines(folder.path()).len(), 2);
}

/// A server that refuses some posts and hands on the others.
async fn receiver(refusals: usize) -> (SocketAddr, mpsc::Receiver<(String, Value)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, events) = mpsc::channel(8);
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(refusals));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, left) = (sender.clone(), left.clone());
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (sender, left) = (sender.clone(), left.clone());
                async move {
                    let target = request.uri().to_string();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut response = Response::new(Full::new(Bytes::new()));
                    let less = |n: usize| n.checked_sub(1);
                    let order = std::sync::atomic::Ordering::SeqCst;
                    if left.fetch_update(order, order, less).is_ok() {
                        *response.status_mut() = StatusCode::BAD_GATEWAY;
                    } else {
                        sender.send((target, serde_json::from_slice(&body).unwrap())).await.unwrap();
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, events)
}

fn webhook(folder: &Path, address: SocketAddr) -> WebhookConfig {
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'http://{address}/events'}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\ncurrent-context: a\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    WebhookConfig { kubeconfig, initial_backoff: Duration::from_millis(1) }
}

#[tokio::test]
async fn a_webhook_gets_lists_and_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let (address, mut received) = receiver(2).await;
    let batch = Batch { buffer: 10, max_size: 3, max_wait: Duration::from_secs(600), throttle: None };
    let webhook = Some((webhook(folder.path(), address), Mode::Batch(batch), None));
    let auditor = Auditor::new(&Config { webhook, ..config(folder.path()) }, None).unwrap();
    let shutdown = Shutdown::new();
    let running = tokio::spawn({
        let (auditor, shutdown) = (auditor.clone(), shutdown.clone());
        async move { auditor.run(&shutdown).await }
    });
    for _ in 0..4 {
        ask(&auditor, "create", "pods").await;
    }
    let (target, list) = received.recv().await.unwrap();
    assert_eq!(target, "/events?timeout=30s");
    assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("EventList"), 3));
    // The fourth waits for others; the end of the server is the end of that.
    shutdown.trigger();
    let (_, list) = received.recv().await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    running.await.unwrap();
    assert!(auditor.counts().lost.is_empty());
}

#[tokio::test]
async fn strict_requests_fail_without_their_webhook() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _received) = receiver(usize::MAX).await;
    let webhook = Some((webhook(folder.path(), address), Mode::BlockingStrict, None));
    let auditor = Auditor::new(&Config { webhook, ..config(folder.path()) }, None).unwrap();
    let record = auditor.begin(&request("create", "secrets"), |level| {
        assert_eq!(level, Level::Metadata);
        Event::new("id".into(), level, jiff_now())
    });
    assert!(!record.process(Stage::RequestReceived).await);
    assert_eq!(auditor.counts().lost["webhook"], 1);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    std::fs::write(&config.policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Much}]\n").unwrap();
    let text = Auditor::new(&config, None).err().unwrap().to_string();
    assert!(text.contains("rules[0].level: Unsupported value: \"Much\"") && text.contains("policy.yaml"), "{text}");
    config.policy = folder.path().join("none");
    assert!(Auditor::new(&config, None).err().unwrap().to_string().contains("none"));
}
