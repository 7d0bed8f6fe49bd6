//! How many watches a write will wake.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::request::{Query, RequestInfo};

/// Running watches by what they look at: a kind, a namespace of it, or one object.
#[derive(Default)]
pub struct Watchers(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// By hashes, so that looking up needs no copies of names. Two that collide make an estimate a little wrong.
    by_hash: HashMap<u64, usize>,
    hasher: RandomState,
}

/// A watch that runs until this goes.
pub struct Watching {
    of: Arc<Watchers>,
    hash: u64,
}

impl Watchers {
    /// A watch begins. None if it looks at a part of its kind that is found without asking every watch.
    #[must_use]
    pub fn begin(self: &Arc<Self>, info: &RequestInfo, query: &Query) -> Option<Watching> {
        if info.resource == "pods" && has_node(query.get("fieldSelector")) {
            return None;
        }
        let mut counts = self.0.lock();
        let hash = counts.hasher.hash_one((&*info.group, &*info.resource, &*info.namespace, &*info.name));
        *counts.by_hash.entry(hash).or_default() += 1;
        Some(Watching { of: self.clone(), hash })
    }

    /// Watches that a write may interest.
    #[must_use]
    pub fn interested(&self, info: &RequestInfo) -> usize {
        let counts = self.0.lock();
        let of = |namespace: &str, name: &str| {
            let hash = counts.hasher.hash_one((&*info.group, &*info.resource, namespace, name));
            counts.by_hash.get(&hash).copied().unwrap_or_default()
        };
        let mut total = of("", "");
        if !info.namespace.is_empty() {
            total += of(&info.namespace, "");
        }
        if !info.name.is_empty() {
            total += of(&info.namespace, &info.name);
        }
        total
    }
}

/// Whether a field selector asks for the pods of one node.
fn has_node(selector: &str) -> bool {
    let value = |part: &str| part.trim().strip_prefix("spec.nodeName=").map(|v| !v.trim_start_matches('=').is_empty());
    selector.split(',').filter_map(value).any(|given| given)
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock();
        if let Some(count) = counts.by_hash.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                counts.by_hash.remove(&self.hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> (RequestInfo, Query) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        (RequestInfo::parse(&http::Method::GET, path, &query), query)
    }

    #[test]
    fn a_write_wakes_watches_of_its_kind_its_namespace_and_its_name() {
        let watchers = Arc::new(Watchers::default());
        let begin = |target: &str| {
            let (info, query) = request(target);
            watchers.begin(&info, &query)
        };
        let all = begin("/api/v1/pods?watch=1");
        let _namespace = begin("/api/v1/namespaces/a/pods?watch=1");
        let _one = begin("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dx");
        let _other = begin("/api/v1/namespaces/b/pods?watch=1");
        assert!(begin("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn").is_none());
        let interested = |target: &str| watchers.interested(&request(target).0);
        assert_eq!(interested("/api/v1/namespaces/a/pods/x"), 3);
        assert_eq!(interested("/api/v1/namespaces/a/pods/y"), 2);
        assert_eq!(interested("/api/v1/namespaces/c/pods/y"), 1);
        drop(all);
        assert_eq!(interested("/api/v1/namespaces/c/pods/y"), 0);
        assert_eq!(interested("/api/v1/namespaces/a/secrets/x"), 0);
    }
}
