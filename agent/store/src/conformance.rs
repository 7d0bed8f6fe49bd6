//! What every store has to do. One suite; the stores it runs on are at the end of each implementation's tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Error, Event, EventKind, KeyValue, RangeRequest, Revision, Store, WatchBatch, WatchRequest, WatchStream,
    WriteResult,
};

/// How long a case may wait for something to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every case on one store, which nobody else may use meanwhile.
pub(crate) async fn check(store: Arc<dyn Store>) {
    let store = store.as_ref();
    writes_take_consecutive_revisions(store).await;
    guards_hold_and_return_the_current_key(store).await;
    deleted_key_starts_anew(store).await;
    ranges_are_ordered_limited_and_counted(store).await;
    ranges_read_the_past(store).await;
    racing_writers_never_overwrite_each_other(store).await;
    watch_replays_history_then_follows(store).await;
    watch_sees_only_its_prefix_and_reports_progress(store).await;
    watch_may_begin_in_the_future(store).await;
    watchers_see_the_same_order(store).await;
    large_backlog_arrives_whole_and_in_order(store).await;
    too_large_requests_are_refused(store).await;
    expired_keys_go_away_with_an_event(store).await;
    compaction_forgets_the_past_only(store).await;
    store.health().await.unwrap();
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.create(bytes(key), bytes(value), None).await.unwrap().committed().expect("the key is new")
}

async fn update(store: &dyn Store, key: &str, value: &str, expected: Revision) -> Revision {
    store.update(bytes(key), bytes(value), expected, None).await.unwrap().committed().expect("the guard holds")
}

async fn delete(store: &dyn Store, key: &str, expected: Revision) -> Revision {
    store.delete(bytes(key), expected).await.unwrap().committed().expect("the guard holds")
}

async fn get(store: &dyn Store, key: &str) -> Option<KeyValue> {
    store.get(key.as_bytes(), None).await.unwrap().kv
}

async fn watch(store: &dyn Store, prefix: &str, from_revision: Revision) -> WatchStream {
    store.watch(WatchRequest { prefix: bytes(prefix), from_revision }).await.unwrap()
}

async fn next_batch(stream: &mut WatchStream) -> crate::Result<WatchBatch> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("a batch in time").expect("the watch goes on")
}

