//! A store whose keys lie elsewhere: what is called `/registry/…` above is below another prefix, so that several
//! clusters may share one etcd.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use crate::model::{Event, GetResult, KeyValue, RangeRequest, RangeResult, Revision, WriteResult};
use crate::watch::{WatchBatch, WatchRequest, WatchStream};
use crate::{Result, Store};

/// A store with another prefix. Keys that do not begin with the prefix that they are called by are as they are.
pub struct Rebased {
    inner: Arc<dyn Store>,
    prefixes: Arc<Prefixes>,
}

struct Prefixes {
    /// What keys are called by.
    above: Bytes,
    /// What they lie under.
    below: Bytes,
}

impl Prefixes {
    fn down(&self, key: &[u8]) -> Bytes {
        moved(key, &self.above, &self.below)
    }

    fn up(&self, mut kv: KeyValue) -> KeyValue {
        kv.key = moved(&kv.key, &self.below, &self.above);
        kv
    }

    fn events(&self, batch: WatchBatch) -> WatchBatch {
        let up = |event: Event| Event {
            kv: self.up(event.kv),
            previous: event.previous.map(|before| self.up(before)),
            kind: event.kind,
        };
        WatchBatch { events: batch.events.into_iter().map(up).collect(), revision: batch.revision }
    }

    fn written(&self, result: WriteResult) -> WriteResult {
        match result {
            WriteResult::Conflict { current, revision } => {
                WriteResult::Conflict { current: current.map(|kv| self.up(kv)), revision }
            }
            committed @ WriteResult::Committed { .. } => committed,
        }
    }
}

/// A key with another prefix. The end of a range over all keys is one behind them, and has the prefix, too.
fn moved(key: &[u8], from: &[u8], to: &[u8]) -> Bytes {
    let Some(rest) = key.strip_prefix(from) else { return Bytes::copy_from_slice(key) };
    let mut moved = BytesMut::with_capacity(to.len() + rest.len());
    moved.extend_from_slice(to);
    moved.extend_from_slice(rest);
    moved.freeze()
}

impl Rebased {
    /// A store whose keys are called by `above` and lie under `below`, both without a slash at their end.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, above: &str, below: &str) -> Self {
        let own = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Self { inner, prefixes: Arc::new(Prefixes { above: own(above), below: own(below) }) }
    }
}

#[async_trait]
impl Store for Rebased {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<GetResult> {
        let found = self.inner.get(&self.prefixes.down(key), revision).await?;
        Ok(GetResult { kv: found.kv.map(|kv| self.prefixes.up(kv)), revision: found.revision })
    }

    async fn range(&self, mut request: RangeRequest) -> Result<RangeResult> {
        request.start = self.prefixes.down(&request.start);
        request.end = self.prefixes.down(&request.end);
        let mut found = self.inner.range(request).await?;
        found.kvs = found.kvs.into_iter().map(|kv| self.prefixes.up(kv)).collect();
        Ok(found)
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<WriteResult> {
        let result = self.inner.create(self.prefixes.down(&key), value, ttl).await?;
        Ok(self.prefixes.written(result))
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision, ttl: Option<Duration>) -> Result<WriteResult> {
        let result = self.inner.update(self.prefixes.down(&key), value, expected, ttl).await?;
        Ok(self.prefixes.written(result))
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<WriteResult> {
        let result = self.inner.delete(self.prefixes.down(&key), expected).await?;
        Ok(self.prefixes.written(result))
    }

    async fn watch(&self, mut request: WatchRequest) -> Result<WatchStream> {
        request.prefix = self.prefixes.down(&request.prefix);
        let stream = self.inner.watch(request).await?;
        let (progress, prefixes) = (stream.progress(), self.prefixes.clone());
        Ok(WatchStream::new(stream.map(move |batch| batch.map(|batch| prefixes.events(batch))).boxed(), progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn size(&self) -> Result<Option<u64>> {
        self.inner.size().await
    }

    fn is_encrypted_by_others(&self) -> bool {
        self.inner.is_encrypted_by_others()
    }

    async fn encryption_health(&self) -> std::result::Result<(), String> {
        self.inner.encryption_health().await
    }

    async fn is_stale(&self, key: &[u8]) -> Result<bool> {
        self.inner.is_stale(&self.prefixes.down(key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embedded;
    use crate::model::prefix_end;

    #[tokio::test]
    async fn keys_lie_under_the_other_prefix_and_are_called_by_the_first() {
        let below: Arc<dyn Store> = Arc::new(Embedded::in_memory().await.unwrap());
        let store = Rebased::new(below.clone(), "/registry", "/blue");
        let mut watch = store.watch(WatchRequest { prefix: "/registry/".into(), from_revision: 0 }).await.unwrap();
        below.create("/registry/pods/a/y".into(), "another cluster's".into(), None).await.unwrap();
        store.create("/registry/pods/a/x".into(), "1".into(), None).await.unwrap();
        assert_eq!(below.get(b"/blue/pods/a/x", None).await.unwrap().kv.unwrap().value, "1");
        let all = RangeRequest::prefix("/registry/");
        assert_eq!(all.end, prefix_end(b"/registry/"));
        let found = store.range(all).await.unwrap().kvs;
        assert_eq!(found.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"/registry/pods/a/x"]);
        let seen = loop {
            let batch = watch.next().await.unwrap().unwrap();
            if let Some(event) = batch.events.into_iter().next() {
                break event;
            }
        };
        assert_eq!(seen.kv.key, "/registry/pods/a/x");
        let WriteResult::Conflict { current: Some(current), .. } =
            store.create("/registry/pods/a/x".into(), "2".into(), None).await.unwrap()
        else {
            panic!("the key is there already")
        };
        assert_eq!(current.key, "/registry/pods/a/x");
        store.delete("/registry/pods/a/x".into(), current.mod_revision).await.unwrap();
        assert!(below.get(b"/blue/pods/a/x", None).await.unwrap().kv.is_none());
    }
}
