//! The task that follows the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lifecycle::Shutdown;
use store::{EventKind, RangeRequest, WatchRequest};
use tokio::time::{Instant, sleep_until};

use super::object::Object;
use super::ring::{Change, Event};
use super::{Cache, Objects, ROOT, Storage};

/// Keys per page of the first load.
const PAGE: usize = 2_000;
/// Pause after a failed attempt, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

impl Cache {
    /// Loads everything, then follows the store until shutdown, of which everybody learns who waits for news. What
    /// breaks is tried again.
    pub async fn run(&self, shutdown: Shutdown) {
        self.follow(shutdown).await;
        self.wake_watches();
    }

    /// Makes every watch look around although nothing happened.
    pub fn wake_watches(&self) {
        self.all().iter().for_each(|storage| _ = storage.bell.ring());
    }

    async fn follow(&self, shutdown: Shutdown) {
        let mut pause = FIRST_PAUSE;
        loop {
            let result = tokio::select! {
                result = self.load_and_follow(&mut pause) => result,
                () = shutdown.wait() => return,
            };
            if let Err(error) = result {
                tracing::warn!(error = %stdx::chain(&error), "following the store failed, trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.wait() => return,
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn load_and_follow(&self, pause: &mut Duration) -> store::Result<()> {
        let resume = self.revision();
        let from = if resume > 0 { resume } else { self.load().await? };
        let request = WatchRequest { prefix: ROOT.into(), from_revision: from + 1 };
        let mut stream = self.store.watch(request).await?;
        *self.progress.write() = Some(stream.progress());
        let mut news = News { cache: self, due: BTreeMap::new() };
        loop {
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = news.wait() => {
                    news.tell();
                    continue;
                }
            };
            match batch {
                Some(Ok(batch)) => {
                    self.take(batch, &mut news);
                    *pause = FIRST_PAUSE;
                }
                Some(Err(store::Error::Compacted { .. })) => {
                    self.load().await?;
                    return Ok(());
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }

    /// Applies what happened together. Watches are woken once for all of it.
    fn take(&self, batch: store::WatchBatch, news: &mut News<'_>) {
        let now = Instant::now();
        for index in batch.events.into_iter().filter_map(|event| self.apply(event)) {
            news.due.entry(index).or_insert(now);
        }
        self.reached(batch.revision);
        news.tell();
    }

    fn reached(&self, revision: i64) {
        self.revision.send_if_modified(|r| {
            let newer = revision > *r;
            if newer {
                *r = revision;
            }
            newer
        });
    }

    /// Reads everything at one revision. Watchers of before start anew.
    async fn load(&self) -> store::Result<i64> {
        let storages = self.all();
        let mut maps: Vec<Objects> = storages.iter().map(|_| Objects::new()).collect();
        let mut request = RangeRequest::prefix(ROOT).limit(PAGE);
        let mut revision = 0;
        loop {
            let page = self.store.range(request.clone()).await?;
            if revision == 0 {
                revision = page.revision;
                request.revision = Some(revision);
            }
            let Some(last) = page.kvs.last() else { break };
            let mut next = last.key.to_vec();
            next.push(0);
            request.start = next.into();
            for kv in page.kvs {
                let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
                if let Some((storage, below)) = self.locate(key).filter(|(s, _)| s.index < maps.len()) {
                    let object = Object::new(below.into(), kv.mod_revision, kv.value, &storage.paths.read());
                    maps[storage.index].insert(object.key.clone(), Arc::new(object));
                }
            }
            if !page.more {
                break;
            }
        }
        for (storage, objects) in storages.into_iter().zip(maps) {
            let mut state = storage.state.write();
            state.bytes = objects.values().map(|o| o.data.len()).sum();
            state.objects = objects;
            state.ring.reset(revision);
            storage.bell.ring();
        }
        self.reached(revision);
        Ok(revision)
    }

    /// Takes an event over. Returns which storage it changed.
    fn apply(&self, event: store::Event) -> Option<usize> {
        let (storage, below) = self.locate(std::str::from_utf8(&event.kv.key).ok()?)?;
        storage.apply(below, event.kind, event.kv.mod_revision, event.kv.value.clone()).then_some(storage.index)
    }
}

/// Kinds of which something happened that their watches were not woken for yet.
struct News<'a> {
    cache: &'a Cache,
    /// When their bells may ring.
    due: BTreeMap<usize, Instant>,
}

impl News<'_> {
    /// Returns when there is somebody to tell.
    async fn wait(&self) {
        match self.due.values().min() {
            Some(at) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    /// Wakes the watches whose time has come.
    fn tell(&mut self) {
        let (cache, now) = (self.cache, Instant::now());
        self.due.retain(|index, at| {
            let later = if *at > now { Err(*at) } else { cache.storage_at(*index).bell.ring_unless_resting(now) };
            later.map_err(|later| *at = later).is_err()
        });
    }
}

impl Drop for News<'_> {
    /// Whoever follows the store no more leaves nothing untold.
    fn drop(&mut self) {
        self.due.keys().for_each(|index| _ = self.cache.storage_at(*index).bell.ring());
    }
}

impl Storage {
    /// Takes over what was read of the store at a revision, but for what events have changed since.
    pub(super) fn load(&self, revision: i64, kvs: Vec<store::KeyValue>) {
        let mut state = self.state.write();
        for kv in kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let object = self.read_object(&key, kv.mod_revision, kv.value);
            if !state.objects.contains_key(&object.key) {
                state.bytes += object.data.len();
                state.objects.insert(object.key.clone(), Arc::new(object));
            }
        }
        if state.ring.newest() < revision {
            state.ring.reset(revision);
            self.bell.ring();
        }
    }

    /// Returns whether anything changed.
    fn apply(&self, key: &str, kind: EventKind, revision: i64, value: bytes::Bytes) -> bool {
        let mut state = self.state.write();
        let previous = state.objects.get(key).cloned();
        state.bytes += if kind == EventKind::Put { value.len() } else { 0 };
        state.bytes = state.bytes.saturating_sub(previous.as_ref().map_or(0, |p| p.data.len()));
        let event = match (kind, previous) {
            (EventKind::Put, previous) => {
                let key = previous.as_ref().map_or_else(|| key.into(), |p| p.key.clone());
                let object = Arc::new(Object::new(key, revision, value, &self.paths.read()));
                state.objects.insert(object.key.clone(), object.clone());
                let change = if previous.is_some() { Change::Modified } else { Change::Added };
                Event::new(revision, change, object, previous)
            }
            (EventKind::Delete, Some(previous)) => {
                state.objects.remove(key);
                let object = Arc::new(previous.at_revision(revision));
                Event::new(revision, Change::Deleted, object, Some(previous))
            }
            (EventKind::Delete, None) => return false,
        };
        state.events += 1;
        state.ring.push(Arc::new(event));
        true
    }
}
