//! The reflector and the lease against a server that follows a script.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Resource;
use api::coordination::v1::Lease;
use api::core::v1::{ConfigMap, ConfigMapList};
use api::meta::v1::{Status, WatchEvent};
use api::runtime::RawExtension;
use bytes::Bytes;
use client::Client;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use lifecycle::Shutdown;
use prost::Message;
use reconcile::{Event, LeaderLease, LeaseConfig, LeaseError, Reflector, ReflectorConfig};
use tokio::sync::mpsc;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server answers to the next request.
enum Answer {
    /// A Status.
    Refuse(i32, &'static str),
    /// An object or list.
    Object(Vec<u8>),
    /// A watch: these frames, then it ends.
    Watch(Vec<Vec<u8>>),
    /// A watch that stays open after these frames.
    Open(Vec<Vec<u8>>),
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(answers: Vec<Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into())), requests: Arc::default() }
    }

    fn client(&self) -> Client {
        let script = self.clone();
        Client::from_service(tower::service_fn(move |request: Request<Full<Bytes>>| {
            let answer = script.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        }))
    }

    fn answer(&self, request: &Request<Full<Bytes>>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().replace("allowWatchBookmarks=true&", "");
        self.requests.lock().unwrap().push(format!("{} {query}", request.method()));
        let (code, body) = match self.answers.lock().unwrap().pop_front() {
            None => (503, full(status(503, "ServiceUnavailable"))),
            Some(Answer::Refuse(code, reason)) => (code, full(status(code, reason))),
            Some(Answer::Object(bytes)) => (200, full(bytes)),
            Some(Answer::Watch(frames)) => (200, full(frames.concat())),
            Some(Answer::Open(frames)) => (200, open(frames.concat())),
        };
        let response = Response::builder().status(u16::try_from(code).unwrap());
        response.header("content-type", "application/vnd.kubernetes.protobuf").body(body).unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).boxed_unsync()
}

fn open(bytes: Vec<u8>) -> Body {
    use futures::StreamExt;
    let first = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from(bytes)))]);
    StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync()
}

fn status(code: i32, reason: &str) -> Vec<u8> {
    let status = Status { code, reason: reason.to_owned(), ..Status::default() };
    api::envelope::encode_as("v1", "Status", &status)
}

fn map(name: &str, version: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = name.to_owned();
    map.metadata.namespace = "n".to_owned();
    map.metadata.uid = name.to_owned();
    map.metadata.resource_version = version.to_owned();
    map
}

