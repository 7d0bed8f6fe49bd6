//! How probes went and how long they took, for `/metrics/probes`. A pod's counts are forgotten with the pod's worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::core::v1::Pod;

/// Upper ends of the histogram's buckets, in milliseconds; upstream's defaults.
pub(crate) const BUCKETS_MILLIS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) kind: &'static str,
    pub(crate) container: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

/// The counts of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    /// By bucket, each with all below it.
    pub(crate) buckets: [u64; BUCKETS_MILLIS.len()],
    pub(crate) took: Duration,
}

/// All probes of the node.
#[derive(Clone, Default)]
pub(crate) struct ProbeCounts(Arc<Mutex<BTreeMap<Series, Counts>>>);

/// The probes of one pod. The last clone takes the pod's counts with it.
pub(crate) struct PodProbes {
    all: ProbeCounts,
    namespace: String,
    pod: String,
    uid: String,
}

impl ProbeCounts {
    pub(crate) fn of(&self, pod: &Pod) -> Arc<PodProbes> {
        let meta = &pod.metadata;
        Arc::new(PodProbes {
            all: self.clone(),
            namespace: meta.namespace.clone(),
            pod: meta.name.clone(),
            uid: meta.uid.clone(),
        })
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<Series, Counts> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Series, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodProbes {
    pub(crate) fn note(&self, kind: &'static str, container: &str, is_good: bool, took: Duration) {
        let series = Series {
            kind,
            container: container.to_owned(),
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            uid: self.uid.clone(),
        };
        let mut all = self.all.lock();
        let counts = all.entry(series).or_default();
        if is_good {
            counts.successful += 1;
        } else {
            counts.failed += 1;
        }
        counts.took += took;
        for (bucket, end) in counts.buckets.iter_mut().zip(BUCKETS_MILLIS) {
            *bucket += u64::from(took <= Duration::from_millis(end));
        }
    }
}

impl Drop for PodProbes {
    fn drop(&mut self) {
        self.all.lock().retain(|series, _| series.uid != self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_with_the_pod() {
        let all = ProbeCounts::default();
        let mut pod = Pod::default();
        pod.metadata.uid = "u".to_owned();
        let probes = all.of(&pod);
        probes.note("Liveness", "c", true, Duration::from_millis(30));
        probes.note("Liveness", "c", false, Duration::from_millis(7));
        let found = all.snapshot().into_values().next().unwrap();
        assert_eq!((found.successful, found.failed), (1, 1));
        assert_eq!(found.buckets[..4], [0, 1, 1, 2]);
        drop(probes);
        assert!(all.snapshot().is_empty());
    }
}
