//! A kind's objects in memory, with indexes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::Resource;
use tokio::sync::watch;

/// A change of a cache.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// An object is new or changed.
    Applied {
        /// The state before; `None` for a new object.
        old: Option<Arc<K>>,
        /// The state now.
        new: Arc<K>,
    },
    /// An object is gone; its last state.
    Deleted(Arc<K>),
    /// The cache holds the server's state for the first time, or again after a new list.
    Synced,
    /// Only for subscriptions: this subscriber was too slow and missed changes; it has to look at the whole cache.
    Resync,
}

/// Computes the keys under which an index finds an object.
pub(crate) type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// A read handle on a kind's objects; clones share them.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: RwLock<State<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    /// By `NAMESPACE/NAME`; cluster-scoped objects have an empty namespace.
    objects: BTreeMap<Box<str>, Arc<K>>,
    indexes: Vec<Index<K>>,
}

struct Index<K> {
    name: &'static str,
    keys_of: IndexFn<K>,
    entries: HashMap<String, BTreeMap<Box<str>, Arc<K>>>,
}

impl<K: Resource> Cache<K> {
    pub(crate) fn new() -> Self {
        let state = State { objects: BTreeMap::new(), indexes: Vec::new() };
        Self { shared: Arc::new(Shared { state: RwLock::new(state), synced: watch::Sender::new(false) }) }
    }

    pub(crate) fn add_index(&self, name: &'static str, keys_of: IndexFn<K>) {
        let mut state = self.write();
        let mut index = Index { name, keys_of, entries: HashMap::new() };
        for (key, object) in &state.objects {
            index.insert(key, object);
        }
        state.indexes.push(index);
    }

