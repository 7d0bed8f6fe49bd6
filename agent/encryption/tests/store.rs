//! Values on their way into a store and back, and what upstream wrote.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use encryption::{Configuration, Encrypted, ResourceOf, Settings};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use store::{Embedded, RangeRequest, Store, WatchRequest};
use tonic::body::Body;
use tonic_prost::ProstCodec;

const PLACE: &str = "/registry/secrets/a/x";
const VALUE: &[u8] = b"k8s\0value";

/// Made by upstream's transformers v0.36.3 with a key of the bytes 0, 1, 2 and so on, and the place and value above.
const UPSTREAM: &[&str] = &[
    "azhzOmVuYzphZXNjYmM6djE6b25lOtYSLrueHNemlh3sajuJjWSNx7O11khwRYKPO9v5C9SX",
    "azhzOmVuYzphZXNnY206djE6b25lOuRGQUPvyVitdkMClwLvCI0pyJrVttrs4+5/2gWp/XGHx1wTE9s=",
    "azhzOmVuYzphZXNjYmM6djE6b25lOh2ckMvKGJ7tyK5OThtjiLbRAAoQ6jrIovBk6x9QAHyu",
    "azhzOmVuYzphZXNnY206djE6b25lOprCKOfNbsIy4DDZ5pMx2+MfK4dzA7WEED3mmRYg6HwqYI5zE3E=",
    "azhzOmVuYzphZXNjYmM6djE6b25lOtrvtxOXrQoMDsXnAYQWQph+qVaTmQxF+3w4XHVbs/R+",
    "azhzOmVuYzphZXNnY206djE6b25lOnglTAomhAs3bfl2u8vpODAClRuzs2bpWarcO3iBaU0pKpqL6R8=",
    "azhzOmVuYzpzZWNyZXRib3g6djE6b25lOqFFq4t5dvBi539i1OeZytjJRj49vfWrqbaRqBrXx8BUzYuekHbRC4iUYtM4r0kNo50=",
];

/// The same by way of a plugin, with a seed of the same bytes.
const UPSTREAM_KMS: &str = "azhzOmVuYzprbXM6djI6cGx1ZzoKRUeiNzXTkNcuZRSYBnxlq6AS5feZbaNdha0cWTasTToDYgV5XUyazAve+OPQLsHihcTnMM/JZ9OYPPcOlhf/LQeycBH/+hIFa2V5LTEaBnNlYWxlZCISCg1hLmV4YW1wbGUuY29tEgF2KAE=";

fn document(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: {providers}\n"
    )
}

fn key(name: &str, len: u8) -> String {
    let secret = STANDARD.encode((0..len).collect::<Vec<u8>>());
    format!("{{keys: [{{name: {name}, secret: {secret}}}]}}")
}

fn resource_of() -> ResourceOf {
    Arc::new(|key: &str| {
        let resource = key.strip_prefix("/registry/")?.split('/').next()?;
        Some((String::new(), resource.to_owned()))
    })
}

#[tokio::test]
async fn what_upstream_wrote_is_read() {
    for len in [16, 24, 32] {
        let (aes, long) = (key("one", len), key("one", 32));
        let text =
            document(&format!("[{{aescbc: {aes}}}, {{aesgcm: {aes}}}, {{secretbox: {long}}}, {{identity: {{}}}}]"));
        let found = Configuration::parse(&text).unwrap();
        let providers = found.providers("", "secrets").unwrap();
        let mut read = 0;
        for encoded in UPSTREAM {
            let data = Bytes::from(STANDARD.decode(encoded).unwrap());
            let opened = providers.open(&data, PLACE.as_bytes()).await;
            read += usize::from(opened.is_ok_and(|opened| opened.value == VALUE));
        }
        // One of each algorithm that knows keys of this length, and the secretbox.
        assert_eq!(read, 3);
    }
}

struct Setting {
    _folder: tempfile::TempDir,
    raw: Arc<dyn Store>,
    path: std::path::PathBuf,
    store: Encrypted,
}

