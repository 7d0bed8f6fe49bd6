//! Keeps a cache equal to the server's state by a list and a watch.
//!
//! ```text
//!            ┌────────── 410 Gone, or the first start ──────────┐
//!            ▼                                                  │
//!         Behind ── streamed list, else paged list ──▶ Current(version) ── watch ends or breaks ──┐
//!                                                          ▲                                      │
//!                                                          └── watch from the last version ◀──────┘
//! ```

use std::time::Duration;

use api::{Resource, ResourceList};
use client::{Client, ListParams, WatchEvent, WatchParams};
use futures::{Stream, StreamExt};
use lifecycle::Shutdown;
use stdx::chain;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::cache::{Cache, Event};
use crate::subscription::{Subscriber, Subscription, channel};

const PAUSE_BASE: Duration = Duration::from_millis(200);
const PAUSE_CAP: Duration = Duration::from_secs(30);
/// A watch that lived this long counts as a success.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// A server that ignores the wish for initial events goes silent instead of marking their end.
const INITIAL_SILENCE: Duration = Duration::from_secs(30);
const PAGE_LEN: i64 = 500;

/// What to keep in the cache.
#[derive(Clone, Debug)]
pub struct ReflectorConfig<K> {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects with these labels; empty for all.
    pub label_selector: String,
    /// Only objects with these field values; empty for all.
    pub field_selector: String,
    /// Makes objects small before they are kept. The default drops managed fields.
    pub project: fn(&mut K),
}

impl<K: Resource> Default for ReflectorConfig<K> {
    fn default() -> Self {
        Self {
            namespace: None,
            label_selector: String::new(),
            field_selector: String::new(),
            project: drop_managed_fields,
        }
    }
}

/// Drops what only server-side apply looks at.
pub fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.metadata_mut().managed_fields = Vec::new();
}

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

/// Keeps one cache.
pub struct Reflector<K> {
    client: Client,
    config: ReflectorConfig<K>,
    cache: Cache<K>,
    handlers: Vec<Handler<K>>,
    subscribers: Vec<Subscriber<K>>,
    /// Cleared when the server turns out not to stream lists.
    streams_lists: bool,
}

/// Where the cache stands.
enum Position {
    /// The server's state has to be fetched anew.
    Behind,
    /// The cache is the server's state at this version.
    Current(String),
}

/// How a streamed list ended.
enum Initial {
    /// With its mark, at this version.
    Complete(String),
    /// Before its mark, with the stream.
    Ended,
    /// Not at all: the server does not know of initial events.
    Silent,
}

impl<K: Resource> Reflector<K> {
    /// An empty cache that nobody fills yet.
    #[must_use]
    pub fn new(client: Client, config: ReflectorConfig<K>) -> Self {
        let (handlers, subscribers) = (Vec::new(), Vec::new());
        Self { client, config, cache: Cache::new(), handlers, subscribers, streams_lists: true }
    }

    /// Lets [`Cache::by_index`] find objects under the keys that `keys_of` gives.
    #[must_use]
    pub fn add_index(self, name: &'static str, keys_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.cache.add_index(name, std::sync::Arc::new(keys_of));
        self
    }

