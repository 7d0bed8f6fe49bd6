//! What goes wrong: broken and hostile bodies, a store that fails, clients that go away.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiService, Authorization, Config};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use lifecycle::Shutdown;
use serde_json::{Value, json};
use store::{GetResult, RangeRequest, RangeResult, Revision, Store, WatchRequest, WatchStream, WriteResult};
use support::{JSON, send, server, until};
use tokio::sync::watch;
use tower::ServiceExt as _;

const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn post(server: &ApiService, kind: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
    let uri = format!("{MAPS}?dryRun=All");
    let request = Request::post(uri).header("content-type", kind).body(Full::new(body.into())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(data.len() as u64, &mut out);
    out.extend_from_slice(data);
    out
}

fn envelope(raw: &[u8]) -> Vec<u8> {
    let name = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    [b"k8s\0".to_vec(), field(1, &name), field(2, raw)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_harm_nobody() {
    let shutdown = Shutdown::new();
    let server = server(&shutdown).await;
    let json = |rest: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},{rest}}}"#);
    let yaml = |rest: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n{rest}");
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let large = "a".repeat(3 << 20);
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, before) in ('b'..='j').zip('a'..) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", "));
    }
    let mut deep = Vec::new();
    for _ in 0..5000 {
        deep = field(1, &deep);
    }
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (JSON, json(&format!(r#""data":{{"a":"{large}"}}"#)).into(), 413, "limit is 3145728"),
        (YAML, yaml(&format!("data: {{a: {large}}}")).into(), 413, "limit is 3145728"),
        (PROTOBUF, envelope(&field(3, large.as_bytes())), 413, "limit is 3145728"),
        (JSON, json(&format!(r#""x":{}"#, nested(1_000_000))).into(), 400, "exceeded max depth"),
        (JSON, "[".repeat(1_000_000).into(), 400, "exceeded max depth"),
        (JSON, r#"{"a":"#.repeat(300_000).into(), 400, "exceeded max depth"),
        (YAML, yaml(&format!("x: {}", nested(200_000))).into(), 400, "exceeded max depth"),
        (YAML, "x: {".repeat(100_000).into(), 400, "exceeded max depth"),
        (YAML, "- ".repeat(5_000).into(), 400, "exceeded max depth"),
        (YAML, yaml(&bomb).into(), 400, "excessive aliasing"),
        (YAML, b"a: \"\xff\"".to_vec(), 400, "invalid leading UTF-8 octet"),
        (PROTOBUF, envelope(&deep), 422, "is invalid"),
        (PROTOBUF, b"k8s\0".to_vec(), 400, "empty body"),
        (PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\x0f".to_vec(), 400, "unexpected EOF"),
        (PROTOBUF, envelope(b"\x0a\xff\xff\xff\xff\x0f"), 400, "unexpected EOF"),
        (PROTOBUF, envelope(b"\x0f"), 400, "wire type"),
        (PROTOBUF, envelope(&[0xff; 12]), 400, "varint"),
        // A compressed body is no JSON: nothing is ever unpacked.
        (JSON, b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), 400, "invalid character '\\x1f'"),
    ];
    for (number, (kind, body, code, text)) in cases.into_iter().enumerate() {
        let (answered, message) = post(&server, kind, body).await;
        let shown: String = message.chars().take(300).collect();
        assert_eq!(answered.as_u16(), code, "case {number}, {kind}: {shown}");
        assert!(message.contains(text), "case {number}, {kind}: {shown}");
    }
    // What is no Unicode becomes a character that says so.
    let (code, message) = post(&server, JSON, json(r#""data":{"a":"\ud800"}"#)).await;
    assert_eq!(code, StatusCode::CREATED, "{message}");
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_object_in_protobuf_is_refused_before_it_takes_the_stack() {
    let shutdown = Shutdown::new();
    let server = server(&shutdown).await;
    let mut schema = Vec::new();
    for _ in 0..5000 {
        // The schema's `not`.
        schema = [vec![27 << 3 | 2 | 0x80, 1], field(0, &schema)[1..].to_vec()].concat();
    }
    let raw = field(2, &field(7, &field(4, &field(1, &schema))));
    let name = [field(1, b"apiextensions.k8s.io/v1"), field(2, b"CustomResourceDefinition")].concat();
    let body = [b"k8s\0".to_vec(), field(1, &name), field(2, &raw)].concat();
    let uri = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request = Request::post(uri).header("content-type", PROTOBUF).body(Full::new(Bytes::from(body))).unwrap();
    assert_eq!(server.clone().oneshot(request).await.unwrap().status(), StatusCode::BAD_REQUEST);
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_leaves_nothing() {
    let shutdown = Shutdown::new();
    let server = server(&shutdown).await;
    let never = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
    let request = Request::post(MAPS).header("content-type", JSON).body(never).unwrap();
    let mut answer = Box::pin(server.clone().oneshot(request));
    assert!((&mut answer).now_or_never().is_none());
    let in_flight = "apiserver_current_inflight_requests{request_kind=\"mutating\"} ";
    assert!(metrics(&server).await.contains(&format!("{in_flight}1\n")));
    drop(answer);
    assert!(metrics(&server).await.contains(&format!("{in_flight}0\n")));
    shutdown.trigger();
}

async fn metrics(server: &ApiService) -> String {
    let request = Request::get("/metrics").body(Full::<Bytes>::default()).unwrap();
    let body = server.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What a store is told to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Well,
    Unreachable,
    Full,
    /// What encrypts values does not answer.
    Sealed,
    /// What is called `broken` cannot be deleted, and other deletions take until the store is well.
    Slow,
}

/// A store that fails when it is told to.
struct Moody {
    inner: Arc<store::Embedded>,
    mode: watch::Sender<Mode>,
    /// How many deletions were begun that take a while.
    begun: watch::Sender<usize>,
}

impl Moody {
    async fn new() -> Arc<Self> {
        let inner = Arc::new(store::Embedded::in_memory().await.unwrap());
        Arc::new(Self { inner, mode: watch::Sender::new(Mode::Well), begun: watch::Sender::default() })
    }

    fn check(&self, writes: bool) -> store::Result<()> {
        match *self.mode.borrow() {
            Mode::Unreachable => Err(store::Error::Unavailable { reason: "nobody is there".to_owned() }),
            Mode::Full if writes => Err(store::Error::NoSpace),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Moody {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> store::Result<GetResult> {
        self.check(false)?;
        self.inner.get(key, revision).await
    }

    async fn range(&self, request: RangeRequest) -> store::Result<RangeResult> {
        self.check(false)?;
        self.inner.range(request).await
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> store::Result<WriteResult> {
        self.check(true)?;
        self.inner.create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> store::Result<WriteResult> {
        self.check(true)?;
        self.inner.update(key, value, expected, ttl).await
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> store::Result<WriteResult> {
        self.check(true)?;
        let mut mode = self.mode.subscribe();
        let (is_slow, is_broken) = (*mode.borrow() == Mode::Slow, key.ends_with(b"/broken"));
        if is_slow && is_broken {
            return Err(store::Error::NoSpace);
        }
        if is_slow {
            self.begun.send_modify(|begun| *begun += 1);
            let _either_way = mode.wait_for(|mode| *mode == Mode::Well).await;
        }
        self.inner.delete(key, expected).await
    }

    async fn watch(&self, request: WatchRequest) -> store::Result<WatchStream> {
        self.check(false)?;
        let inner = self.inner.watch(request).await?;
        let (progress, mut mode) = (inner.progress(), self.mode.subscribe());
        // Whoever cannot be reached ends what went on before.
        let gone = async move {
            let _either_way = mode.wait_for(|mode| *mode == Mode::Unreachable).await;
        };
        Ok(WatchStream::new(inner.take_until(Box::pin(gone)).boxed(), progress))
    }

    async fn current_revision(&self) -> store::Result<Revision> {
        self.check(false)?;
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> store::Result<()> {
        self.check(false)?;
        self.inner.compact(revision).await
    }

    async fn health(&self) -> store::Result<()> {
        self.check(false)
    }

    fn is_encrypted_by_others(&self) -> bool {
        *self.mode.borrow() == Mode::Sealed
    }

    async fn encryption_health(&self) -> Result<(), String> {
        if *self.mode.borrow() == Mode::Sealed { std::future::pending().await } else { Ok(()) }
    }
}

async fn on(store: &Arc<impl Store>, shutdown: &Shutdown) -> ApiService {
    let config = Config { authorization: Authorization::AlwaysAllow, ..Config::default() };
    let (service, ready) = apiserver::service(config, store.clone(), shutdown).unwrap();
    ready.await;
    service
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}})
}

async fn text(server: &ApiService, uri: &str) -> (StatusCode, String) {
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let (head, body) = server.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(server: &ApiService, uri: &str) -> (StatusCode, Value) {
    send(server, Method::GET, uri, JSON, Value::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_told_and_found_again() {
    let (store, shutdown) = (Moody::new().await, Shutdown::new());
    let server = on(&store, &shutdown).await;
    let (code, before) = send(&server, Method::POST, MAPS, JSON, map("one", "1")).await;
    assert_eq!(code, StatusCode::CREATED);
    // A fresh read: from here on everything of before is known.
    assert_eq!(get(&server, MAPS).await.0, StatusCode::OK);
    store.mode.send_replace(Mode::Unreachable);
    for (method, body) in [(Method::POST, map("two", "2")), (Method::GET, Value::Null)] {
        let (code, status) = send(&server, method, MAPS, JSON, body).await;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(status["message"], "rpc error: code = Unavailable desc = nobody is there");
    }
    for probe in ["/readyz", "/livez"] {
        assert_eq!(get(&server, probe).await.0, StatusCode::INTERNAL_SERVER_ERROR, "{probe}");
    }
    // What need not be fresh is served on.
    let (code, list) = get(&server, &format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!((code, list["items"][0]["metadata"]["name"].as_str()), (StatusCode::OK, Some("one")));
    // Meanwhile another server writes.
    let others = Shutdown::new();
    let other = on(&store.inner, &others).await;
    assert_eq!(send(&other, Method::POST, MAPS, JSON, map("three", "3")).await.0, StatusCode::CREATED);
    store.mode.send_replace(Mode::Well);
    let since = before["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!("{MAPS}?watch=1&resourceVersion={since}");
    until(&server, &watch, |kind, object| kind == "ADDED" && object["metadata"]["name"] == "three").await;
    assert_eq!(get(&server, "/readyz").await.0, StatusCode::OK);
    assert_eq!(send(&server, Method::POST, MAPS, JSON, map("four", "4")).await.0, StatusCode::CREATED);
    shutdown.trigger();
    others.trigger();
}

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_check_is_about_is_asked() {
    let (store, shutdown) = (Moody::new().await, Shutdown::new());
    let server = on(&store, &shutdown).await;
    store.mode.send_replace(Mode::Sealed);
    for path in ["/livez", "/livez/ping", "/readyz/etcd", "/readyz?exclude=kms-providers", "/"] {
        let answer = tokio::time::timeout(PATIENCE, text(&server, path)).await;
        let (code, body) = answer.unwrap_or_else(|_| panic!("{path} waits for others"));
        assert_eq!(code, StatusCode::OK, "{path}: {body}");
        assert!(path != "/" || body.contains("/readyz/kms-providers") && !body.contains("/livez/kms-providers"));
    }
    let mut asked = Box::pin(text(&server, "/healthz"));
    assert!((&mut asked).now_or_never().is_none());
    drop(asked);
    store.mode.send_replace(Mode::Unreachable);
    assert_eq!(text(&server, "/livez/ping").await.0, StatusCode::OK);
    assert_eq!(text(&server, "/livez/etcd").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_fails_does_not_break_off_those_beside_it() {
    let (store, shutdown) = (Moody::new().await, Shutdown::new());
    let conduct = apiserver::Conduct { collection_workers: 2, ..apiserver::Conduct::default() };
    let config = Config { authorization: Authorization::AlwaysAllow, conduct, ..Config::default() };
    let (server, ready) = apiserver::service(config, store.clone(), &shutdown).unwrap();
    ready.await;
    for name in ["broken", "one", "two"] {
        assert_eq!(send(&server, Method::POST, MAPS, JSON, map(name, "1")).await.0, StatusCode::CREATED);
    }
    store.mode.send_replace(Mode::Slow);
    let (asked, mut begun) = (server.clone(), store.begun.subscribe());
    let answer = tokio::spawn(async move { send(&asked, Method::DELETE, MAPS, JSON, Value::Null).await });
    let met = tokio::time::timeout(PATIENCE, begun.wait_for(|begun| *begun == 1)).await;
    met.expect("a deletion goes on beside the one that fails").unwrap();
    store.mode.send_replace(Mode::Well);
    let (code, status) = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!((code, &status["status"]), (StatusCode::INTERNAL_SERVER_ERROR, &"Failure".into()), "{status}");
    let (_, left) = get(&server, MAPS).await;
    let left: Vec<&str> =
        left["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    assert_eq!(left, ["broken"]);
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_and_still_read() {
    let (store, shutdown) = (Moody::new().await, Shutdown::new());
    let server = on(&store, &shutdown).await;
    assert_eq!(send(&server, Method::POST, MAPS, JSON, map("one", "1")).await.0, StatusCode::CREATED);
    store.mode.send_replace(Mode::Full);
    let (code, status) = send(&server, Method::POST, MAPS, JSON, map("two", "2")).await;
    let told = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "etcdserver: mvcc: database space exceeded", "code": 500,
    });
    assert_eq!((code, status), (StatusCode::INTERNAL_SERVER_ERROR, told));
    let (code, _) = send(&server, Method::DELETE, &format!("{MAPS}/one"), JSON, Value::Null).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&server, MAPS).await.0, StatusCode::OK);
    assert_eq!(get(&server, "/readyz").await.0, StatusCode::OK);
    store.mode.send_replace(Mode::Well);
    assert_eq!(send(&server, Method::POST, MAPS, JSON, map("two", "2")).await.0, StatusCode::CREATED);
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_not_read_is_told_that_it_missed_something() {
    let (store, shutdown) = (Moody::new().await, Shutdown::new());
    let server = on(&store, &shutdown).await;
    let (_, list) = get(&server, MAPS).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    let request =
        Request::get(format!("{MAPS}?watch=1&resourceVersion={since}")).body(Full::<Bytes>::default()).unwrap();
    let mut body = server.clone().oneshot(request).await.unwrap().into_body();
    // More than a kind's recent events may weigh, and than are kept whatever they weigh.
    let large = "x".repeat(300_000);
    for n in 0..80 {
        let (code, _) = send(&server, Method::POST, MAPS, JSON, map(&format!("m{n}"), &large)).await;
        assert_eq!(code, StatusCode::CREATED);
    }
    let mut last = Bytes::new();
    while let Some(frame) = body.frame().await {
        last = frame.unwrap().into_data().unwrap();
    }
    let event: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    shutdown.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_is_expired() {
    let (store, first_stop, shutdown) = (Moody::new().await, Shutdown::new(), Shutdown::new());
    let first = on(&store, &first_stop).await;
    for n in 0..4 {
        assert_eq!(send(&first, Method::POST, MAPS, JSON, map(&format!("m{n}"), "")).await.0, StatusCode::CREATED);
    }
    let (_, page) = get(&first, &format!("{MAPS}?limit=2")).await;
    let since = page["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (_, unchanged) = get(&first, "/api/v1/namespaces?limit=1").await;
    assert_eq!(send(&first, Method::DELETE, &format!("{MAPS}/m3"), JSON, Value::Null).await.0, StatusCode::OK);
    store.inner.compact(store.inner.current_revision().await.unwrap()).await.unwrap();
    // One that starts now knows nothing of before.
    let second = on(&store, &shutdown).await;
    let event = until(&second, &format!("{MAPS}?watch=1&resourceVersion={since}"), |kind, _| kind == "ERROR").await;
    assert_eq!((&event["code"], &event["reason"]), (&json!(410), &json!("Expired")));
    let (code, _) = get(&second, &format!("{MAPS}?resourceVersion={since}&resourceVersionMatch=Exact")).await;
    assert_eq!(code, StatusCode::GONE);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (code, status) = get(&second, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::GONE, &json!("Expired")));
    // One that knows it still answers alike, and also where nothing has changed since.
    let same = get(&first, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((same.0, &same.1["reason"]), (StatusCode::GONE, &json!("Expired")));
    let of_unchanged = unchanged["metadata"]["continue"].as_str().unwrap();
    let (code, status_of_unchanged) = get(&first, &format!("/api/v1/namespaces?limit=1&continue={of_unchanged}")).await;
    assert_eq!((code, &status_of_unchanged["reason"]), (StatusCode::GONE, &json!("Expired")));
    let token = status["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = get(&second, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, rest["items"][0]["metadata"]["name"].as_str()), (StatusCode::OK, Some("m2")), "{rest}");
    first_stop.trigger();
    shutdown.trigger();
}

/// A server on a socket, as it runs in a cluster; over TLS if there are files.
async fn listening(tls: Option<apiserver::Tls>, stop: &Shutdown) -> (std::net::SocketAddr, Running) {
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Some(Arc::new(listener));
    let config = Config { authorization: Authorization::AlwaysAllow, listener, tls, ..Config::default() };
    let task = tokio::spawn(apiserver::run(config, store.clone(), stop.clone()));
    (address, Running { store, task })
}

struct Running {
    store: Arc<store::Embedded>,
    task: tokio::task::JoinHandle<Result<(), apiserver::Error>>,
}

type Client = hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

fn client() -> Client {
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_end_is_stored_and_watches_end() {
    let stop = Shutdown::new();
    let (address, running) = listening(None, &stop).await;
    let client = client();
    // The namespace is there once the server is ready.
    let ready = async {
        loop {
            let uri = format!("http://{address}/api/v1/namespaces?watch=1").parse().unwrap();
            let mut body = client.get(uri).await.unwrap().into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if frame.into_data().is_ok_and(|d| d.windows(16).any(|w| w == br#""name":"default""#)) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap();
    let uri = format!("http://{address}{MAPS}?watch=1").parse().unwrap();
    let watch = client.get(uri).await.unwrap().into_body();
    let write = |writer: usize| {
        let client = client.clone();
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let name = format!("w{writer}-{n}");
                let request = Request::post(format!("http://{address}{MAPS}")).header("content-type", JSON);
                let request = request.body(Full::new(Bytes::from(map(&name, "").to_string()))).unwrap();
                match client.request(request).await {
                    Ok(answer) if answer.status() == StatusCode::CREATED => acknowledged.push(name),
                    _ => break,
                }
            }
            acknowledged
        }
    };
    let writers: Vec<_> = (0..8).map(|n| tokio::spawn(write(n))).collect();
    // Under load: as soon as the watch shows a first write.
    let mut watch = watch;
    assert!(watch.frame().await.unwrap().is_ok());
    stop.trigger();
    while let Some(frame) = watch.frame().await {
        assert!(frame.is_ok(), "the watch breaks instead of ending");
    }
    tokio::time::timeout(Duration::from_secs(60), running.task).await.unwrap().unwrap().unwrap();
    let kvs = running.store.range(RangeRequest::prefix("/registry/configmaps/default/")).await.unwrap().kvs;
    let stored: std::collections::HashSet<String> =
        kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).rsplit('/').next().unwrap().to_owned()).collect();
    let mut total = 0;
    for writer in writers {
        for name in writer.await.unwrap() {
            assert!(stored.contains(&name), "{name} was acknowledged and is lost");
            total += 1;
        }
    }
    assert!(total > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_without_a_body_over_both_protocols() {
    let stop = Shutdown::new();
    let (address, running) = listening(None, &stop).await;
    for only_http2 in [false, true] {
        let executor = hyper_util::rt::TokioExecutor::new();
        let client: Client = hyper_util::client::legacy::Client::builder(executor).http2_only(only_http2).build_http();
        for (path, code, length) in [("/livez/ping", 200, "2"), ("/version", 405, "197")] {
            let request = Request::head(format!("http://{address}{path}")).body(Full::default()).unwrap();
            let response = client.request(request).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.headers()["content-length"].to_str().unwrap()),
                (code, length)
            );
            // An answer that had a body all the same is an error here.
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "", "{path}");
        }
    }
    stop.trigger();
    running.task.await.unwrap().unwrap();
}

/// The certificate that a server shows, by its serial number.
async fn shown(address: std::net::SocketAddr) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let verifier = Arc::new(client::Verifier::new(client::AnyCertificate, &provider));
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_shown_to_new_connections() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let issue = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (first, second) = (issue(), issue());
    std::fs::write(&certificate, first.cert.pem()).unwrap();
    std::fs::write(&key, first.signing_key.serialize_pem()).unwrap();
    let stop = Shutdown::new();
    let tls = apiserver::Tls { certificate: certificate.clone(), key: key.clone(), ..apiserver::Tls::default() };
    let (address, running) = listening(Some(tls), &stop).await;
    assert_eq!(shown(address).await, first.cert.der().to_vec());
    // Half of a renewal is not used.
    std::fs::write(&certificate, format!("{}\n", second.cert.pem())).unwrap();
    assert_eq!(shown(address).await, first.cert.der().to_vec());
    std::fs::write(&key, format!("{}\n", second.signing_key.serialize_pem())).unwrap();
    assert_eq!(shown(address).await, second.cert.der().to_vec());
    stop.trigger();
    running.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_continue_token_holds_it_is_answered() {
    use base64::Engine as _;
    let shutdown = Shutdown::new();
    let server = server(&shutdown).await;
    let encode = |text: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let mut tokens: Vec<String> = ["", "=", "%00", "a", "%ff", "AAAA"].map(str::to_owned).to_vec();
    tokens.push("A".repeat(50_000));
    for start in ["", "\0", "/", "../x", "\u{fffd}", "default/\0", "\u{10ffff}"] {
        for rv in ["0", "-1", "-2", "1", "9223372036854775807", "1e3", "\"1\""] {
            let start = serde_json::to_string(start).unwrap();
            tokens.push(encode(format!("{{\"v\":\"meta.k8s.io/v1\",\"rv\":{rv},\"start\":{start}}}").as_bytes()));
        }
    }
    tokens.extend([&b"{}"[..], b"[]", b"{\"v\":\"v2\",\"rv\":1,\"start\":\"a\"}", b"\xff", b"{"].map(encode));
    for token in tokens {
        let (code, answer) = get(&server, &format!("{MAPS}?limit=1&continue={token}")).await;
        assert!(matches!(code.as_u16(), 200 | 400 | 410 | 504), "{token}: {code} {answer}");
    }
    shutdown.trigger();
}