async fn setting(providers: &str) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, document(providers)).unwrap();
    let raw: Arc<dyn Store> = Arc::new(Embedded::in_memory().await.unwrap());
    let settings = Settings { path: path.clone(), reloads: true };
    let store = Encrypted::new(raw.clone(), settings, resource_of()).await.unwrap();
    Setting { _folder: folder, raw, path, store }
}

async fn lies_there(store: &dyn Store) -> Bytes {
    store.get(PLACE.as_bytes(), None).await.unwrap().kv.unwrap().value
}

#[tokio::test]
async fn values_are_encrypted_wherever_they_are_read() {
    let s = setting(&format!("[{{aesgcm: {}}}, {{identity: {{}}}}]", key("one", 32))).await;
    let mut watch = s.store.watch(WatchRequest { prefix: "/registry/".into(), from_revision: 1 }).await.unwrap();
    s.store.create(PLACE.into(), VALUE.into(), None).await.unwrap();
    s.store.create("/registry/pods/a/x".into(), "pod".into(), None).await.unwrap();
    assert!(lies_there(&*s.raw).await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert_eq!(lies_there(&s.store).await, VALUE);
    let page = s.store.range(RangeRequest::prefix("/registry/")).await.unwrap();
    let values: Vec<&[u8]> = page.kvs.iter().map(|kv| &kv.value[..]).collect();
    assert_eq!(values, [&b"pod"[..], VALUE]);
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first.events[0].kv.value, VALUE);
    // A refused write shows what is there, which is what the next attempt starts with.
    let result = s.store.update(PLACE.into(), "other".into(), 9_999, None).await.unwrap();
    let store::WriteResult::Conflict { current: Some(current), .. } = result else { panic!("it was written") };
    assert_eq!(current.value, VALUE);
}

#[tokio::test]
async fn new_keys_write_and_old_ones_still_read() {
    let old = key("one", 32);
    let s = setting(&format!("[{{aescbc: {old}}}]")).await;
    s.store.create(PLACE.into(), VALUE.into(), None).await.unwrap();
    assert!(!s.store.is_stale(PLACE.as_bytes()).await.unwrap());
    // There may be plugins after a change; without a chance of that there is nothing to fall ill.
    assert_eq!((s.store.is_encrypted_by_others(), s.store.encryption_health().await), (true, Ok(())));
    let fixed = Settings { path: s.path.clone(), reloads: false };
    let fixed = Encrypted::new(s.raw.clone(), fixed, resource_of()).await.unwrap();
    assert!(!fixed.is_encrypted_by_others());
    // A broken configuration changes nothing.
    std::fs::write(&s.path, document("[{aescbc: {keys: []}}]")).unwrap();
    assert!(!s.store.reload().await);
    assert_eq!(lies_there(&s.store).await, VALUE);
    let new = document(&format!("[{{secretbox: {}}}, {{aescbc: {old}}}]", key("two", 32)));
    std::fs::write(&s.path, new).unwrap();
    assert!(s.store.reload().await && !s.store.reload().await);
    assert_eq!(lies_there(&s.store).await, VALUE);
    assert!(s.store.is_stale(PLACE.as_bytes()).await.unwrap());
    let revision = s.raw.get(PLACE.as_bytes(), None).await.unwrap().kv.unwrap().mod_revision;
    s.store.update(PLACE.into(), VALUE.into(), revision, None).await.unwrap();
    assert!(lies_there(&*s.raw).await.starts_with(b"k8s:enc:secretbox:v1:two:"));
    assert!(!s.store.is_stale(PLACE.as_bytes()).await.unwrap());
}

#[tokio::test]
async fn what_nobody_can_decrypt_is_handed_on_as_it_lies_there() {
    let s = setting("[{identity: {}}]").await;
    let sealed = Bytes::from(STANDARD.decode(UPSTREAM[0]).unwrap());
    s.raw.create(PLACE.into(), sealed.clone(), None).await.unwrap();
    assert_eq!(lies_there(&s.store).await, sealed);
    assert!(!s.store.is_stale(PLACE.as_bytes()).await.unwrap());
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(string, tag = "2")]
    second: String,
    #[prost(string, tag = "3")]
    third: String,
}