    /// Calls `handler` with every change, after the cache has it. It must not block: put a key into a queue.
    #[must_use]
    pub fn on_event(mut self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// As [`Reflector::on_event`], for a reflector that several parties share.
    pub fn handle(&mut self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    /// The changes from now on, as a stream. Prefer [`Reflector::on_event`], which cannot fall behind.
    pub fn subscribe(&mut self) -> Subscription<K> {
        let (sender, receiver) = channel();
        self.subscribers.push(sender);
        receiver
    }

    /// A handle on the cache.
    #[must_use]
    pub fn cache(&self) -> Cache<K> {
        self.cache.clone()
    }

    /// Fills the cache and keeps it current until `shutdown`. Failures are logged and tried again with back-off.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut position = Position::Behind;
        let mut backoff = Backoff::new(PAUSE_BASE, PAUSE_CAP);
        while !shutdown.is_triggered() {
            let started = Instant::now();
            let result = tokio::select! {
                () = shutdown.wait() => break,
                result = self.advance(&mut position) => result,
            };
            if let Err(error) = result {
                self.judge(&error, &mut position);
            }
            if started.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            tokio::select! {
                () = shutdown.wait() => break,
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
        }
    }

    fn judge(&mut self, error: &client::Error, position: &mut Position) {
        let kind = K::KIND.plural;
        if error.is_gone() {
            debug!(kind, "the watch is too far behind: listing again");
            *position = Position::Behind;
        } else {
            warn!(kind, error = %chain(error), "watch failed");
        }
    }

    /// Works from `position` until the server ends the watch or something fails.
    async fn advance(&mut self, position: &mut Position) -> Result<(), client::Error> {
        if matches!(position, Position::Behind) && self.streams_lists {
            match self.open(String::new(), true).await {
                Ok(mut stream) => match self.stream_list(&mut stream).await? {
                    Initial::Complete(version) => {
                        *position = Position::Current(version);
                        return self.follow(&mut stream, position).await;
                    }
                    Initial::Ended => return Ok(()),
                    Initial::Silent => {
                        debug!(kind = K::KIND.plural, "no initial events from the server: listing instead");
                        self.streams_lists = false;
                    }
                },
                Err(error) if is_unsupported(&error) => self.streams_lists = false,
                Err(error) => return Err(error),
            }
        }
        let version = match position {
            Position::Current(version) => version.clone(),
            Position::Behind => {
                let version = self.paged_list().await?;
                *position = Position::Current(version.clone());
                version
            }
        };
        let mut stream = self.open(version, false).await?;
        self.follow(&mut stream, position).await
    }

    async fn open(
        &self,
        resource_version: String,
        send_initial_events: bool,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>, client::Error>> + Send + Unpin + use<K>, client::Error> {
        let params = WatchParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            resource_version,
            send_initial_events,
            timeout_seconds: 0,
        };
        self.client.watch(self.config.namespace.as_deref(), &params).await
    }

    /// Reads initial events up to their mark and takes them over at once.
    async fn stream_list(
        &mut self,
        stream: &mut (impl Stream<Item = Result<WatchEvent<K>, client::Error>> + Unpin),
    ) -> Result<Initial, client::Error> {
        let mut objects = std::collections::HashMap::new();
        loop {
            let Ok(event) = tokio::time::timeout(INITIAL_SILENCE, stream.next()).await else {
                return Ok(Initial::Silent);
            };
            match event {
                None => return Ok(Initial::Ended),
                Some(Err(error)) => return Err(error),
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    let object = self.projected(object);
                    objects.insert(identity(&object), object);
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    objects.remove(&identity(&object));
                }
                Some(Ok(WatchEvent::Bookmark { initial_end: false, .. })) => {}
                Some(Ok(WatchEvent::Bookmark { resource_version, initial_end: true })) => {
                    self.replace(objects.into_values().collect());
                    return Ok(Initial::Complete(resource_version));
                }
            }
        }
    }

    async fn paged_list(&mut self) -> Result<String, client::Error> {
        let mut params = ListParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            limit: PAGE_LEN,
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let page: K::List = self.client.list::<K>(self.config.namespace.as_deref(), &params).await?;
            let (version, next) = (page.metadata().resource_version.clone(), page.metadata().r#continue.clone());
            objects.extend(page.into_items().into_iter().map(|object| self.projected(object)));
            if next.is_empty() {
                self.replace(objects);
                return Ok(version);
            }
            params.continue_ = next;
        }
    }

    async fn follow(
        &mut self,
        stream: &mut (impl Stream<Item = Result<WatchEvent<K>, client::Error>> + Unpin),
        position: &mut Position,
    ) -> Result<(), client::Error> {
        while let Some(event) = stream.next().await {
            let (version, change) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let object = self.projected(object);
                    (object.metadata().resource_version.clone(), self.cache.apply(object))
                }
                WatchEvent::Deleted(object) => {
                    let object = self.projected(object);
                    (object.metadata().resource_version.clone(), self.cache.delete(object))
                }
                WatchEvent::Bookmark { resource_version, .. } => (resource_version, None),
            };
            *position = Position::Current(version);
            if let Some(change) = change {
                self.tell(change);
            }
        }
        Ok(())
    }

    fn projected(&self, mut object: K) -> K {
        (self.config.project)(&mut object);
        object
    }

    fn replace(&mut self, objects: Vec<K>) {
        let changes = self.cache.replace(objects);
        for change in changes {
            self.tell(change);
        }
        self.cache.mark_synced();
        self.tell(Event::Synced);
    }

    fn tell(&mut self, event: Event<K>) {
        for handler in &self.handlers {
            handler(&event);
        }
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()));
    }
}

fn identity<K: Resource>(object: &K) -> (String, String) {
    let metadata = object.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

/// What servers without streamed lists answer to the wish for one.
fn is_unsupported(error: &client::Error) -> bool {
    matches!(error.code(), 400 | 405 | 406 | 415 | 422 | 501)
}