    /// The object of this name; cluster-scoped objects have an empty namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().objects.get(join(namespace, name).as_str()).cloned()
    }

    /// Every object, ordered by namespace and name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace, ordered by name.
    #[must_use]
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = join(namespace, "");
        let state = self.read();
        let range = state.objects.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        range.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, object)| object.clone()).collect()
    }

    /// The objects an index has under `key`. An index nobody added has nothing.
    #[must_use]
    pub fn by_index(&self, index: &str, key: &str) -> Vec<Arc<K>> {
        let state = self.read();
        let found = state.indexes.iter().find(|candidate| candidate.name == index);
        debug_assert!(found.is_some(), "index {index} was never added");
        let entries = found.and_then(|index| index.entries.get(key));
        entries.map(|entries| entries.values().cloned().collect()).unwrap_or_default()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the server's state has been seen.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the server's state has been seen. Never returns if the reflector does not run. Cancel safe.
    pub async fn wait_synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.shared.synced.subscribe().wait_for(|synced| *synced).await);
    }

    pub(crate) fn mark_synced(&self) {
        self.shared.synced.send_replace(true);
    }

    /// Takes an object in. `None` if this very version is there already.
    pub(crate) fn apply(&self, object: K) -> Option<Event<K>> {
        let key = key_of(&object);
        let new = Arc::new(object);
        let old = self.write().insert(key, &new);
        if old.as_ref().is_some_and(|old| same_version(old, &new)) { None } else { Some(Event::Applied { old, new }) }
    }

    /// Takes an object out. `None` if it was not there.
    pub(crate) fn delete(&self, last: K) -> Option<Event<K>> {
        self.write().remove(&key_of(&last))?;
        Some(Event::Deleted(Arc::new(last)))
    }

    /// Replaces the whole content in one step and tells what is different.
    pub(crate) fn replace(&self, objects: Vec<K>) -> Vec<Event<K>> {
        let mut events = Vec::new();
        let mut state = self.write();
        let fresh: BTreeMap<Box<str>, Arc<K>> =
            objects.into_iter().map(|object| (key_of(&object), Arc::new(object))).collect();
        let gone: Vec<Box<str>> = state.objects.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect();
        for key in gone {
            events.extend(state.remove(&key).map(Event::Deleted));
        }
        for (key, new) in fresh {
            let old = state.objects.get(&key).cloned();
            match old {
                Some(old) if same_version(&old, &new) => {}
                // Another object of the same name: the old one went unseen.
                Some(old) if old.metadata().uid != new.metadata().uid => {
                    state.insert(key, &new);
                    events.push(Event::Deleted(old));
                    events.push(Event::Applied { old: None, new });
                }
                old => {
                    state.insert(key, &new);
                    events.push(Event::Applied { old, new });
                }
            }
        }
        events
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> State<K> {
    fn insert(&mut self, key: Box<str>, object: &Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.get(&key).cloned();
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, object);
        }
        self.objects.insert(key, object.clone());
        old
    }

    fn remove(&mut self, key: &str) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            index.remove(key, &old);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &str, object: &Arc<K>) {
        for value in (self.keys_of)(object) {
            self.entries.entry(value).or_default().insert(key.into(), object.clone());
        }
    }

    fn remove(&mut self, key: &str, object: &Arc<K>) {
        for value in (self.keys_of)(object) {
            if let Some(entries) = self.entries.get_mut(&value) {
                entries.remove(key);
                if entries.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

fn same_version<K: Resource>(a: &Arc<K>, b: &Arc<K>) -> bool {
    let (a, b) = (a.metadata(), b.metadata());
    a.uid == b.uid && !a.resource_version.is_empty() && a.resource_version == b.resource_version
}

fn key_of<K: Resource>(object: &K) -> Box<str> {
    let metadata = object.metadata();
    join(&metadata.namespace, &metadata.name).into_boxed_str()
}

fn join(namespace: &str, name: &str) -> String {
    let mut key = String::with_capacity(namespace.len() + 1 + name.len());
    key.push_str(namespace);
    key.push('/');
    key.push_str(name);
    key
}

#[cfg(test)]
mod tests {
    use api::core::v1::ConfigMap;

    use super::*;

    fn map(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = namespace.to_owned();
        map.metadata.name = name.to_owned();
        map.metadata.resource_version = version.to_owned();
        map.metadata.uid = name.to_owned();
        map.metadata.labels.insert("app".to_owned(), version.to_owned());
        map
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<&str> {
        objects.iter().map(|object| object.metadata.name.as_str()).collect()
    }

    #[test]
    fn indexes_follow_changes() {
        let cache = Cache::new();
        cache.add_index("app", Arc::new(|map: &ConfigMap| map.metadata.labels.values().cloned().collect()));
        cache.apply(map("a", "x", "1"));
        cache.apply(map("a", "y", "1"));
        assert_eq!(names(&cache.by_index("app", "1")), ["x", "y"]);
        cache.apply(map("a", "x", "2"));
        assert_eq!(names(&cache.by_index("app", "1")), ["y"]);
        assert_eq!(names(&cache.by_index("app", "2")), ["x"]);
        cache.delete(map("a", "y", "3"));
        assert!(cache.by_index("app", "1").is_empty());
    }

    #[test]
    fn a_namespace_is_a_range_of_the_names() {
        let cache = Cache::new();
        for (namespace, name) in [("a", "x"), ("a-b", "y"), ("b", "z"), ("a", "w")] {
            cache.apply(map(namespace, name, "1"));
        }
        assert_eq!(names(&cache.list_namespace("a")), ["w", "x"]);
        assert_eq!(cache.get("b", "z").unwrap().metadata.name, "z");
        assert_eq!(cache.len(), 4);
    }

    #[test]
    fn a_new_list_is_told_as_differences() {
        let cache = Cache::new();
        cache.replace(vec![map("n", "gone", "1"), map("n", "same", "1"), map("n", "changed", "1")]);
        let mut other = map("n", "new", "4");
        other.metadata.uid = "new".to_owned();
        let events = cache.replace(vec![map("n", "same", "1"), map("n", "changed", "3"), other]);
        let told: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Applied { old, new } => format!("{} {}", new.metadata.name, old.is_some()),
                Event::Deleted(old) => format!("-{}", old.metadata.name),
                Event::Synced | Event::Resync => "?".to_owned(),
            })
            .collect();
        assert_eq!(told, ["-gone", "changed true", "new false"]);
    }

    #[test]
    fn the_same_version_twice_is_no_change() {
        let cache = Cache::new();
        assert!(cache.apply(map("n", "a", "1")).is_some());
        assert!(cache.apply(map("n", "a", "1")).is_none());
        assert!(cache.delete(map("n", "b", "1")).is_none());
    }
}
