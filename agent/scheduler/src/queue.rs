//! Waiting pods: ready, paused after a failure, or without hope until something changes.
//!
//! ```text
//!   new ──▶ Ready ──pop──▶ Trying ──refused──▶ Hopeless ──event that may help, or long wait──▶ Paused or Ready
//!    │        ▲              └────failed─────▶ Paused ──pause over──▶ Ready
//!    └─gates─▶ Gated ──gates removed──▶ Ready
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::filter::Hopes;
use crate::pod::{PodInfo, PodKey};

const PAUSE_BASE: Duration = Duration::from_secs(1);
const PAUSE_CAP: Duration = Duration::from_secs(10);
/// A safety net for help that no event announces.
const HOPELESS_FOR: Duration = Duration::from_secs(300);

/// The pods that wait for a node.
#[derive(Debug, Default)]
pub(crate) struct SchedulingQueue {
    pods: HashMap<PodKey, Waiting>,
    ready: BTreeSet<(Reverse<i32>, u64, PodKey)>,
    paused: BTreeSet<(Instant, PodKey)>,
    /// By what could help, so that an event touches only those it may concern.
    hopeless: BTreeMap<Hopes, BTreeSet<(Instant, PodKey)>>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready { priority: i32, order: u64 },
    Paused { until: Instant },
    Hopeless { since: Instant, hopes: Hopes },
    Gated,
    Trying,
}

impl SchedulingQueue {
    /// Takes a waiting pod in, or its new state.
    pub(crate) fn apply(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let key = pod.key.clone();
        let Some(waiting) = self.pods.get_mut(&key) else {
            self.pods.insert(key.clone(), Waiting { pod, attempts: 0, state: State::Trying });
            return self.become_ready(&key);
        };
        let changed = wishes_differ(&waiting.pod, &pod);
        let reordered = waiting.pod.priority != pod.priority || pod.gated;
        waiting.pod = pod;
        match waiting.state {
            State::Gated => self.become_ready(&key),
            State::Hopeless { since, .. } if changed => self.retry(&key, since, now),
            State::Ready { .. } if reordered => self.become_ready(&key),
            State::Ready { .. } | State::Paused { .. } | State::Hopeless { .. } | State::Trying => {}
        }
    }

    /// The pod is gone, or has its node.
    pub(crate) fn remove(&mut self, key: &str) {
        self.leave(key);
        self.pods.remove(key);
    }

    /// The pod that is next in turn. It counts as being tried until it is refused, paused or removed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.wake(now);
        let (_, _, key) = self.ready.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.state = State::Trying;
        Some(waiting.pod.clone())
    }

    /// Whether a pod is ready to be tried.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The pod fits nowhere until something of `hopes` happens.
    pub(crate) fn refuse(&mut self, key: &str, hopes: Hopes, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key).filter(|waiting| waiting.state == State::Trying) else { return };
        waiting.state = State::Hopeless { since: now, hopes };
        self.hopeless.entry(hopes).or_default().insert((now, waiting.pod.key.clone()));
    }

    /// The attempt failed for other reasons than lack of a node.
    pub(crate) fn pause(&mut self, key: &str, now: Instant) {
        let Some(waiting) = self.pods.get(key).filter(|waiting| waiting.state == State::Trying) else { return };
        let until = now + pause_after(waiting.attempts);
        self.sleep(key, until);
    }

    /// Notes where room is being made for the pod.
    pub(crate) fn nominate(&mut self, key: &str, node: &str) -> Option<Arc<PodInfo>> {
        let waiting = self.pods.get_mut(key)?;
        node.clone_into(&mut Arc::make_mut(&mut waiting.pod).nominated_node);
        Some(waiting.pod.clone())
    }

    /// Something happened that may help some of the hopeless.
    pub(crate) fn event(&mut self, hopes: Hopes, now: Instant) {
        let met = self.hopeless.iter().filter(|(wanted, _)| wanted.meets(hopes));
        let helped: Vec<(Instant, PodKey)> = met.flat_map(|(_, pods)| pods).cloned().collect();
        for (since, key) in helped {
            self.retry(&key, since, now);
        }
    }

    /// When something happens by itself next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let paused = self.paused.first().map(|(until, _)| *until);
        let hopeless = self.longest_hopeless().map(|(since, _)| since + HOPELESS_FOR);
        paused.into_iter().chain(hopeless).min()
    }

    /// Makes ready what has waited long enough.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((until, key)) = self.paused.first().cloned()
            && until <= now
        {
            self.become_ready(&key);
        }
        while let Some((since, key)) = self.longest_hopeless()
            && since + HOPELESS_FOR <= now
        {
            self.retry(&key, since, now);
        }
    }

    fn longest_hopeless(&self) -> Option<(Instant, PodKey)> {
        self.hopeless.values().filter_map(BTreeSet::first).min().cloned()
    }

    fn retry(&mut self, key: &str, tried: Instant, now: Instant) {
        let Some(waiting) = self.pods.get(key) else { return };
        let until = tried + pause_after(waiting.attempts);
        if until <= now { self.become_ready(key) } else { self.sleep(key, until) }
    }

    fn become_ready(&mut self, key: &str) {
        self.leave(key);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        if waiting.pod.gated {
            waiting.state = State::Gated;
            return;
        }
        let (priority, order) = (waiting.pod.priority, self.next);
        self.next += 1;
        waiting.state = State::Ready { priority, order };
        self.ready.insert((Reverse(priority), order, waiting.pod.key.clone()));
    }

    fn sleep(&mut self, key: &str, until: Instant) {
        self.leave(key);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.state = State::Paused { until };
        self.paused.insert((until, waiting.pod.key.clone()));
    }

    /// Takes the pod out of the set its state says it is in.
    fn leave(&mut self, key: &str) {
        let Some(waiting) = self.pods.get(key) else { return };
        let key = waiting.pod.key.clone();
        match waiting.state {
            State::Ready { priority, order } => {
                self.ready.remove(&(Reverse(priority), order, key));
            }
            State::Paused { until } => {
                self.paused.remove(&(until, key));
            }
            State::Hopeless { since, hopes } => {
                if let Some(pods) = self.hopeless.get_mut(&hopes) {
                    pods.remove(&(since, key));
                }
            }
            State::Gated | State::Trying => {}
        }
    }
}

