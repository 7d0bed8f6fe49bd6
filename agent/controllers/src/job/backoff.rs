//! When a failed pod may be replaced.

use std::sync::Arc;

use api::core::v1::{ContainerStatus, Pod};

use crate::pods::condition;

/// Seconds after the first failure.
const FIRST: i64 = 10;
/// Seconds that it never exceeds.
const MAX: i64 = 600;

/// Failures of a job since its last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: i32,
    last: Option<i64>,
}

impl Record {
    /// The record after these pods ended.
    pub(super) fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let times = |pods: &[Arc<Pod>]| pods.iter().map(|pod| finished_at(pod)).collect::<Vec<i64>>();
        let failed = times(failed);
        let count = |times: &[i64]| i32::try_from(times.len()).unwrap_or(i32::MAX);
        match times(succeeded).into_iter().max() {
            None if failed.is_empty() => self,
            None => Self { failures: self.failures + count(&failed), last: failed.into_iter().max() },
            Some(success) => {
                let later: Vec<i64> = failed.into_iter().filter(|time| *time > success).collect();
                Self { failures: count(&later), last: later.into_iter().max() }
            }
        }
    }

    /// Seconds until the next pod may be made.
    pub(super) fn remaining(self, now: i64) -> i64 {
        self.last.map_or(0, |last| remaining(self.failures, last, now))
    }
}

/// Seconds until the next pod may be made after so many failures.
pub(super) fn remaining(failures: i32, last: i64, now: i64) -> i64 {
    if failures == 0 {
        return 0;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(10);
    ((FIRST << doublings).min(MAX) - (now - last)).max(0)
}

/// When a pod ended, by the best that is known about it.
pub(super) fn finished_at(pod: &Pod) -> i64 {
    let ended = |c: &ContainerStatus| c.state.terminated.as_ref().and_then(|t| t.finished_at.unix());
    let of_containers = || {
        let times: Option<Vec<i64>> = pod.status.container_statuses.iter().map(ended).collect();
        times?.into_iter().max()
    };
    let not_ready = || condition(pod, "Ready").filter(|c| c.status == "False")?.last_transition_time.unix();
    let deleted = || {
        let time = pod.metadata.deletion_timestamp?.unix()?;
        Some(time - pod.metadata.deletion_grace_period_seconds.unwrap_or(0))
    };
    let known = of_containers().or_else(not_ready).or_else(deleted);
    known.unwrap_or_else(|| pod.metadata.creation_timestamp.unix().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use api::meta::v1::Time;

    use super::*;

    fn pod(ended: i64) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.creation_timestamp = Time::from_unix(ended);
        Arc::new(pod)
    }

    #[test]
    fn pauses_double_until_a_success() {
        let one = Record::default().after(&[], &[pod(100)]);
        assert_eq!((one.remaining(100), one.remaining(104), one.remaining(200)), (10, 6, 0));
        let three = one.after(&[], &[pod(120), pod(110)]);
        assert_eq!(three.remaining(120), 40);
        assert_eq!(three.after(&[pod(130)], &[pod(125)]).remaining(130), 0);
        assert_eq!(three.after(&[pod(130)], &[pod(140)]).remaining(140), 10);
        assert_eq!(remaining(50, 0, 0), MAX);
    }
}
