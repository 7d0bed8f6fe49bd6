//! Shutdown, tracked tasks, draining with a deadline.
//!
//! A component gets a [`Shutdown`], selects on [`Shutdown::wait`], stops taking work, finishes and returns. Tasks it
//! starts go through [`Tasks`], so that nothing outlives a drain unseen. This crate knows no signals: the binary
//! turns those into [`Shutdown::trigger`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A wish to stop, shared by everybody who has to hear of it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A shutdown that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody who waits on this or on a child to stop. Idempotent.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Returns once the shutdown was asked for; at once if it already was. Cancel safe.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Whether the shutdown was asked for.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A shutdown that follows this one and can also be triggered alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// Named tasks of one owner.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

impl Tasks {
    /// An owner without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `task` on the current runtime, inside a span called `name`.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let entry = Entry { id, running: self.running.clone() };
        self.names().insert(id, name);
        let tracked = async move {
            task.await;
            drop(entry);
        };
        drop(self.tracker.spawn(tracked.instrument(tracing::info_span!("task", name))));
    }

    /// Waits until every task has ended, at most `deadline`. Returns the names of those that still run.
    pub async fn drain(&self, deadline: Duration) -> Vec<&'static str> {
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.names().values().copied().collect(),
        }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a task's name off the list when the task ends, also by panic or cancellation.
struct Entry {
    id: u64,
    running: Arc<Mutex<BTreeMap<u64, &'static str>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_hears_its_parent_but_not_the_reverse() {
        let parent = Shutdown::new();
        let child = parent.child();
        child.trigger();
        assert!(!parent.is_triggered());
        let other = parent.child();
        parent.trigger();
        other.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn drain_names_the_tasks_that_do_not_end() {
        let tasks = Tasks::new();
        tasks.spawn("quick", async {});
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, vec!["stuck"]);
    }
}
