//! A deduplicating delay queue with back-off per key.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff;

const BACKOFF_BASE: Duration = Duration::from_millis(10);
const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// Keys to work on. A key that waits already is not added again; a key that is worked on and added meanwhile waits
/// until that work has ended.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    backoff: (Duration, Duration),
}

struct State<T> {
    ready: VecDeque<T>,
    /// What `ready` holds, and keys added while they were worked on.
    wanted: HashSet<T>,
    working: HashSet<T>,
    /// The earliest due time of each delayed key; entries of `timers` that say otherwise are stale.
    delayed: HashMap<T, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, T>,
    next_timer: u64,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue with back-off from 10 ms to a minute.
    #[must_use]
    pub fn new() -> Self {
        Self::with_backoff(BACKOFF_BASE, BACKOFF_CAP)
    }

    /// An empty queue.
    #[must_use]
    pub fn with_backoff(base: Duration, cap: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            working: HashSet::new(),
            delayed: HashMap::new(),
            timers: BinaryHeap::new(),
            timer_keys: HashMap::new(),
            next_timer: 0,
            failures: HashMap::new(),
        };
        let shared = Shared { state: Mutex::new(state), wake: Notify::new(), backoff: (base, cap) };
        Self { shared: Arc::new(shared) }
    }

    /// Wants `key` to be worked on.
    pub fn add(&self, key: T) {
        if self.state().want(key) {
            self.shared.wake.notify_one();
        }
    }

    /// Wants `key` to be worked on after `delay`. Of several delays the shortest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.state().delay(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Wants `key` to be worked on after a pause that grows with each call until [`Queue::forget`].
    pub fn add_backoff(&self, key: T) {
        let (base, cap) = self.shared.backoff;
        let failures = {
            let mut state = self.state();
            let count = state.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count - 1
        };
        self.add_after(key, backoff::pause(base, cap, failures));
    }

    /// The work on `key` succeeded: its next back-off is short again.
    pub fn forget(&self, key: &T) {
        self.state().failures.remove(key);
    }

    /// How many keys are ready to be worked on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// Whether no key is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key, once there is one. The key counts as worked on until the guard is dropped. Cancel safe.
    pub async fn next(&self) -> (T, QueueGuard<T>) {
        loop {
            let due = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    let guard = QueueGuard { queue: self.clone(), key: key.clone() };
                    return (key, guard);
                }
                state.timers.peek().map(|Reverse((due, _))| *due)
            };
            match due {
                None => self.shared.wake.notified().await,
                Some(due) => tokio::select! {
                    () = self.shared.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether the key became ready by this.
    fn want(&mut self, key: T) -> bool {
        if !self.wanted.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn delay(&mut self, key: T, due: Instant) {
        if self.delayed.get(&key).is_some_and(|earlier| *earlier <= due) {
            return;
        }
        self.delayed.insert(key.clone(), due);
        let timer = self.next_timer;
        self.next_timer += 1;
        self.timers.push(Reverse((due, timer)));
        self.timer_keys.insert(timer, key);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((due, timer))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            let Some(key) = self.timer_keys.remove(&timer) else { continue };
            if self.delayed.get(&key) == Some(&due) {
                self.delayed.remove(&key);
                self.want(key);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &T) -> bool {
        self.working.remove(key);
        let again = self.wanted.contains(key);
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }
}

/// Says that a key is worked on, until dropped.
pub struct QueueGuard<T: Clone + Eq + Hash> {
    queue: Queue<T>,
    key: T,
}

impl<T: Clone + Eq + Hash> Drop for QueueGuard<T> {
    fn drop(&mut self) {
        if self.queue.state().done(&self.key) {
            self.queue.shared.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_idle(queue: &Queue<u8>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_key_is_not_added_twice() {
        let queue = Queue::new();
        queue.add(1);
        queue.add(2);
        queue.add(1);
        assert_eq!(queue.next().await.0, 1);
        assert_eq!(queue.next().await.0, 2);
        assert!(is_idle(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_during_its_work_waits_for_the_end() {
        let queue = Queue::new();
        queue.add(1);
        let (_, guard) = queue.next().await;
        queue.add(1);
        queue.add(1);
        assert!(is_idle(&queue).await);
        drop(guard);
        assert_eq!(queue.next().await.0, 1);
        assert!(is_idle(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_delay_counts() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after(1, Duration::from_secs(50));
        queue.add_after(1, Duration::from_secs(5));
        queue.add_after(1, Duration::from_secs(20));
        assert_eq!(queue.next().await.0, 1);
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(tokio::time::timeout(Duration::from_secs(100), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn back_off_grows_until_forgotten() {
        let queue = Queue::with_backoff(Duration::from_secs(1), Duration::from_secs(8));
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            queue.add_backoff(1);
            drop(queue.next().await);
            pauses.push(start.elapsed().as_secs_f64());
        }
        for (pause, plain) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0]) {
            assert!(*pause >= plain && *pause <= plain * 1.6, "{pauses:?}");
        }
        queue.forget(&1);
        let start = Instant::now();
        queue.add_backoff(1);
        drop(queue.next().await);
        assert!(start.elapsed().as_secs_f64() < 1.6);
    }

    #[tokio::test(start_paused = true)]
    async fn two_waiters_share_two_keys() {
        let queue = Queue::new();
        let (one, two) = (queue.clone(), queue.clone());
        let waiters = futures::future::join(async move { one.next().await }, async move { two.next().await });
        let waiters = tokio::spawn(waiters);
        tokio::task::yield_now().await;
        queue.add(1);
        queue.add(2);
        let ((a, _), (b, _)) = waiters.await.unwrap();
        assert_eq!(a + b, 3);
    }
}