fn frame_of(kind: &str, object: Vec<u8>) -> Vec<u8> {
    let event = WatchEvent { r#type: kind.to_owned(), object: RawExtension { raw: Some(object) } };
    let bytes = event.encode_to_vec();
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

fn frame(kind: &str, name: &str, version: &str) -> Vec<u8> {
    frame_of(kind, api::envelope::encode(ConfigMap::KIND, &map(name, version)))
}

fn initial_end(version: &str) -> Vec<u8> {
    let mut object = map("", version);
    object.metadata.annotations.insert("k8s.io/initial-events-end".to_owned(), "true".to_owned());
    frame_of("BOOKMARK", api::envelope::encode(ConfigMap::KIND, &object))
}

fn list(version: &str, next: &str, items: Vec<ConfigMap>) -> Answer {
    let mut list = ConfigMapList { items, ..ConfigMapList::default() };
    list.metadata.resource_version = version.to_owned();
    list.metadata.r#continue = next.to_owned();
    Answer::Object(api::envelope::encode_as("v1", "ConfigMapList", &list))
}

/// Runs a reflector over the script until `count` events were told; the events as text and the final cache.
async fn told(script: &Script, count: usize) -> (Vec<String>, Vec<String>) {
    let (sender, mut receiver) = mpsc::channel(100);
    let reflector = Reflector::<ConfigMap>::new(script.client(), ReflectorConfig::default()).on_event(move |event| {
        let text = match event {
            Event::Applied { old: None, new } => format!("+{}", new.metadata.name),
            Event::Applied { old: Some(_), new } => format!("~{}", new.metadata.name),
            Event::Deleted(old) => format!("-{}", old.metadata.name),
            Event::Synced => "synced".to_owned(),
            Event::Resync => "resync".to_owned(),
        };
        sender.try_send(text).unwrap();
    });
    let cache = reflector.cache();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(reflector.run(shutdown.clone()));
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(tokio::time::timeout(Duration::from_secs(300), receiver.recv()).await.unwrap().unwrap());
    }
    shutdown.trigger();
    running.await.unwrap();
    (events, cache.list().iter().map(|map| map.metadata.name.clone()).collect())
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_goes_on_as_a_watch() {
    let script = Script::new(vec![Answer::Open(
        [
            frame("ADDED", "a", "1"),
            frame("ADDED", "b", "2"),
            initial_end("5"),
            frame("MODIFIED", "a", "6"),
            frame("DELETED", "b", "7"),
        ]
        .to_vec(),
    )]);
    let (mut events, cached) = told(&script, 5).await;
    events[..2].sort();
    assert_eq!(events, ["+a", "+b", "synced", "~a", "-b"]);
    assert_eq!(cached, ["a"]);
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streamed_lists_gets_a_paged_list() {
    let script = Script::new(vec![
        Answer::Refuse(422, "Invalid"),
        list("9", "more", vec![map("a", "1")]),
        list("9", "", vec![map("b", "2")]),
        Answer::Open(vec![frame("ADDED", "c", "10")]),
    ]);
    let (events, cached) = told(&script, 4).await;
    assert_eq!(events, ["+a", "+b", "synced", "+c"]);
    assert_eq!(cached, ["a", "b", "c"]);
    let requests = script.requests();
    assert_eq!(requests[1], "GET limit=500");
    assert_eq!(requests[2], "GET limit=500&continue=more");
    assert_eq!(requests[3], "GET watch=true&resourceVersion=9");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_the_wish_for_initial_events_gets_a_list() {
    let script = Script::new(vec![
        Answer::Open(vec![frame("ADDED", "a", "1")]),
        list("3", "", vec![map("a", "1")]),
        Answer::Open(vec![]),
    ]);
    assert_eq!(told(&script, 2).await.0, ["+a", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn an_ended_watch_is_resumed_from_the_last_version() {
    let script = Script::new(vec![
        Answer::Watch(vec![frame("ADDED", "a", "1"), initial_end("5"), frame("ADDED", "b", "8")]),
        Answer::Refuse(500, "InternalError"),
        Answer::Watch(vec![frame_of("BOOKMARK", api::envelope::encode(ConfigMap::KIND, &map("", "20")))]),
        Answer::Open(vec![frame("DELETED", "a", "21")]),
    ]);
    assert_eq!(told(&script, 4).await.0, ["+a", "synced", "+b", "-a"]);
    let requests = script.requests();
    assert_eq!(requests[1], "GET watch=true&resourceVersion=8");
    assert_eq!(requests[2], "GET watch=true&resourceVersion=8");
    assert_eq!(requests[3], "GET watch=true&resourceVersion=20");
}

#[tokio::test(start_paused = true)]
async fn after_gone_only_the_differences_are_told() {
    let script = Script::new(vec![
        Answer::Watch(vec![frame("ADDED", "a", "1"), frame("ADDED", "b", "2"), initial_end("5")]),
        Answer::Watch(vec![frame_of("ERROR", status(410, "Expired"))]),
        Answer::Open(vec![frame("ADDED", "b", "30"), frame("ADDED", "c", "31"), initial_end("40")]),
    ]);
    let (mut events, cached) = told(&script, 7).await;
    events[..2].sort();
    assert_eq!(events, ["+a", "+b", "synced", "-a", "~b", "+c", "synced"]);
    assert_eq!(cached, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_and_an_index_see_the_same_changes() {
    let script = Script::new(vec![Answer::Open(vec![frame("ADDED", "a", "1"), initial_end("5")])]);
    let mut reflector = Reflector::<ConfigMap>::new(script.client(), ReflectorConfig::default())
        .add_index("initial", |map| vec![map.metadata.name[..1].to_owned()]);
    let (mut subscription, cache, shutdown) = (reflector.subscribe(), reflector.cache(), Shutdown::new());
    let running = tokio::spawn(reflector.run(shutdown.clone()));
    cache.wait_synced().await;
    assert_eq!(cache.by_index("initial", "a").len(), 1);
    assert!(matches!(subscription.next().await, Some(Event::Applied { old: None, .. })));
    assert!(matches!(subscription.next().await, Some(Event::Synced)));
    shutdown.trigger();
    running.await.unwrap();
    assert!(subscription.next().await.is_none());
}

fn lease(holder: &str, version: &str) -> Answer {
    let mut lease = Lease::default();
    lease.metadata.resource_version = version.to_owned();
    lease.spec.holder_identity = Some(holder.to_owned());
    lease.spec.lease_duration_seconds = Some(15);
    Answer::Object(api::envelope::encode(Lease::KIND, &lease))
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_when_its_holder_is_silent_and_given_back_at_shutdown() {
    let mut answers: Vec<Answer> = (0..9).map(|_| lease("other", "1")).collect();
    answers.push(lease("me", "2"));
    answers.push(lease("", "3"));
    let script = Script::new(answers);
    let claim = LeaderLease::new(script.client(), LeaseConfig::new("kube-system", "x", "me"));
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let result = claim
        .run(shutdown, |inner| async move {
            stop.trigger();
            inner.wait().await;
        })
        .await;
    assert!(result.is_ok());
    let requests = script.requests();
    assert_eq!(requests.iter().filter(|request| request.starts_with("GET")).count(), 9);
    assert_eq!(requests.iter().filter(|request| request.starts_with("PUT")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_just_starting_is_asked_again_soon() {
    let refusal = || Answer::Refuse(503, "ServiceUnavailable");
    let answers = vec![refusal(), refusal(), refusal(), Answer::Refuse(404, "NotFound"), lease("me", "1")];
    let claim = LeaderLease::new(Script::new(answers).client(), LeaseConfig::new("kube-system", "x", "me"));
    let (shutdown, start) = (Shutdown::new(), tokio::time::Instant::now());
    let stop = shutdown.clone();
    let mut took = Duration::MAX;
    let lead = |_| {
        took = start.elapsed();
        stop.trigger();
        std::future::ready(())
    };
    claim.run(shutdown, lead).await.unwrap();
    assert_eq!(took, Duration::from_millis(50 + 100 + 200));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_its_work() {
    let script = Script::new(vec![Answer::Refuse(404, "NotFound"), lease("me", "1")]);
    let claim = LeaderLease::new(script.client(), LeaseConfig::new("kube-system", "x", "me"));
    let result = claim.run(Shutdown::new(), |inner| async move { inner.wait().await }).await;
    assert!(matches!(result, Err(LeaseError::Lost { .. })));
}
