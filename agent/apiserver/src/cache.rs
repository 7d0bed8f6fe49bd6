//! Everything that is stored, in memory, as stored bytes.
//!
//! One store watch over the whole prefix feeds it in revision order. Per kind there is a persistent ordered map, so
//! that a reader takes a snapshot for the price of a pointer, and a ring of recent events with a budget in bytes, in
//! which watchers are mere cursors. What falls out of the ring, or is asked for and no longer there, is answered with
//! 410; nothing grows with slow clients.
//!
//! The cache knows no typed objects and no encodings.

mod bell;
mod feed;
mod joined;
mod newest;
mod object;
mod ring;
mod selector;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use futures::FutureExt as _;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use bell::Bell;
pub use bell::Listener;
use joined::Joined;
use newest::Newest;
pub use object::{FieldPath, Object};
pub use ring::{Change, Event, Events, Ring};
pub use selector::{Selection, selectable};

use crate::custom::Definition;
use crate::status::{Failure, Result};

/// Under which all objects lie.
pub const ROOT: &str = "/registry/";

/// How long a read waits for the cache to catch up with the store.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a waiting read asks the store's watch for its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// A snapshot of one kind's objects by key.
pub type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// The objects of all versions of one kind.
pub struct Storage {
    /// Position in the cache's list.
    pub index: usize,
    /// Key prefix with a slash at its end.
    pub prefix: String,
    /// The row of the version that is stored.
    pub kind: &'static Kind,
    /// `apiVersion` of what is stored.
    pub api_version: &'static str,
    /// Fields that selectors may name; those of custom resources change with their definition.
    paths: RwLock<Arc<[FieldPath]>>,
    /// What a custom resource's definition says.
    definition: RwLock<Option<Arc<Definition>>>,
    state: RwLock<State>,
    /// Rings when there are new events of this kind.
    bell: Bell,
    /// Told of when the definition changes.
    redefined: watch::Sender<()>,
    /// Snapshots that continue tokens lead to, newest last.
    kept: Mutex<VecDeque<(i64, Objects)>>,
}

/// Snapshots kept per kind; older pages are read from the store.
const MAX_KEPT: usize = 8;

#[derive(Default)]
struct State {
    objects: Objects,
    /// Bytes of all objects.
    bytes: usize,
    /// Events since the start.
    events: u64,
    ring: Ring,
}

/// Everything that is stored.
pub struct Cache {
    storages: Vec<Storage>,
    by_prefix: HashMap<String, usize>,
    by_kind: HashMap<(&'static str, &'static str), usize>,
    /// Storages of custom resources. They are never freed: watchers and rows refer to them, and a definition that
    /// comes back gets the one it had.
    custom: RwLock<Vec<&'static Storage>>,
    store: Arc<dyn store::Store>,
    newest: Newest,
    /// Every event up to here has been applied.
    revision: watch::Sender<i64>,
    progress: RwLock<Option<store::ProgressHandle>>,
    /// What watches send of several events at once.
    pub joined: Joined,
}

impl Storage {
    fn new(index: usize, kind: &'static Kind) -> Self {
        let paths: Vec<FieldPath> = selectable(kind.group, kind.plural)
            .filter_map(|(name, path)| FieldPath::resolve(name, path, kind.schema()))
            .collect();
        Self {
            index,
            prefix: format!("{}/", kind.etcd_prefix),
            kind,
            api_version: kind.storage_version,
            paths: RwLock::new(paths.into()),
            definition: RwLock::default(),
            state: RwLock::default(),
            bell: Bell::default(),
            redefined: watch::Sender::new(()),
            kept: Mutex::default(),
        }
    }

    /// What the definition of a custom resource says.
    #[must_use]
    pub fn definition(&self) -> Option<Arc<Definition>> {
        self.definition.read().clone()
    }

    /// Takes over what a definition says now.
    pub fn set_definition(&self, definition: Option<Arc<Definition>>) {
        let fields = definition.as_ref().map(|d| d.selectable()).unwrap_or_default();
        let stamp = definition.as_ref().map(|d| d.stamp);
        let before = std::mem::replace(&mut *self.definition.write(), definition);
        if before.is_some_and(|before| Some(before.stamp) != stamp) {
            self.redefined.send_replace(());
        }
        if fields == self.indexed() {
            return;
        }
        let paths: Arc<[FieldPath]> = fields.into_iter().map(FieldPath::of_json).collect();
        *self.paths.write() = paths.clone();
        // Events that come meanwhile wait for the lock, and are read with the new paths.
        let mut state = self.state.write();
        let read = |o: &Arc<Object>| Arc::new(Object::new(o.key.clone(), o.revision, o.data.clone(), &paths));
        state.objects = state.objects.iter().map(|(key, object)| (key.clone(), read(object))).collect();
    }

