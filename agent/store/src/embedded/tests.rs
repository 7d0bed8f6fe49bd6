use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{Config, Embedded};
use crate::{Error, RangeRequest, Store, WatchRequest, conformance};

fn config(path: &std::path::Path) -> Config {
    Config { path: Some(path.to_owned()), ..Config::default() }
}

async fn put(store: &Embedded, key: &str, value: &str) -> i64 {
    let seen = store.get(key.as_bytes(), None).await.unwrap().kv.map_or(0, |kv| kv.mod_revision);
    let written = store.update(key.to_owned().into(), value.to_owned().into(), seen, None).await.unwrap();
    written.committed().unwrap()
}

#[tokio::test]
async fn memory_store_conforms() {
    conformance::check(Arc::new(Embedded::in_memory().await.unwrap())).await;
}

#[tokio::test]
async fn file_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(&folder.path().join("db"))).await.unwrap();
    conformance::check(Arc::new(store)).await;
}

#[tokio::test]
async fn reopened_file_holds_everything_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("db"));
    let store = Embedded::open(config.clone()).await.unwrap();
    put(&store, "a", "1").await;
    let compacted = put(&store, "a", "2").await;
    store.create("short".into(), "1".into(), Some(Duration::from_millis(50))).await.unwrap();
    let b = put(&store, "b", "1").await;
    store.delete("b".into(), b).await.unwrap();
    let last = put(&store, "c", "1").await;
    store.compact(compacted).await.unwrap();
    let before = store.range(RangeRequest::default().at(b)).await.unwrap();
    store.close().await;
    assert!(matches!(store.get(b"a", None).await, Err(Error::Closed)));

    let store = Embedded::open(config).await.unwrap();
    let mut stream = store.watch(WatchRequest { prefix: "short".into(), from_revision: last + 1 }).await.unwrap();
    let expired = stream.next().await.unwrap().unwrap();
    assert_eq!(expired.events.len(), 1, "a time to live goes on after a restart");
    let after = store.range(RangeRequest::default().at(b)).await.unwrap();
    assert_eq!((after.kvs, after.count), (before.kvs, before.count));
    assert!(matches!(store.get(b"a", Some(compacted - 1)).await, Err(Error::Compacted { .. })));
    assert_eq!(put(&store, "d", "1").await, last + 2);
}

#[tokio::test]
async fn history_is_bounded_in_bytes() {
    let store = Embedded::open(Config { path: None, history_bytes: 10_000 }).await.unwrap();
    let value = "x".repeat(1_000);
    let first = put(&store, "a", &value).await;
    let mut slow = store.watch(WatchRequest { prefix: "a".into(), from_revision: first }).await.unwrap();
    for _ in 0..50 {
        put(&store, "a", &value).await;
    }
    assert!(matches!(store.get(b"a", Some(first)).await, Err(Error::Compacted { .. })));
    assert!(store.shared.history.read().superseded_bytes() <= 10_000);
    assert!(matches!(slow.next().await, Some(Err(Error::Compacted { .. }))), "a watch that sleeps too long ends");
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn closed_store_ends_its_watches() {
    let store = Embedded::in_memory().await.unwrap();
    let mut stream = store.watch(WatchRequest { prefix: "a".into(), from_revision: 0 }).await.unwrap();
    store.close().await;
    assert!(matches!(stream.next().await, Some(Err(Error::Closed))));
    let refused = store.create("a".into(), "1".into(), None).await;
    assert!(matches!(refused, Err(Error::Closed)));
}

#[tokio::test]
async fn compaction_keeps_memory_for_live_keys_only() {
    let store = Embedded::in_memory().await.unwrap();
    for n in 0..100 {
        let revision = put(&store, &format!("k{n}"), "1").await;
        store.delete(format!("k{n}").into(), revision).await.unwrap();
    }
    let last = put(&store, "live", "1").await;
    store.compact(last).await.unwrap();
    assert_eq!(
        store.shared.history.read().plan_compaction(last + 1).err().map(|error| error.to_string()),
        Some("the revision asked for lies in the future".to_owned())
    );
    assert_eq!(store.range(RangeRequest::default()).await.unwrap().count, 1);
}
