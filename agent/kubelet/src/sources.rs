//! Config maps and secrets that pods refer to: one watch of one object each, shared and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use api::Resource;
use api::core::v1::{ConfigMap, Secret};
use client::Client;
use lifecycle::{Shutdown, Tasks};
use reconcile::{Cache, Reflector, ReflectorConfig};
use tokio::sync::Notify;

/// What is known of an object.
#[derive(Clone, Debug)]
pub(crate) enum Fetched<K> {
    /// The API server has not answered yet.
    Loading,
    /// It does not exist.
    Missing,
    /// Its newest state.
    Present(Arc<K>),
}

/// Namespace and name.
type Name = (String, String);

/// The watches of one kind.
pub(crate) struct Source<K> {
    client: Client,
    tasks: Tasks,
    shutdown: Shutdown,
    watches: Mutex<HashMap<Name, Weak<Watched<K>>>>,
}

/// One watched object. The watch ends with its last user.
pub(crate) struct Watched<K> {
    namespace: String,
    name: String,
    cache: Cache<K>,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    stop: Shutdown,
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

impl<K: Resource> Watched<K> {
    pub(crate) fn state(&self) -> Fetched<K> {
        match self.cache.get(&self.namespace, &self.name) {
            Some(object) => Fetched::Present(object),
            None if self.cache.is_synced() => Fetched::Missing,
            None => Fetched::Loading,
        }
    }

    /// Waits until the API server has answered, for as long as that takes. Cancel safe.
    pub(crate) async fn loaded(&self) {
        self.cache.wait_synced().await;
    }
}

impl<K: Resource> Source<K> {
    fn new(client: Client, tasks: Tasks, shutdown: Shutdown) -> Self {
        Self { client, tasks, shutdown, watches: Mutex::new(HashMap::new()) }
    }

    /// Watches an object for as long as the result is kept; `wake` is notified of every change.
    pub(crate) fn watch(&self, namespace: &str, name: &str, wake: &Arc<Notify>) -> Arc<Watched<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watches.get(&key).and_then(Weak::upgrade) {
            listen(&watched.listeners, wake);
            return watched;
        }
        let watched = Arc::new(self.start(namespace, name, wake));
        watches.retain(|_, watch| watch.strong_count() > 0);
        watches.insert(key, Arc::downgrade(&watched));
        watched
    }

    fn start(&self, namespace: &str, name: &str, wake: &Arc<Notify>) -> Watched<K> {
        let listeners = Arc::new(Mutex::new(Vec::new()));
        listen(&listeners, wake);
        let config = ReflectorConfig {
            namespace: Some(namespace.to_owned()),
            field_selector: format!("metadata.name={name}"),
            ..ReflectorConfig::default()
        };
        let told = listeners.clone();
        let reflector = Reflector::new(self.client.clone(), config).on_event(move |_event| notify_all(&told));
        let stop = self.shutdown.child();
        let cache = reflector.cache();
        self.tasks.spawn("object watch", reflector.run(stop.clone()));
        Watched { namespace: namespace.to_owned(), name: name.to_owned(), cache, listeners, stop }
    }
}

fn listen(listeners: &Mutex<Vec<Weak<Notify>>>, wake: &Arc<Notify>) {
    let mut list = listeners.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|known| known.upgrade().is_some_and(|known| !Arc::ptr_eq(&known, wake)));
    list.push(Arc::downgrade(wake));
}

fn notify_all(listeners: &Mutex<Vec<Weak<Notify>>>) {
    for listener in listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(listener) = listener.upgrade() {
            listener.notify_one();
        }
    }
}

/// Everything that pods refer to.
pub(crate) struct Sources {
    pub(crate) config_maps: Source<ConfigMap>,
    pub(crate) secrets: Source<Secret>,
}

impl Sources {
    pub(crate) fn new(client: &Client, tasks: &Tasks, shutdown: &Shutdown) -> Self {
        Self {
            config_maps: Source::new(client.clone(), tasks.clone(), shutdown.clone()),
            secrets: Source::new(client.clone(), tasks.clone(), shutdown.clone()),
        }
    }
}
