//! What a pod's worker and its running steps tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::allocation::Allocation;
use crate::observed::{Life, Observed};
use crate::plan::CrashBackoff;
use crate::status::Waiting;

/// First and longest wait after a step that failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// The sandbox's name among things to try again; no container can have it.
pub(super) const SANDBOX: &str = "";
/// The same for other resources.
pub(super) const RESIZE: &str = "/resize";

struct Retry {
    wait: Duration,
    at: Instant,
}

/// Notes of one pod. Locked only for a moment.
pub(super) struct Notes {
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) waiting: BTreeMap<String, Waiting>,
    pub(super) starting: BTreeSet<String>,
    pub(super) backoff: CrashBackoff,
    /// The resources that are in effect.
    pub(super) actuated: Allocation,
    /// Why those that were granted are not.
    pub(super) resize_failure: Option<String>,
    /// Containers that were ended to begin anew, by id.
    pub(super) revived: BTreeSet<String>,
    retries: BTreeMap<String, Retry>,
}

impl Notes {
    pub(super) fn new(longest_crash_backoff: Duration, actuated: Allocation) -> Self {
        let inner = Inner {
            waiting: BTreeMap::new(),
            starting: BTreeSet::new(),
            backoff: CrashBackoff::new(longest_crash_backoff),
            actuated,
            resize_failure: None,
            revived: BTreeSet::new(),
            retries: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Notes that starting `name` failed; it is tried again after `wait`, or with back-off.
    pub(super) fn fail(&mut self, name: &str, waiting: Waiting, wait: Option<Duration>) {
        self.waiting.insert(name.to_owned(), waiting);
        let before = self.retries.get(name).map(|retry| retry.wait);
        let grown = before.map_or(RETRY_FIRST, |wait| (wait * 2).min(RETRY_LONGEST));
        let at = Instant::now() + wait.unwrap_or(grown);
        self.retries.insert(name.to_owned(), Retry { wait: grown, at });
    }

    /// Notes that starting `name` worked.
    pub(super) fn succeed(&mut self, name: &str) {
        self.waiting.remove(name);
        self.retries.remove(name);
    }

    /// The pod got other resources than those that could not be brought into effect.
    pub(super) fn forget_resize_failure(&mut self) {
        self.resize_failure = None;
        self.succeed(RESIZE);
    }

    /// How long `name` has to wait before it is tried again.
    pub(super) fn wait_of(&self, name: &str) -> Option<Duration> {
        self.retries.get(name)?.at.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
    }

    /// Marks the ended containers that shall begin anew; others are forgotten once they are gone.
    pub(super) fn mark_revived(&mut self, mut seen: Observed) -> Observed {
        self.revived.retain(|id| seen.containers.iter().any(|c| c.id == *id));
        for container in &mut seen.containers {
            container.is_revived = container.life == Life::Exited && self.revived.contains(&container.id);
        }
        seen
    }

    /// Something that failures may have been due to has changed: try everything again now.
    pub(super) fn try_again(&mut self) {
        self.retries.clear();
    }
}