/// A plugin that "encrypts" by turning bytes round, and knows one seed from elsewhere.
#[derive(Clone)]
struct Plugin {
    key_id: Arc<Mutex<String>>,
}

impl Plugin {
    fn answer(&self, method: &str, request: Message) -> Message {
        let turned = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
        match method {
            "Status" => Message { first: b"v2".to_vec(), second: "ok".to_owned(), third: self.key_id.lock().clone() },
            "Encrypt" => {
                Message { first: turned(&request.first), second: self.key_id.lock().clone(), third: String::new() }
            }
            _ if request.first == b"sealed" => {
                assert_eq!(request.third, "key-1");
                Message { first: (0..32).collect(), ..Message::default() }
            }
            _ => Message { first: turned(&request.first), ..Message::default() },
        }
    }
}

impl tower::Service<http::Request<hyper::body::Incoming>> for Plugin {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let plugin = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let serve = tower::service_fn(move |request: tonic::Request<Message>| {
                let answer = plugin.answer(&method, request.into_inner());
                async move { Ok::<_, tonic::Status>(tonic::Response::new(answer)) }
            });
            let codec: ProstCodec<Message, Message> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(serve, request).await)
        })
    }
}

fn run_plugin(socket: &Path, key_id: &Arc<Mutex<String>>) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let plugin = Plugin { key_id: key_id.clone() };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(plugin.clone());
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
}

#[tokio::test]
async fn a_plugin_encrypts_the_seeds_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kms.sock");
    let key_id = Arc::new(Mutex::new("key-1".to_owned()));
    run_plugin(&socket, &key_id);
    let kms = format!("[{{kms: {{apiVersion: v2, name: plug, endpoint: 'unix://{}'}}}}]", socket.display());
    let s = setting(&kms).await;
    s.store.create(PLACE.into(), VALUE.into(), None).await.unwrap();
    assert!(lies_there(&*s.raw).await.starts_with(b"k8s:enc:kms:v2:plug:"));
    assert_eq!(lies_there(&s.store).await, VALUE);
    assert!(!s.store.is_stale(PLACE.as_bytes()).await.unwrap());
    assert_eq!((s.store.is_encrypted_by_others(), s.store.encryption_health().await), (true, Ok(())));
    // Another server, which has only what lies there and the plugin.
    let other = Settings { path: s.path.clone(), reloads: false };
    let other = Encrypted::new(s.raw.clone(), other, resource_of()).await.unwrap();
    assert_eq!(other.encryption_health().await, Ok(()));
    assert_eq!(lies_there(&other).await, VALUE);
    // What upstream wrote by the same plugin.
    let upstream = Bytes::from(STANDARD.decode(UPSTREAM_KMS).unwrap());
    let found = Configuration::parse(&document(&kms)).unwrap();
    let opened = found.providers("", "secrets").unwrap().open(&upstream, PLACE.as_bytes()).await.unwrap();
    assert_eq!(opened.value, VALUE);
    // A new key of the plugin's makes what was written stale.
    *key_id.lock() = "key-2".to_owned();
    std::fs::write(&s.path, format!("{}# changed\n", document(&kms))).unwrap();
    assert!(s.store.reload().await);
    assert!(s.store.is_stale(PLACE.as_bytes()).await.unwrap());
    assert_eq!(lies_there(&s.store).await, VALUE);
}

#[tokio::test]
async fn without_its_plugin_nothing_is_written_and_the_reason_is_told() {
    let kms = "[{kms: {apiVersion: v2, name: plug, endpoint: 'unix:///nowhere/kms.sock', timeout: 50ms}}]";
    let s = setting(kms).await;
    let error = s.store.create(PLACE.into(), VALUE.into(), None).await.unwrap_err().to_string();
    assert!(error.contains(PLACE) && error.contains("the plugin \"plug\" was never well"), "{error}");
    let told = s.store.encryption_health().await.unwrap_err();
    let begin = "kms-provider-0: failed to perform status section of the healthz check for KMS Provider plug, error: ";
    assert!(told.starts_with(begin), "{told}");
    assert!(s.raw.get(PLACE.as_bytes(), None).await.unwrap().kv.is_none());
}
