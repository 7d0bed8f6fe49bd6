//! A job with its pods, counted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use api::batch::v1::{Job, JobCondition, UncountedTerminatedPods};
use api::core::v1::Pod;

use super::backoff::{Record, finished_at};
use super::indexes::Indexes;
use super::policy::{self, Verdict};
use super::{COMPLETION_INDEX, FAILURE_COUNT, FINALIZER, IGNORED_FAILURE_COUNT, condition};
use crate::pods::{is_active, is_finished, is_ready};

/// What a run works on.
pub(super) struct View {
    /// The job, with the status as it becomes.
    pub(super) job: Job,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Pods that have no finalizer any more although the cache shows one.
    released: HashSet<String>,
    uncounted: UncountedTerminatedPods,
    /// Succeeded indexes as the status had them.
    pub(super) former_succeeded: Indexes,
    pub(super) succeeded_indexes: Indexes,
    pub(super) failed_indexes: Option<Indexes>,
    /// By index, the failed pod that keeps its finalizer until its successor knows how many failures there were.
    pub(super) delayed: BTreeMap<i32, Arc<Pod>>,
    pub(super) record: Record,
    /// How the job ends, where it does.
    pub(super) finished: Option<JobCondition>,
    pub(super) now: i64,
}

impl View {
    pub(super) fn observe(job: &Job, pods: Vec<Arc<Pod>>, released: HashSet<String>, record: Record, now: i64) -> Self {
        let mut job = job.clone();
        let uncounted = job.status.uncounted_terminated_pods.get_or_insert_default().clone();
        let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let going = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some() && !is_finished(pod);
        let mut view = Self {
            ready: count(active.iter().filter(|pod| is_ready(pod)).count()),
            terminating: count(pods.iter().filter(going).count()),
            succeeded: job.status.succeeded + count(uncounted.succeeded.len()),
            failed: job.status.failed + count(uncounted.failed.len()),
            former_succeeded: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            finished: None,
            job,
            pods,
            active,
            released,
            uncounted,
            record,
            now,
        };
        let new_succeeded = view.new_pods(|v, pod| pod.status.phase == "Succeeded" && !v.was_counted(pod, true));
        let new_failed = view.new_pods(|v, pod| v.is_failed(pod) && !v.was_counted(pod, false));
        let counted = new_failed.iter().filter(|pod| policy::judge(&view.job, pod) != Verdict::Ignore).count();
        view.succeeded += count(new_succeeded.len());
        view.failed += count(counted);
        view.record = record.after(&new_succeeded, &new_failed);
        view.count_indexes();
        view
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.job.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    pub(super) fn completions(&self) -> i32 {
        self.job.spec.completions.unwrap_or(i32::MAX)
    }

    /// Whether a pod is only replaced once it has really ended.
    pub(super) fn waits_for_end(&self) -> bool {
        self.job.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.job.spec.pod_failure_policy.is_some()
    }

    /// Whether the pod counts as failed: it did, or it is being deleted without having succeeded.
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        let deleted = pod.metadata.deletion_timestamp.is_some() && pod.status.phase != "Succeeded";
        pod.status.phase == "Failed" || (deleted && !self.waits_for_end())
    }

    /// Whether the pod's end has still to be counted, as its finalizer tells.
    pub(super) fn is_tracked(&self, pod: &Pod) -> bool {
        pod.metadata.finalizers.iter().any(|f| f == FINALIZER) && !self.released.contains(&pod.metadata.uid)
    }

    /// Whether the status names the pod already.
    pub(super) fn was_counted(&self, pod: &Pod, succeeded: bool) -> bool {
        let list = if succeeded { &self.uncounted.succeeded } else { &self.uncounted.failed };
        list.contains(&pod.metadata.uid)
    }

    /// The pod's index where it is one of this job's.
    pub(super) fn index_of(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.completions())
    }

    fn new_pods(&self, wanted: impl Fn(&Self, &Pod) -> bool) -> Vec<Arc<Pod>> {
        let counts = |pod: &Pod| self.is_tracked(pod) && (!self.is_indexed() || self.index_of(pod).is_some());
        self.pods.iter().filter(|pod| counts(pod) && wanted(self, pod)).cloned().collect()
    }

    fn count_indexes(&mut self) {
        if !self.is_indexed() {
            return;
        }
        let completions = self.completions();
        self.former_succeeded = Indexes::parse(&self.job.status.completed_indexes, completions);
        let succeeded = self.tracked_indexes(|pod| pod.status.phase == "Succeeded");
        self.succeeded_indexes = self.former_succeeded.with(succeeded);
        self.succeeded = self.succeeded_indexes.total();
        if let Some(limit) = self.job.spec.backoff_limit_per_index {
            let former = Indexes::parse(self.job.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            let failed = self.tracked_indexes(|pod| self.has_failed_for_good(pod, limit));
            self.failed_indexes = Some(former.with(failed));
            self.delayed = self.find_delayed();
        }
    }

    /// The indexes of pods that have the finalizer and are so.
    fn tracked_indexes(&self, is_so: impl Fn(&Pod) -> bool) -> Vec<i32> {
        let tracked = self.pods.iter().filter(|pod| pod.metadata.finalizers.iter().any(|f| f == FINALIZER));
        tracked.filter(|pod| is_so(pod)).filter_map(|pod| self.index_of(pod)).collect()
    }

    fn has_failed_for_good(&self, pod: &Pod, limit: i32) -> bool {
        self.is_failed(pod)
            && match policy::judge(&self.job, pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => failures_before(pod) >= limit,
            }
    }

    fn find_delayed(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active = indexes_of(&self.active);
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.new_pods(Self::is_failed) {
            let Some(index) = self.index_of(&pod) else { continue };
            let over = self.succeeded_indexes.has(index) || self.failed_indexes.as_ref().is_some_and(|f| f.has(index));
            if over || active.contains(&index) {
                continue;
            }
            let newer = delayed.get(&index).is_none_or(|before| {
                all_failures(before) <= all_failures(&pod) && finished_at(before) <= finished_at(&pod)
            });
            if newer {
                delayed.insert(index, pod);
            }
        }
        delayed
    }

    /// The status' condition of this type, where it holds.
    pub(super) fn holds(&self, kind: &str) -> Option<&JobCondition> {
        condition::find(&self.job, kind).filter(|c| c.status == "True")
    }
}

/// The pod's index, whatever the job's size.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.get(COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

pub(super) fn indexes_of(pods: &[Arc<Pod>]) -> BTreeSet<i32> {
    pods.iter().filter_map(|pod| index_of(pod)).collect()
}

fn number(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.metadata.annotations.get(annotation);
    text.and_then(|text| text.parse().ok()).filter(|n| *n >= 0).unwrap_or(0)
}

/// Failures of the pod's index before it, those that did not count left out.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    number(pod, FAILURE_COUNT)
}

pub(super) fn ignored_failures_before(pod: &Pod) -> i32 {
    number(pod, IGNORED_FAILURE_COUNT)
}

/// All failures of the pod's index before it.
pub(super) fn all_failures(pod: &Pod) -> i32 {
    failures_before(pod) + ignored_failures_before(pod)
}
