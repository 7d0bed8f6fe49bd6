//! What a controller's own writes will do to its cache: until then the cache must not be believed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::meta::v1::ObjectMeta;

use crate::controller::Key;

/// After so long a write's effect is not coming; the cache is believed again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Writes under way, by owner.
#[derive(Default)]
pub(crate) struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

struct Expected {
    creations: usize,
    deletions: BTreeSet<String>,
    since: Instant,
}

impl Expectations {
    /// `creations` objects will appear.
    pub(crate) fn expect_creations(&self, owner: &Key, creations: usize) {
        self.change(owner, |e| e.creations += creations);
    }

    /// The object with this uid will go.
    pub(crate) fn expect_deletion(&self, owner: &Key, uid: &str) {
        self.change(owner, |e| {
            e.deletions.insert(uid.to_owned());
        });
    }

    /// An object appeared, or its creation failed.
    pub(crate) fn created(&self, owner: &Key) {
        self.observe(owner, |e| e.creations = e.creations.saturating_sub(1));
    }

    /// An object went, or its deletion failed.
    pub(crate) fn deleted(&self, owner: &Key, uid: &str) {
        self.observe(owner, |e| {
            e.deletions.remove(uid);
        });
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.lock().remove(owner);
    }

    /// Whether the cache shows all that was written.
    pub(crate) fn are_met(&self, owner: &Key) -> bool {
        self.lock()
            .get(owner)
            .is_none_or(|e| (e.creations == 0 && e.deletions.is_empty()) || e.since.elapsed() > PATIENCE)
    }

    fn change(&self, owner: &Key, change: impl FnOnce(&mut Expected)) {
        let mut owners = self.lock();
        let fresh = || Expected { creations: 0, deletions: BTreeSet::new(), since: Instant::now() };
        let expected = owners.entry(owner.clone()).or_insert_with(fresh);
        expected.since = Instant::now();
        change(expected);
    }

    fn observe(&self, owner: &Key, change: impl FnOnce(&mut Expected)) {
        if let Some(expected) = self.lock().get_mut(owner) {
            change(expected);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Expected>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest versions that a controller wrote of its objects: an older one in the cache must not be acted upon.
#[derive(Default)]
pub(crate) struct Writes {
    versions: Mutex<HashMap<Key, (String, u64)>>,
}

impl Writes {
    /// The object was written and has this metadata now.
    pub(crate) fn wrote(&self, meta: &ObjectMeta) {
        if let Ok(version) = meta.resource_version.parse() {
            self.lock().insert(Key::of(meta), (meta.uid.clone(), version));
        }
    }

    /// Whether this state is not older than what was written.
    pub(crate) fn are_shown(&self, meta: &ObjectMeta) -> bool {
        let versions = self.lock();
        let Some((uid, written)) = versions.get(&Key::of(meta)) else { return true };
        *uid != meta.uid || meta.resource_version.parse::<u64>().is_ok_and(|shown| shown >= *written)
    }

    /// The object is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (String, u64)>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_older_than_what_was_written_is_not_shown() {
        let meta = |uid: &str, version: &str| ObjectMeta {
            name: "a".to_owned(),
            uid: uid.to_owned(),
            resource_version: version.to_owned(),
            ..ObjectMeta::default()
        };
        let writes = Writes::default();
        writes.wrote(&meta("u", "10"));
        assert!(!writes.are_shown(&meta("u", "9")));
        assert!(writes.are_shown(&meta("u", "10")) && writes.are_shown(&meta("other", "3")));
    }

    #[test]
    fn the_cache_is_believed_once_it_shows_every_write() {
        let (expectations, owner) = (Expectations::default(), Key::new("a", "b"));
        assert!(expectations.are_met(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletion(&owner, "u");
        expectations.created(&owner);
        expectations.created(&owner);
        assert!(!expectations.are_met(&owner));
        expectations.deleted(&owner, "u");
        assert!(expectations.are_met(&owner));
    }
}