    /// Tells of custom resources when another definition is in force: what was shown until then is not what is shown
    /// from then on.
    #[must_use]
    pub fn redefined(&self) -> Option<watch::Receiver<()>> {
        crate::custom::is_custom(self.kind).then(|| self.redefined.subscribe())
    }

    /// Keeps a snapshot for the pages that follow.
    pub fn keep_snapshot(&self, revision: i64, objects: Objects) {
        let mut kept = self.kept.lock();
        if kept.iter().any(|(r, _)| *r == revision) {
            return;
        }
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((revision, objects));
    }

    /// A snapshot kept before.
    #[must_use]
    pub fn kept_snapshot(&self, revision: i64) -> Option<Objects> {
        self.kept.lock().iter().find(|(r, _)| *r == revision).map(|(_, o)| o.clone())
    }

    /// Names of the indexed fields.
    #[must_use]
    pub fn indexed(&self) -> Vec<&'static str> {
        self.paths.read().iter().map(|p| p.name).collect()
    }

    /// The store's key of an object.
    #[must_use]
    pub fn store_key(&self, namespace: &str, name: &str) -> String {
        if self.kind.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// An object by namespace and name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key: String = if self.kind.namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
        self.state.read().objects.get(key.as_str()).cloned()
    }

    /// All objects as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Objects {
        self.state.read().objects.clone()
    }

    /// How much there is.
    #[must_use]
    pub fn stored(&self) -> crate::flow::Stored {
        let state = self.state.read();
        crate::flow::Stored { objects: state.objects.len(), bytes: state.bytes }
    }

    /// Events since the start, and the revision of the newest.
    #[must_use]
    pub fn events(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.events, state.ring.newest().unsigned_abs())
    }

    /// Reads a stored value as an object.
    #[must_use]
    pub fn read_object(&self, key: &str, revision: i64, data: bytes::Bytes) -> Object {
        let paths = self.paths.read().clone();
        Object::new(key.strip_prefix(&self.prefix).unwrap_or(key).into(), revision, data, &paths)
    }

    /// Somebody who learns of every new event of this kind.
    #[must_use]
    pub fn subscribe(&self) -> Listener {
        self.bell.listen()
    }

    /// The revision of the newest event of this kind.
    #[must_use]
    pub fn newest_event(&self) -> i64 {
        self.state.read().ring.newest()
    }

    /// The events after `cursor`, at most so many and, after the first, so many bytes; 410 if some of them are gone.
    pub fn events_after(&self, cursor: i64, limits: (usize, usize)) -> Result<Events> {
        self.state.read().ring.after(cursor, limits)
    }

    /// A snapshot together with the revision of its newest event, with no event between the two.
    #[must_use]
    pub fn snapshot_and_cursor(&self) -> (Objects, i64) {
        let state = self.state.read();
        (state.objects.clone(), state.ring.newest())
    }
}

impl Storage {
    /// The value of a field that selectors may name.
    #[must_use]
    pub fn field<'o>(&self, object: &'o Object, name: &str) -> &'o str {
        let at = self.paths.read().iter().position(|path| path.name == name);
        at.map_or("", |at| object.field(at))
    }
}

impl Cache {
    /// A cache of all stored kinds, still empty.
    #[must_use]
    pub fn new(store: Arc<dyn store::Store>) -> Self {
        let asked = store.clone();
        let ask = move || {
            let store = asked.clone();
            async move { store.current_revision().await.map_err(store_failure) }.boxed()
        };
        let mut cache = Self {
            storages: Vec::new(),
            by_prefix: HashMap::new(),
            by_kind: HashMap::new(),
            custom: RwLock::default(),
            newest: Newest::new(ask),
            store,
            revision: watch::Sender::new(0),
            progress: RwLock::new(None),
            joined: Joined::default(),
        };
        let stored = || api::all_kinds().iter().filter(|k| !k.etcd_prefix.is_empty());
        for kind in stored() {
            if !cache.by_prefix.contains_key(kind.etcd_prefix) {
                let all = stored().filter(|k| k.etcd_prefix == kind.etcd_prefix);
                let own = all.max_by_key(|k| (k.by_default, k.is_version(kind.storage_version)));
                let index = cache.storages.len();
                cache.storages.push(Storage::new(index, own.unwrap_or(kind)));
                cache.by_prefix.insert(kind.etcd_prefix.to_owned(), index);
            }
        }
        for kind in stored() {
            if let Some(index) = cache.by_prefix.get(kind.etcd_prefix) {
                cache.by_kind.insert((kind.group, kind.plural), *index);
            }
        }
        cache
    }

    /// The storage of a kind; kinds that are never stored have none.
    #[must_use]
    pub fn storage(&self, group: &str, plural: &str) -> Option<&Storage> {
        // Seen through this type, the keys may live as short as the names that are looked for.
        let by_kind: &HashMap<(&str, &str), usize> = &self.by_kind;
        match by_kind.get(&(group, plural)) {
            Some(index) => self.storages.get(*index),
            None => self.custom.read().iter().find(|s| s.kind.group == group && s.kind.plural == plural).copied(),
        }
    }

