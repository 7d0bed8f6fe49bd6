//! How probes went and how long they took, for `/metrics/probes`. A pod's counts are forgotten with the pod's worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::core::v1::Pod;
use stdx::Histogram;

/// Upper ends of the histogram's buckets, in seconds; upstream's defaults.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

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
pub(crate) struct Counts {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    /// Seconds that they took.
    pub(crate) took: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self { successful: 0, failed: 0, took: Histogram::new(BUCKETS) }
    }
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

    /// Looks at all series; no probe is counted meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&BTreeMap<Series, Counts>) -> T) -> T {
        look(&self.lock())
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
        counts.took.observe(took.as_secs_f64());
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
        all.read(|series| {
            let found = series.values().next().unwrap();
            assert_eq!((found.successful, found.failed), (1, 1));
            let counts: Vec<u64> = found.took.cumulative().map(|(_, count)| count).take(4).collect();
            assert_eq!(counts, [0, 1, 1, 2]);
        });
        drop(probes);
        assert!(all.read(BTreeMap::is_empty));
    }
}
