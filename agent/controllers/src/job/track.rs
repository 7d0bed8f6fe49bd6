//! Counting pods exactly once, whatever is deleted by whom and when.
//!
//! ```text
//!   pod ended, has the finalizer ─▶ its uid in status.uncountedTerminatedPods ─▶ finalizer removed
//!                                                                                     │
//!                                          uid out of the list, counter + 1  ◀────────┘
//! ```
//!
//! Indexed successes need no uid: an index counts once however many pods it had.

use std::collections::HashSet;
use std::sync::Arc;

use api::core::v1::Pod;

use super::condition::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_MET};
use super::plan::is_success;
use super::policy::{self, Verdict};
use super::view::{View, index_of};

/// Pods in the list at most: the status must stay small.
const MAX_UNCOUNTED: usize = 500;

/// What was found to count.
#[derive(Default)]
pub(super) struct Tracked {
    /// Pods whose finalizer can go once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
    /// Uids of pods that have the finalizer.
    pub(super) tracked: HashSet<String>,
    /// The status has changed.
    pub(super) flush: bool,
    /// There are more pods to count than fit.
    pub(super) full: bool,
}

/// Enters ended pods in the status.
pub(super) fn enter(view: &mut View) -> Tracked {
    let mut tracked = Tracked {
        tracked: view.pods.iter().filter(|p| view.is_tracked(p)).map(|p| p.metadata.uid.clone()).collect(),
        ..Tracked::default()
    };
    tracked.flush = settle(view, &tracked.tracked);
    let mut pods = view.pods.clone();
    if view.is_indexed() {
        pods.sort_by_key(|pod| index_of(pod));
    }
    let mut new_indexes = Vec::new();
    for pod in pods.iter().filter(|pod| tracked.tracked.contains(&pod.metadata.uid)) {
        if !can_release(view, pod) {
            continue;
        }
        tracked.release.push(pod.clone());
        tracked.flush |= enter_one(view, pod, &mut new_indexes);
        let listed =
            view.job.status.uncounted_terminated_pods.as_ref().map_or(0, |u| u.succeeded.len() + u.failed.len());
        if new_indexes.len() + listed >= MAX_UNCOUNTED {
            tracked.full = true;
            break;
        }
    }
    if view.is_indexed() {
        let completed = view.succeeded_indexes.to_string();
        let failed = view.failed_indexes.as_ref().map(ToString::to_string);
        let status = &mut view.job.status;
        tracked.flush |= completed != status.completed_indexes || failed != status.failed_indexes;
        status.succeeded = view.succeeded_indexes.total();
        status.completed_indexes = completed;
        status.failed_indexes = failed;
    }
    tracked.flush |= announce_end(view);
    tracked
}

/// Whether the pod's finalizer has no more use.
fn can_release(view: &View, pod: &Pod) -> bool {
    let over = view.job.metadata.deletion_timestamp.is_some() || view.finished.is_some();
    if over || pod.status.phase == "Succeeded" {
        return true;
    }
    let delayed = || {
        let kept = index_of(pod).and_then(|index| view.delayed.get(&index));
        view.job.spec.backoff_limit_per_index.is_some() && kept.is_some_and(|k| k.metadata.uid == pod.metadata.uid)
    };
    view.is_failed(pod) && !delayed()
}

/// Enters one pod; whether the status changed.
fn enter_one(view: &mut View, pod: &Pod, new_indexes: &mut Vec<i32>) -> bool {
    let indexed = view.is_indexed();
    let index = view.index_of(pod);
    if pod.status.phase == "Succeeded" && !view.was_counted(pod, false) {
        if indexed {
            let fresh = index.filter(|index| !view.former_succeeded.has(*index));
            new_indexes.extend(fresh);
            return fresh.is_some();
        }
        if view.was_counted(pod, true) {
            return false;
        }
        view.job.status.uncounted_terminated_pods.get_or_insert_default().succeeded.push(pod.metadata.uid.clone());
        return true;
    }
    // In a job that ends badly every pod that has not ended counts as failed.
    let ends_badly = view.finished.as_ref().is_some_and(|end| !is_success(end));
    let counts = (view.is_failed(pod) || ends_badly) && !view.was_counted(pod, false) && (!indexed || index.is_some());
    if !counts || policy::judge(&view.job, pod) == Verdict::Ignore {
        return false;
    }
    view.job.status.uncounted_terminated_pods.get_or_insert_default().failed.push(pod.metadata.uid.clone());
    true
}

/// Writes down that the job is about to end, before any finalizer goes.
fn announce_end(view: &mut View) -> bool {
    let Some(end) = view.finished.clone() else { return false };
    let (announced, last) = match end.r#type.as_str() {
        FAILURE_TARGET => (true, FAILED),
        SUCCESS_MET => (view.holds(SUCCESS_MET).is_none(), COMPLETE),
        _ => return false,
    };
    view.finished = Some(condition::turned(&end, last, view.now));
    if announced {
        view.job.status.conditions.push(end);
    }
    announced
}

/// Counts listed pods that have lost their finalizer; whether the status changed.
pub(super) fn settle(view: &mut View, tracked: &HashSet<String>) -> bool {
    let status = &mut view.job.status;
    let Some(uncounted) = &mut status.uncounted_terminated_pods else { return false };
    let settle_list = |list: &mut Vec<String>, counter: &mut i32| {
        let before = list.len();
        list.retain(|uid| tracked.contains(uid));
        let settled = before - list.len();
        *counter += i32::try_from(settled).unwrap_or(0);
        settled > 0
    };
    let succeeded = settle_list(&mut uncounted.succeeded, &mut status.succeeded);
    let failed = settle_list(&mut uncounted.failed, &mut status.failed);
    succeeded || failed
}

/// Ends the job where nothing is left to count or to wait for.
pub(super) fn end(view: &mut View) -> bool {
    let Some(end) = view.finished.clone() else { return false };
    let uncounted = view.job.status.uncounted_terminated_pods.as_ref();
    let open = uncounted.is_some_and(|u| !u.succeeded.is_empty() || !u.failed.is_empty());
    if open || view.terminating > 0 {
        return false;
    }
    if end.r#type == COMPLETE {
        view.job.status.completion_time = Some(end.last_transition_time);
    }
    condition::set(&mut view.job, end);
    true
}
