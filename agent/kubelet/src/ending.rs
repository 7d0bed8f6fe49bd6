//! The machine ends, and its pods do first: all that are not critical at once, then the critical ones.
//!
//! Their objects stay as they are, and the next start of the machine finds them: whoever wants them elsewhere drains the
//! node before. Nothing here outlasts the time that is given; what is left is whoever's who ends the machine.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::Pod;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::manager::PodTable;
use crate::pod::uid_of;
use crate::resources::SYSTEM_CRITICAL;

/// What the runtime gets beyond a pod's time to tell that it has killed it.
const SLACK: Duration = Duration::from_millis(500);

/// What pods get to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// All of them together.
    pub all: Duration,
    /// The part of it that is kept for critical ones, where there are some.
    pub critical: Duration,
}

/// Whoever ends the machine.
pub trait Ending: Debug + Send + Sync {
    /// What pods get; nothing if it is the kubelet alone that ends, which they outlive.
    fn grace(&self) -> Option<Grace>;
    /// These pods have not ended yet.
    fn waits_for(&self, pods: &[&str]);
}

/// Pods that end together.
#[derive(Debug, PartialEq, Eq)]
struct Wave {
    uids: Vec<String>,
    /// How long they have from when the first pods began to end ...
    time: Duration,
    /// ... but no less than this from when they do themselves: the runtime may have told late that others are gone.
    kept: Duration,
}

fn plan(pods: &[Arc<Pod>], grace: Grace) -> Vec<Wave> {
    let is_critical = |pod: &&Arc<Pod>| pod.spec.priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL);
    let (last, first): (Vec<_>, Vec<_>) = pods.iter().partition(is_critical);
    let kept = if last.is_empty() { Duration::ZERO } else { grace.critical.min(grace.all) };
    // What the first ones leave of their time is for the others.
    let waves = [(first, grace.all - kept, Duration::ZERO), (last, grace.all, kept)];
    let uids = |pods: Vec<&Arc<Pod>>| pods.into_iter().map(|pod| uid_of(pod).to_owned()).collect();
    let waves = waves.into_iter().map(|(pods, time, kept)| Wave { uids: uids(pods), time, kept });
    waves.filter(|wave| !wave.uids.is_empty()).collect()
}

/// Ends all pods, if the machine ends.
pub(crate) async fn end(table: &PodTable, ending: &dyn Ending) {
    let Some(grace) = ending.grace() else { return };
    let pods: Vec<Arc<Pod>> = table.list().into_iter().map(|(pod, _)| pod).collect();
    let began = Instant::now();
    for wave in plan(&pods, grace) {
        let deadline = (began + wave.time).max(Instant::now() + wave.kept);
        let mut ended: FuturesUnordered<_> = wave.uids.iter().filter_map(|uid| table.end(uid, deadline)).collect();
        let mut left: BTreeSet<String> = pods
            .iter()
            .filter(|pod| wave.uids.iter().any(|uid| uid == uid_of(pod)))
            .map(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name))
            .collect();
        while !left.is_empty() {
            ending.waits_for(&left.iter().map(String::as_str).collect::<Vec<_>>());
            match tokio::time::timeout_at(deadline + SLACK, ended.next()).await {
                Ok(Some(name)) => drop(left.remove(&name)),
                Ok(None) => break,
                Err(_elapsed) => {
                    tracing::warn!(pods = ?left, "pods did not end in time");
                    break;
                }
            }
        }
    }
    ending.waits_for(&[]);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::watch;

    use super::*;
    use crate::worker::Wish;

    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>);

    impl Ending for Told {
        fn grace(&self) -> Option<Grace> {
            Some(Grace { all: Duration::from_secs(5), critical: Duration::from_secs(2) })
        }

        fn waits_for(&self, pods: &[&str]) {
            self.0.lock().unwrap().push(pods.join(" "));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_end_at_once_and_critical_ones_when_the_others_have_or_had_their_time() {
        let pods = [pod("a", None), pod("b", None), pod("dns", Some(SYSTEM_CRITICAL))];
        let (table, workers) = PodTable::of_a_test(&pods);
        let [mut a, mut b, mut dns] = <[watch::Receiver<Wish>; 3]>::try_from(workers).unwrap();
        let (told, began) = (Told::default(), Instant::now());
        // When a pod is asked to end, and by when.
        let asked = async |wishes: &mut watch::Receiver<Wish>| {
            let end = wishes.wait_for(|wish| wish.end.is_some()).await.unwrap().end.unwrap();
            (began.elapsed().as_secs_f64(), (end - began).as_secs_f64())
        };
        let work = async {
            let first = asked(&mut a).await;
            drop(a);
            // This one does not end.
            let second = asked(&mut b).await;
            let third = asked(&mut dns).await;
            drop(dns);
            [first, second, third]
        };
        let (asked, ()) = tokio::join!(work, end(&table, &told));
        assert_eq!(asked, [(0.0, 3.0), (0.0, 3.0), (3.5, 5.5)]);
        assert_eq!(*told.0.lock().unwrap(), ["default/a default/b", "default/b", "default/dns", ""]);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    fn pod(uid: &str, priority: Option<i32>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.uid = uid.to_owned();
        (pod.metadata.namespace, pod.metadata.name) = ("default".to_owned(), uid.to_owned());
        pod.spec.priority = priority;
        Arc::new(pod)
    }

    #[test]
    fn critical_pods_end_last_and_have_their_part_of_the_time() {
        let second = Duration::from_secs;
        let grace = Grace { all: second(5), critical: second(2) };
        let wave = |uids: &[&str], time, kept| Wave {
            uids: uids.iter().map(|&it| it.to_owned()).collect(),
            time: second(time),
            kept: second(kept),
        };
        let all = [
            pod("a", None),
            pod("dns", Some(SYSTEM_CRITICAL)),
            pod("b", Some(9)),
            pod("cni", Some(SYSTEM_CRITICAL + 1000)),
        ];
        assert_eq!(plan(&all, grace), [wave(&["a", "b"], 3, 0), wave(&["dns", "cni"], 5, 2)]);
        // Nobody waits for those that there are not.
        assert_eq!(plan(&all[..1], grace), [wave(&["a"], 5, 0)]);
        assert_eq!(plan(&all[1..2], grace), [wave(&["dns"], 5, 2)]);
        assert_eq!(plan(&[], grace), []);
    }
}