    /// The storage of a core kind that is known to exist.
    ///
    /// # Panics
    /// When the table of kinds lacks it, which a test would show.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the table of kinds is compiled in")]
    pub fn known(&self, group: &str, plural: &str) -> &Storage {
        self.storage(group, plural).expect("a kind of the table")
    }

    /// The storage at a position.
    ///
    /// # Panics
    /// When there is no such position; positions come from storages.
    #[must_use]
    pub fn storage_at(&self, index: usize) -> &Storage {
        match self.storages.get(index) {
            Some(storage) => storage,
            None => self.custom.read()[index - self.storages.len()],
        }
    }

    /// All storages.
    pub fn all(&self) -> Vec<&Storage> {
        let custom: Vec<&'static Storage> = self.custom.read().clone();
        self.storages.iter().chain(custom).collect()
    }

    /// The storage of a custom resource, made and loaded if it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn add_custom(&self, kind: &'static Kind) -> Result<&'static Storage> {
        let known = |s: &&'static Storage| s.kind.group == kind.group && s.kind.plural == kind.plural;
        let storage = {
            let mut custom = self.custom.write();
            if let Some(storage) = custom.iter().copied().find(|s| known(s)) {
                return Ok(storage);
            }
            let index = self.storages.len() + custom.len();
            let storage: &'static Storage = Box::leak(Box::new(Storage::new(index, kind)));
            custom.push(storage);
            storage
        };
        // From here on events are applied; what they brought is newer than what is read.
        let page =
            self.store.range(store::RangeRequest::prefix(storage.prefix.clone())).await.map_err(store_failure)?;
        storage.load(page.revision, page.kvs);
        Ok(storage)
    }

    /// The store behind the cache.
    #[must_use]
    pub fn store(&self) -> &dyn store::Store {
        &*self.store
    }

    /// Every event up to this revision has been applied.
    #[must_use]
    pub fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// A receiver of the applied revision.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    /// Waits until the cache shows everything that was acknowledged before this call. Returns the applied revision.
    pub async fn fresh(&self) -> Result<i64> {
        let current = self.newest.revision().await?;
        self.wait_for(current).await
    }

    /// Waits until the cache has reached a revision.
    pub async fn wait_for(&self, wanted: i64) -> Result<i64> {
        let mut revisions = self.revision.subscribe();
        if *revisions.borrow() >= wanted {
            return Ok(self.revision());
        }
        let reached = async {
            loop {
                if let Some(progress) = self.progress.read().as_ref() {
                    progress.request();
                }
                match tokio::time::timeout(PROGRESS_INTERVAL, revisions.wait_for(|r| *r >= wanted)).await {
                    Ok(_) => return,
                    Err(_elapsed) => {}
                }
            }
        };
        match tokio::time::timeout(FRESH_TIMEOUT, reached).await {
            Ok(()) => Ok(self.revision()),
            Err(_elapsed) => Err(Failure::version_too_large(wanted.unsigned_abs(), self.revision().unsigned_abs())),
        }
    }

    /// The storage and the key below its prefix of a key in the store.
    fn locate<'k>(&self, key: &'k str) -> Option<(&Storage, &'k str)> {
        let below = key.strip_prefix(ROOT)?;
        let mut slashes = below.match_indices('/').map(|(at, _)| at + ROOT.len());
        let (first, second) = (slashes.next()?, slashes.next());
        if let Some(second) = second
            && let Some(storage) = self.custom.read().iter().copied().find(|s| s.prefix == key[..=second])
        {
            return Some((storage, &key[second + 1..]));
        }
        for cut in second.into_iter().chain([first]) {
            if let Some(index) = self.by_prefix.get(&key[..cut]) {
                return Some((&self.storages[*index], &key[cut + 1..]));
            }
        }
        None
    }
}

/// A store's error as the failure of a request.
#[must_use]
pub fn store_failure(error: store::Error) -> Failure {
    // What upstream has no reason for is passed on as it came.
    let plain = |text: &str| Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text);
    match error {
        store::Error::Compacted { .. } => Failure::expired("The resourceVersion for the provided list is too old."),
        store::Error::TooLarge => plain("etcdserver: request is too large"),
        store::Error::NoSpace => plain("etcdserver: mvcc: database space exceeded"),
        store::Error::Unavailable { reason } => plain(&format!("rpc error: code = Unavailable desc = {reason}")),
        store::Error::Timeout { .. } => {
            Failure::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
        }
        store::Error::Overloaded => Failure::too_many_requests("the store has too many requests to serve", 1),
        other => Failure::internal(stdx::chain(&other)),
    }
}
