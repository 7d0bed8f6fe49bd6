//! The server over an etcd that fails, in every way in which it does. These need a real etcd, 3.5 or later, named by an
//! environment variable:
//!
//! ```text
//! KEELSON_TEST_ETCD=/usr/bin/etcd cargo test -p apiserver --test etcd -- --ignored
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiService, Authorization, Config};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use lifecycle::Shutdown;
use serde_json::{Value, json};
use store::Store as _;
use support::etcd::{Etcd, Way, binary};
use support::{JSON, send, until};
use tokio::sync::watch;
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PATIENCE: Duration = Duration::from_secs(120);

async fn on(store: Arc<dyn store::Store>, shutdown: &Shutdown) -> ApiService {
    let config = Config { authorization: Authorization::AlwaysAllow, ..Config::default() };
    let (service, ready) = apiserver::service(config, store, shutdown).unwrap();
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    service
}

async fn get(server: &ApiService, uri: &str) -> (StatusCode, Value) {
    send(server, Method::GET, uri, JSON, Value::Null).await
}

async fn make(server: &ApiService, name: &str, value: &str) -> (StatusCode, Value) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}});
    send(server, Method::POST, MAPS, JSON, map).await
}

/// Asks until the answer is as wanted; what comes before it has to be a clear refusal.
async fn recovers(server: &ApiService, method: Method, uri: &str, body: Value) {
    let last = std::cell::RefCell::default();
    let asked = async {
        loop {
            let (code, status) = send(server, method.clone(), uri, JSON, body.clone()).await;
            if code.is_success() {
                return;
            }
            last.replace(status.to_string());
            assert!(code.is_server_error() && status["kind"] == "Status", "{code} {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{uri} stays away: {last:?}"));
}

async fn is_ready(server: &ApiService) -> bool {
    get(server, "/readyz").await.0 == StatusCode::OK
}

/// Names that a watch tells as added, each as it comes.
async fn follow(server: ApiService, since: String, told: watch::Sender<BTreeSet<String>>) {
    let request = Request::get(format!("{MAPS}?watch=1&resourceVersion={since}")).body(Full::<Bytes>::default());
    let mut body = server.oneshot(request.unwrap()).await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let event: Value = serde_json::from_slice(&text[..end]).unwrap();
            text.drain(..=end);
            assert_eq!(event["type"], "ADDED", "{event}");
            let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            told.send_modify(|names| assert!(names.insert(name), "told twice"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn no_acknowledged_write_is_lost_with_a_leader_or_another_member() {
    const WRITERS: usize = 4;
    const SOME: usize = 60;
    let mut etcd = Etcd::start(binary(), 3, &[]);
    let stop = Shutdown::new();
    let server = on(etcd.store(None).await, &stop).await;
    let (_, list) = get(&server, &format!("{MAPS}?limit=1")).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (told, mut telling) = watch::channel(BTreeSet::new());
    let following = tokio::spawn(follow(server.clone(), since, told));
    let acknowledged = watch::Sender::new(BTreeSet::new());
    let done = Shutdown::new();
    let write = |writer: usize| {
        let (server, acknowledged, done) = (server.clone(), acknowledged.clone(), done.clone());
        async move {
            for n in 0.. {
                if done.is_triggered() {
                    return;
                }
                let name = format!("w{writer}-{n}");
                let (code, status) = make(&server, &name, "").await;
                if code == StatusCode::CREATED {
                    acknowledged.send_modify(|names| names.extend([name]));
                } else {
                    assert!(code.is_server_error() && status["kind"] == "Status", "{code} {status}");
                }
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(writer))).collect();
    let mut written = acknowledged.subscribe();
    let mut more = async || {
        let wanted = written.borrow_and_update().len() + SOME;
        let enough = tokio::time::timeout(PATIENCE, written.wait_for(|names| names.len() >= wanted));
        enough.await.expect("writes go on").unwrap();
    };
    more().await;
    let leader = etcd.leader().await;
    etcd.kill(leader);
    more().await;
    etcd.run(leader);
    etcd.healthy(leader).await;
    more().await;
    let follower = (etcd.leader().await + 1) % 3;
    etcd.kill(follower);
    more().await;
    done.trigger();
    for writer in writers {
        writer.await.unwrap();
    }
    etcd.run(follower);
    etcd.healthy(follower).await;
    let acknowledged = acknowledged.borrow().clone();
    let kvs = etcd.store(None).await.range(store::RangeRequest::prefix("/registry/configmaps/default/")).await;
    let stored: BTreeSet<String> =
        kvs.unwrap().kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).rsplit('/').next().unwrap().into()).collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty() && acknowledged.len() >= 4 * SOME, "{lost:?} of {}", acknowledged.len());
    // The watch went on through all of it, and told all of it once.
    let all = tokio::time::timeout(PATIENCE, telling.wait_for(|names| names.is_superset(&acknowledged)));
    all.await.expect("the watch tells all").unwrap();
    stop.trigger();
    following.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn an_etcd_that_is_away_is_told_waited_for_and_found_again() {
    let etcd = Etcd::start(binary(), 1, &[]);
    etcd.healthy(0).await;
    let way = Way::to(&etcd.url(0)).await;
    // A server that starts without it waits for it, and says so.
    way.cut().await;
    let (stop, config) = (Shutdown::new(), Config { authorization: Authorization::AlwaysAllow, ..Config::default() });
    let (server, ready) = apiserver::service(config, etcd.store(Some(way.address)).await, &stop).unwrap();
    assert!(!is_ready(&server).await);
    assert_eq!(get(&server, "/livez/ping").await.0, StatusCode::OK);
    let (code, status) = get(&server, MAPS).await;
    assert!(code.is_server_error() && status["kind"] == "Status", "{code} {status}");
    way.mend();
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    recovers(&server, Method::GET, "/readyz", Value::Null).await;
    assert_eq!(make(&server, "one", "").await.0, StatusCode::CREATED);
    let (_, list) = get(&server, MAPS).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (told, mut telling) = watch::channel(BTreeSet::new());
    let following = tokio::spawn(follow(server.clone(), since, told));

    way.cut().await;
    for answer in [make(&server, "two", "").await, get(&server, MAPS).await] {
        let (code, status) = answer;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("rpc error: code = Unavailable desc = "), "{message}");
    }
    let (code, _) = get(&server, "/readyz").await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    // What need not be fresh is served on.
    let (code, list) = get(&server, &format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1), "{list}");
    way.mend();
    let map = json!({"metadata": {"name": "three"}});
    recovers(&server, Method::POST, MAPS, map).await;
    recovers(&server, Method::GET, "/readyz", Value::Null).await;
    let all = tokio::time::timeout(PATIENCE, telling.wait_for(|names| names.contains("three")));
    all.await.expect("the watch goes on").unwrap();
    stop.trigger();
    following.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn what_was_compacted_while_the_server_was_away_is_found_out() {
    let etcd = Etcd::start(binary(), 1, &[]);
    etcd.healthy(0).await;
    let way = Way::to(&etcd.url(0)).await;
    let stop = Shutdown::new();
    let server = on(etcd.store(Some(way.address)).await, &stop).await;
    for name in ["stays", "goes"] {
        assert_eq!(make(&server, name, "").await.0, StatusCode::CREATED);
    }
    let (_, list) = get(&server, MAPS).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    // Not read: it stays where it is.
    let slow = format!("{MAPS}?watch=1&resourceVersion={since}");
    way.cut().await;
    assert!(get(&server, MAPS).await.0.is_server_error());
    let direct = etcd.store(None).await;
    let goes = b"/registry/configmaps/default/goes";
    let found = direct.get(goes, None).await.unwrap().kv.unwrap();
    direct.delete(Bytes::from_static(goes), found.mod_revision).await.unwrap().committed().unwrap();
    let now = direct.current_revision().await.unwrap();
    let mut come = found.value.to_vec();
    let name = come.windows(4).position(|part| part == b"goes").unwrap();
    come[name..name + 4].copy_from_slice(b"come");
    direct.create("/registry/configmaps/default/come".into(), come.into(), None).await.unwrap();
    direct.compact(now + 1).await.unwrap();
    way.mend();
    recovers(&server, Method::GET, MAPS, Value::Null).await;
    let event = until(&server, &slow, |kind, _| kind == "ERROR").await;
    assert_eq!((&event["code"], &event["reason"]), (&json!(410), &json!("Expired")));
    let (_, list) = get(&server, MAPS).await;
    let items = list["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["come", "stays"]);
    stop.trigger();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn an_etcd_without_space_refuses_writes_until_it_has_some() {
    const QUOTA: &str = "8388608";
    let etcd = Etcd::start(binary(), 1, &["--quota-backend-bytes", QUOTA]);
    etcd.healthy(0).await;
    let stop = Shutdown::new();
    let server = on(etcd.store(None).await, &stop).await;
    let mut made = 0;
    let refused = loop {
        let (code, status) = make(&server, &format!("m{made}"), &"x".repeat(500_000)).await;
        if code != StatusCode::CREATED {
            break (code, status);
        }
        made += 1;
        assert!(made < 100, "the quota holds nobody up");
    };
    let told = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "etcdserver: mvcc: database space exceeded", "code": 500,
    });
    assert_eq!(refused, (StatusCode::INTERNAL_SERVER_ERROR, told));
    let (code, list) = get(&server, &format!("{MAPS}?limit=1")).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let patch = json!({"data": {"b": "1"}});
    let patched = send(&server, Method::PATCH, &format!("{MAPS}/m0"), "application/merge-patch+json", patch).await;
    assert_eq!(patched.0, StatusCode::INTERNAL_SERVER_ERROR, "{}", patched.1);
    // Deletions make space, as far as etcd is concerned: they are let through.
    for n in 0..made {
        let (code, status) = send(&server, Method::DELETE, &format!("{MAPS}/m{n}"), JSON, Value::Null).await;
        assert_eq!(code, StatusCode::OK, "{status}");
    }
    let revision = etcd.store(None).await.current_revision().await.unwrap();
    etcd.call("kv/compaction", &format!("{{\"revision\":\"{revision}\",\"physical\":true}}")).await;
    etcd.call("maintenance/defragment", "{}").await;
    assert_eq!(make(&server, "early", "").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let alarms: Value = serde_json::from_str(&etcd.call("maintenance/alarm", "{\"action\":\"GET\"}").await).unwrap();
    let member = alarms["alarms"][0]["memberID"].as_str().unwrap();
    let disarm = format!("{{\"action\":\"DEACTIVATE\",\"alarm\":\"NOSPACE\",\"memberID\":\"{member}\"}}");
    etcd.call("maintenance/alarm", &disarm).await;
    assert_eq!(make(&server, "again", "").await.0, StatusCode::CREATED);
    assert!(is_ready(&server).await);
    stop.trigger();
}