fn pause_after(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(8);
    PAUSE_BASE.saturating_mul(1 << doublings).min(PAUSE_CAP)
}

/// Whether the pod itself changed in a way that may let it fit.
fn wishes_differ(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels
        || old.tolerations != new.tolerations
        || old.requests != new.requests
        || old.gated != new.gated
        || old.uid != new.uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;

    fn name(pod: Option<Arc<PodInfo>>) -> String {
        pod.map(|pod| pod.name.clone()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_goes_first_then_the_order_of_arrival() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.apply(pod(name).priority(priority).info(), now);
        }
        let order: Vec<String> = (0..5).map(|_| name(queue.pop(now))).collect();
        assert_eq!(order, ["b", "d", "a", "c", ""]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_event_that_can_help_brings_a_refused_pod_back() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.apply(pod("a").info(), now);
        queue.pop(now);
        queue.refuse("default/a", Hopes::POD_GONE, now);
        queue.event(Hopes::VOLUME, now);
        assert_eq!(queue.next_due(), Some(now + HOPELESS_FOR));
        queue.event(Hopes::POD_GONE.with(Hopes::NODE), now);
        assert_eq!(queue.next_due(), Some(now + PAUSE_BASE));
        assert!(queue.pop(now).is_none());
        assert_eq!(name(queue.pop(now + PAUSE_BASE)), "a");
        queue.refuse("default/a", Hopes::NODE, now + PAUSE_BASE);
        assert_eq!(name(queue.pop(now + PAUSE_BASE + HOPELESS_FOR)), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_status_does_not_bring_a_refused_pod_back() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.apply(pod("a").info(), now);
        queue.pop(now);
        queue.refuse("default/a", Hopes::NODE, now);
        queue.apply(pod("a").nominated("n").info(), now);
        assert!(queue.pop(now + PAUSE_CAP).is_none());
        queue.apply(pod("a").label("x", "y").info(), now + PAUSE_CAP);
        assert_eq!(name(queue.pop(now + PAUSE_CAP)), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gated_pod_waits_for_its_gates() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.apply(pod("a").gated().info(), now);
        assert!(queue.pop(now + HOPELESS_FOR).is_none());
        queue.apply(pod("a").info(), now);
        assert_eq!(name(queue.pop(now)), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_the_attempts() {
        let (mut queue, mut now) = (SchedulingQueue::default(), Instant::now());
        queue.apply(pod("a").info(), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            queue.pop(now);
            queue.pause("default/a", now);
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
        queue.remove("default/a");
        assert_eq!(queue.next_due(), None);
    }
}