/// Events until there are `count`, checking that batches never go back or lie about how far they reach.
async fn collect(stream: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut reached = 0;
    while events.len() < count {
        let batch = next_batch(stream).await.unwrap();
        for event in &batch.events {
            assert!(event.kv.mod_revision > reached, "events come after all that was reported delivered");
            assert!(event.kv.mod_revision <= batch.revision);
        }
        assert!(batch.revision >= reached);
        reached = batch.revision;
        events.extend(batch.events);
    }
    assert_eq!(events.len(), count);
    events
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

async fn writes_take_consecutive_revisions(store: &dyn Store) {
    let before = store.current_revision().await.unwrap();
    assert!(before >= 1, "an empty store stands at 1");
    let first = create(store, "/rev/a", "1").await;
    let second = create(store, "/rev/b", "1").await;
    let third = update(store, "/rev/a", "2", first).await;
    let fourth = delete(store, "/rev/b", second).await;
    assert_eq!([first, second, third, fourth], [before + 1, before + 2, before + 3, before + 4]);
    assert_eq!(store.current_revision().await.unwrap(), fourth);
    let kv = get(store, "/rev/a").await.unwrap();
    assert_eq!(
        kv,
        KeyValue { key: bytes("/rev/a"), value: bytes("2"), create_revision: first, mod_revision: third, version: 2 }
    );
    let past = store.get(b"/rev/b", Some(third)).await.unwrap();
    assert_eq!(past.kv.map(|kv| kv.version), Some(1));
    assert_eq!(past.revision, fourth, "the answer names the current revision, not the one asked for");
}

async fn guards_hold_and_return_the_current_key(store: &dyn Store) {
    let written = create(store, "/guard/a", "1").await;
    let current = get(store, "/guard/a").await;
    let conflict = WriteResult::Conflict { current: current.clone(), revision: written };
    let missing = WriteResult::Conflict { current: None, revision: written };
    let (key, value) = (bytes("/guard/a"), bytes("2"));
    assert_eq!(store.create(key.clone(), value.clone(), None).await.unwrap(), conflict);
    assert_eq!(store.update(key.clone(), value.clone(), written - 1, None).await.unwrap(), conflict);
    assert_eq!(store.delete(key.clone(), written - 1).await.unwrap(), conflict);
    assert_eq!(store.delete(key.clone(), 0).await.unwrap(), conflict);
    assert_eq!(store.update(bytes("/guard/b"), value.clone(), written, None).await.unwrap(), missing);
    assert_eq!(store.delete(bytes("/guard/b"), written).await.unwrap(), missing);
    assert_eq!(store.delete(bytes("/guard/b"), 0).await.unwrap(), missing);
    assert_eq!(get(store, "/guard/a").await, current);
    assert_eq!(update(store, "/guard/c", "1", 0).await, written + 1, "a guard of 0 creates");
}

async fn deleted_key_starts_anew(store: &dyn Store) {
    let first = create(store, "/anew/a", "1").await;
    let gone = delete(store, "/anew/a", first).await;
    assert_eq!(get(store, "/anew/a").await, None);
    let again = create(store, "/anew/a", "2").await;
    let kv = get(store, "/anew/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
    assert_eq!(store.get(b"/anew/a", Some(gone)).await.unwrap().kv, None);
    assert_eq!(store.get(b"/anew/a", Some(first)).await.unwrap().kv.unwrap().value, "1");
    assert!(matches!(store.get(b"/anew/a", Some(again + 1)).await, Err(Error::FutureRevision)));
}

async fn ranges_are_ordered_limited_and_counted(store: &dyn Store) {
    for key in ["/range/c", "/range/a", "/range/b/x", "/range/b", "/rangf"] {
        create(store, key, key).await;
    }
    let all = store.range(RangeRequest::prefix("/range/")).await.unwrap();
    assert_eq!(keys(&all.kvs), ["/range/a", "/range/b", "/range/b/x", "/range/c"]);
    assert_eq!((all.more, all.count), (false, 4));
    assert_eq!(all.kvs[0].value, "/range/a");

    let page = store.range(RangeRequest::prefix("/range/").limit(2)).await.unwrap();
    assert_eq!(keys(&page.kvs), ["/range/a", "/range/b"]);
    assert_eq!((page.more, page.count), (true, 4));
    let rest = RangeRequest { start: bytes("/range/b\0"), ..RangeRequest::prefix("/range/").limit(2) };
    let rest = store.range(rest).await.unwrap();
    assert_eq!(keys(&rest.kvs), ["/range/b/x", "/range/c"]);
    assert_eq!((rest.more, rest.count), (false, 2));

    let bare = RangeRequest { keys_only: true, ..RangeRequest::prefix("/range/") };
    let bare = store.range(bare).await.unwrap();
    assert!(bare.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1) && bare.kvs.len() == 4);
    let count = RangeRequest { count_only: true, ..RangeRequest::prefix("/range/") };
    let count = store.range(count).await.unwrap();
    assert_eq!((count.kvs.len(), count.count), (0, 4));

    let open = RangeRequest { start: bytes("/range/c"), ..RangeRequest::default() };
    assert_eq!(keys(&store.range(open).await.unwrap().kvs)[..2], ["/range/c", "/rangf"]);
    let empty = RangeRequest { start: bytes("/range/c"), end: bytes("/range/a"), ..RangeRequest::default() };
    assert_eq!(store.range(empty).await.unwrap().count, 0);
    let whole = store.range(RangeRequest::default()).await.unwrap();
    assert!(whole.count >= 5 && whole.revision == store.current_revision().await.unwrap());
}

async fn ranges_read_the_past(store: &dyn Store) {
    let a = create(store, "/past/a", "1").await;
    let b = create(store, "/past/b", "1").await;
    update(store, "/past/a", "2", a).await;
    delete(store, "/past/b", b).await;
    let now = create(store, "/past/c", "1").await;
    let at = |revision| store.range(RangeRequest::prefix("/past/").at(revision));
    assert_eq!(keys(&at(a).await.unwrap().kvs), ["/past/a"]);
    let both = at(b).await.unwrap();
    assert_eq!((keys(&both.kvs), both.count, both.revision), (vec!["/past/a", "/past/b"], 2, now));
    assert_eq!(both.kvs[0].value, "1");
    assert_eq!(keys(&at(now).await.unwrap().kvs), ["/past/a", "/past/c"]);
    assert!(matches!(at(now + 1).await, Err(Error::FutureRevision)));
}

async fn racing_writers_never_overwrite_each_other(store: &dyn Store) {
    create(store, "/race/n", "0").await;
    let count_up = async || {
        for _ in 0..20 {
            let mut seen = get(store, "/race/n").await.unwrap();
            loop {
                let next: u32 = std::str::from_utf8(&seen.value).unwrap().parse::<u32>().unwrap() + 1;
                let value = Bytes::from(next.to_string());
                match store.update(seen.key, value, seen.mod_revision, None).await.unwrap() {
                    WriteResult::Committed { .. } => break,
                    WriteResult::Conflict { current, .. } => seen = current.unwrap(),
                }
            }
        }
    };
    futures::join!(count_up(), count_up(), count_up(), count_up());
    let end = get(store, "/race/n").await.unwrap();
    assert_eq!((&end.value[..], end.version), (&b"80"[..], 81));
}

async fn watch_replays_history_then_follows(store: &dyn Store) {
    let made = create(store, "/watch/a", "1").await;
    let changed = update(store, "/watch/a", "2", made).await;
    let mut stream = watch(store, "/watch/", made).await;
    let gone = delete(store, "/watch/a", changed).await;
    let events = collect(&mut stream, 3).await;
    let seen: Vec<_> = events.iter().map(|event| (event.kind, event.kv.mod_revision)).collect();
    assert_eq!(seen, [(EventKind::Put, made), (EventKind::Put, changed), (EventKind::Delete, gone)]);
    assert_eq!(events[0].previous, None);
    assert_eq!(events[1].previous, Some(events[0].kv.clone()));
    assert_eq!(events[2].previous, Some(events[1].kv.clone()));
    assert_eq!((&events[2].kv.key[..], events[2].kv.value.len()), (&b"/watch/a"[..], 0));

    let again = create(store, "/watch/a", "3").await;
    let live = collect(&mut stream, 1).await;
    assert_eq!((live[0].kv.mod_revision, &live[0].previous), (again, &None));
    let mut middle = watch(store, "/watch/", changed).await;
    assert_eq!(collect(&mut middle, 3).await[0].previous, Some(events[0].kv.clone()));
}

async fn watch_sees_only_its_prefix_and_reports_progress(store: &dyn Store) {
    let mut stream = watch(store, "/progress/", 0).await;
    let progress = stream.progress();
    let mine = create(store, "/progress/a", "1").await;
    assert_eq!(collect(&mut stream, 1).await[0].kv.mod_revision, mine);
    let other = create(store, "/progresx", "1").await;
    loop {
        progress.request();
        let batch = next_batch(&mut stream).await.unwrap();
        assert_eq!(batch.events, []);
        assert!(batch.revision <= other);
        if batch.revision == other {
            return;
        }
    }
}

async fn watch_may_begin_in_the_future(store: &dyn Store) {
    let now = store.current_revision().await.unwrap();
    let mut stream = watch(store, "/future/", now + 3).await;
    for key in ["/future/a", "/future/b", "/future/c"] {
        create(store, key, "1").await;
    }
    assert_eq!(collect(&mut stream, 1).await[0].kv.key, "/future/c");
}

async fn watchers_see_the_same_order(store: &dyn Store) {
    let from = store.current_revision().await.unwrap() + 1;
    let mut streams = [watch(store, "/order/", from).await, watch(store, "/order/", from).await];
    let keys: Vec<String> = (0..30).map(|n| format!("/order/{n}")).collect();
    futures::future::join_all(keys.iter().map(|key| create(store, key, "1"))).await;
    let one = collect(&mut streams[0], keys.len()).await;
    let two = collect(&mut streams[1], keys.len()).await;
    assert_eq!(one, two);
    let revisions: Vec<_> = one.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!(revisions, (from..from + 30).collect::<Vec<_>>());
}

async fn large_backlog_arrives_whole_and_in_order(store: &dyn Store) {
    let value = "x".repeat(600_000);
    let from = store.current_revision().await.unwrap() + 1;
    let mut last = 0;
    for _ in 0..12 {
        last = update(store, "/large/a", &value, last).await;
    }
    let events = collect(&mut watch(store, "/large/", from).await, 12).await;
    assert!(events.iter().zip(from..).all(|(event, revision)| event.kv.mod_revision == revision));
    assert!(events.iter().all(|event| event.kv.value.len() == value.len()));
}

async fn too_large_requests_are_refused(store: &dyn Store) {
    for size in [1_700_000, 4_000_000] {
        let refused = store.create(bytes("/too/large"), Bytes::from(vec![b'x'; size]), None).await;
        assert!(matches!(refused, Err(Error::TooLarge)), "{size}: {refused:?}");
    }
    assert_eq!(get(store, "/too/large").await, None);
}

async fn expired_keys_go_away_with_an_event(store: &dyn Store) {
    let ttl = Some(Duration::from_secs(1));
    let made = store.create(bytes("/ttl/a"), bytes("1"), ttl).await.unwrap().committed().unwrap();
    let kept = store.create(bytes("/ttl/b"), bytes("1"), ttl).await.unwrap().committed().unwrap();
    // A later write without a time to live takes the key off the clock.
    let kept = update(store, "/ttl/b", "2", kept).await;
    let mut stream = watch(store, "/ttl/", kept + 1).await;
    let gone = collect(&mut stream, 1).await.remove(0);
    assert_eq!((gone.kind, &gone.kv.key[..]), (EventKind::Delete, &b"/ttl/a"[..]));
    assert_eq!(gone.previous.unwrap().mod_revision, made);
    assert_eq!(get(store, "/ttl/a").await, None);
    assert_eq!(get(store, "/ttl/b").await.unwrap().mod_revision, kept);
}

async fn compaction_forgets_the_past_only(store: &dyn Store) {
    let first = create(store, "/compact/a", "1").await;
    let doomed = create(store, "/compact/b", "1").await;
    let second = update(store, "/compact/a", "2", first).await;
    let gone = delete(store, "/compact/b", doomed).await;
    let third = update(store, "/compact/a", "3", second).await;
    assert!(matches!(store.compact(third + 1).await, Err(Error::FutureRevision)));
    store.compact(gone).await.unwrap();
    assert!(matches!(store.compact(gone).await, Err(Error::Compacted { .. })));

    for revision in [first, second] {
        assert!(matches!(store.get(b"/compact/a", Some(revision)).await, Err(Error::Compacted { .. })));
        let range = store.range(RangeRequest::prefix("/compact/").at(revision)).await;
        assert!(matches!(range, Err(Error::Compacted { .. })));
    }
    assert_eq!(store.get(b"/compact/a", Some(gone)).await.unwrap().kv.unwrap().value, "2");
    assert_eq!(store.get(b"/compact/b", Some(gone)).await.unwrap().kv, None);
    assert_eq!(get(store, "/compact/a").await.unwrap().version, 3);

    let mut late = watch(store, "/compact/", second).await;
    let refused = next_batch(&mut late).await;
    assert!(matches!(refused, Err(Error::Compacted { at: Some(at) }) if at == gone), "{refused:?}");
    assert!(late.next().await.is_none(), "a watch ends after its error");
    let mut good = watch(store, "/compact/", third).await;
    assert_eq!(collect(&mut good, 1).await[0].previous.as_ref().unwrap().mod_revision, second);
}
