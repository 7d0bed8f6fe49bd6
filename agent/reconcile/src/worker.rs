//! Workers that empty a queue.

use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use lifecycle::Shutdown;
use stdx::chain;
use tokio::task::JoinSet;
use tracing::warn;

use crate::queue::Queue;

/// What follows a successful run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// Another run, even if nothing changes.
    RequeueAfter(Duration),
}

/// Runs `reconcile` on every key of `queue`, `concurrency` keys at a time, never one key twice at a time, until
/// `shutdown`; runs under way are finished first. A run that fails or panics is repeated with back-off.
pub async fn run_workers<T, F, Fut, E>(queue: Queue<T>, concurrency: usize, shutdown: Shutdown, reconcile: F)
where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.max(1) {
        workers.spawn(work(queue.clone(), shutdown.clone(), reconcile.clone()));
    }
    // Workers catch the panics of their runs, so there is nothing to learn from how they ended.
    while workers.join_next().await.is_some() {}
}

async fn work<T, F, Fut, E>(queue: Queue<T>, shutdown: Shutdown, reconcile: F)
where
    T: Clone + Eq + Hash + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Action, E>>,
    E: std::error::Error,
{
    loop {
        let (key, guard) = tokio::select! {
            () = shutdown.wait() => return,
            next = queue.next() => next,
        };
        match AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
            Ok(Ok(Action::Done)) => queue.forget(&key),
            Ok(Ok(Action::RequeueAfter(delay))) => {
                queue.forget(&key);
                queue.add_after(key, delay);
            }
            Ok(Err(error)) => {
                warn!(?key, error = %chain(&error), "reconcile failed, will be repeated");
                queue.add_backoff(key);
            }
            Err(_panic) => {
                warn!(?key, "reconcile panicked, will be repeated");
                queue.add_backoff(key);
            }
        }
        drop(guard);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("not yet")]
    struct NotYet;

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_repeated_until_success() {
        let queue = Queue::new();
        let shutdown = Shutdown::new();
        let runs = Arc::new(AtomicU32::new(0));
        queue.add("key");
        let (counted, stop) = (runs.clone(), shutdown.clone());
        run_workers(queue, 2, shutdown, move |_key| {
            let (counted, stop) = (counted.clone(), stop.clone());
            async move {
                match counted.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(NotYet),
                    1 => panic!("as planned"),
                    2 => Ok(Action::RequeueAfter(Duration::from_secs(60))),
                    _ => {
                        stop.trigger();
                        Ok(Action::Done)
                    }
                }
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    }
}
