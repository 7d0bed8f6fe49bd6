//! How the store is asked, and how long it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use store::{GetResult, RangeRequest, RangeResult, Revision, Store, WatchRequest, WatchStream, WriteResult};

use super::requests::SECONDS;
use super::{Histogram, Text};
use crate::cache::ROOT;

/// A store whose answers are timed.
pub struct Metered {
    inner: Arc<dyn Store>,
    /// Group and plural by what keys begin with.
    resources: HashMap<&'static str, (&'static str, &'static str)>,
    calls: Arc<Calls>,
}

/// Calls by operation, group and resource.
#[derive(Default)]
pub struct Calls(RwLock<HashMap<Call, Arc<Histogram>>>);

type Call = (&'static str, String, String);

impl Metered {
    /// Times a store's answers.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, calls: Arc<Calls>) -> Self {
        let stored = api::all_kinds().iter().filter(|kind| !kind.etcd_prefix.is_empty());
        let resources = stored.map(|kind| (kind.etcd_prefix, (kind.group, kind.plural))).collect();
        Self { inner, resources, calls }
    }

    /// Group and resource of a key.
    fn resource<'k>(&'k self, key: &'k [u8]) -> (&'k str, &'k str) {
        let key = std::str::from_utf8(key).unwrap_or_default();
        let Some(below) = key.strip_prefix(ROOT) else { return ("", "") };
        let mut ends = below.match_indices('/').map(|(at, _)| ROOT.len() + at);
        let (first, second) = (ends.next().unwrap_or(key.len()), ends.next().unwrap_or(key.len()));
        if let Some(found) = [second, first].into_iter().find_map(|end| self.resources.get(&key[..end])) {
            return *found;
        }
        match (&key[ROOT.len()..first], key.get(first + 1..second)) {
            ("masterleases", _) => ("", "apiServerIPInfo"),
            (group, Some(plural)) if group.contains('.') => (group, plural),
            (plural, _) => ("", plural),
        }
    }

    /// Times what is done about a key, by its name here and by etcd's.
    async fn timed<T>(
        &self,
        (operation, method): (&'static str, &str),
        key: &[u8],
        work: impl Future<Output = store::Result<T>>,
    ) -> store::Result<T> {
        let started = Instant::now();
        let result = match traces::child(method, traces::Kind::Client) {
            None => work.await,
            Some(mut span) => {
                span.text("rpc.system", "grpc");
                let result = span.within(work).await;
                if let Err(error) = &result {
                    span.fail(&error.to_string());
                }
                result
            }
        };
        let (group, resource) = self.resource(key);
        self.calls.observe(operation, (group, resource), started.elapsed());
        result
    }
}

/// etcd's names for reads and for writes.
const READ: &str = "etcdserverpb.KV/Range";
const WRITE: &str = "etcdserverpb.KV/Txn";

impl Calls {
    fn observe(&self, operation: &'static str, (group, resource): (&str, &str), took: Duration) {
        let call = (operation, group.to_owned(), resource.to_owned());
        let known = self.0.read().get(&call).cloned();
        let histogram = known
            .unwrap_or_else(|| self.0.write().entry(call).or_insert_with(|| Arc::new(Histogram::new(SECONDS))).clone());
        histogram.observe(took.as_secs_f64());
    }

    /// Both families.
    pub fn write(&self, out: &mut Text) {
        let mut all: Vec<(Call, Arc<Histogram>)> = self.0.read().iter().map(|(c, h)| (c.clone(), h.clone())).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let name = "etcd_requests_total";
        out.family(name, "counter", "Requests to the store.");
        for ((operation, group, resource), histogram) in &all {
            let labels = [("group", &**group), ("operation", operation), ("resource", resource)];
            out.sample(name, &labels, histogram.cumulative().last().map_or(0, |(_, count)| count));
        }
        let name = "etcd_request_duration_seconds";
        out.family(name, "histogram", "Seconds that the store took.");
        for ((operation, group, resource), histogram) in &all {
            out.histogram(name, &[("group", group), ("operation", operation), ("resource", resource)], histogram);
        }
    }
}

#[async_trait]
impl Store for Metered {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> store::Result<GetResult> {
        self.timed(("get", READ), key, self.inner.get(key, revision)).await
    }

    async fn range(&self, request: RangeRequest) -> store::Result<RangeResult> {
        let key = request.start.clone();
        self.timed(("list", READ), &key, self.inner.range(request)).await
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> store::Result<WriteResult> {
        self.timed(("create", WRITE), &key, self.inner.create(key.clone(), value, ttl)).await
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> store::Result<WriteResult> {
        self.timed(("update", WRITE), &key, self.inner.update(key.clone(), value, expected, ttl)).await
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> store::Result<WriteResult> {
        self.timed(("delete", WRITE), &key, self.inner.delete(key.clone(), expected)).await
    }

    async fn watch(&self, request: WatchRequest) -> store::Result<WatchStream> {
        self.inner.watch(request).await
    }

    async fn current_revision(&self) -> store::Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> store::Result<()> {
        self.inner.compact(revision).await
    }

    async fn health(&self) -> store::Result<()> {
        self.inner.health().await
    }

    async fn size(&self) -> store::Result<Option<u64>> {
        self.inner.size().await
    }

    fn is_encrypted_by_others(&self) -> bool {
        self.inner.is_encrypted_by_others()
    }

    async fn encryption_health(&self) -> Result<(), String> {
        self.inner.encryption_health().await
    }

    async fn is_stale(&self, key: &[u8]) -> store::Result<bool> {
        self.inner.is_stale(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_counted_by_what_lies_under_a_key() {
        let calls = Arc::new(Calls::default());
        let store = Metered::new(Arc::new(store::Embedded::in_memory().await.unwrap()), calls.clone());
        store.get(b"/registry/pods/a/b", None).await.unwrap();
        store.create("/registry/services/specs/a/b".into(), "x".into(), None).await.unwrap();
        store.range(RangeRequest::prefix("/registry/example.com/widgets/")).await.unwrap();
        let mut out = Text::default();
        calls.write(&mut out);
        let text = out.finish();
        for line in [
            "etcd_requests_total{group=\"\",operation=\"get\",resource=\"pods\"} 1\n",
            "etcd_requests_total{group=\"\",operation=\"create\",resource=\"services\"} 1\n",
            "etcd_requests_total{group=\"example.com\",operation=\"list\",resource=\"widgets\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
