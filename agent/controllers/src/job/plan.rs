//! How a job ends, which pods it needs and which it has too many of.

use std::sync::Arc;

use api::batch::v1::JobCondition;
use api::core::v1::Pod;

use super::condition::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_MET};
use super::policy::{self, Verdict};
use super::view::{View, all_failures, failures_before, ignored_failures_before, index_of, indexes_of};
use super::{COMPLETION_INDEX, FAILURE_COUNT, FINALIZER, IGNORED_FAILURE_COUNT, backoff};
use crate::pods::{pod_from_template, sort_for_deletion};

/// Pods created or deleted in one run at most.
const BURST: usize = 500;
/// The server's limit for the prefix of a generated name.
const MAX_PREFIX: usize = 58;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// How the job ends by what is known already, `None` where it goes on. Failures are judged before successes.
pub(super) fn judge_end(view: &View) -> Option<JobCondition> {
    let (job, now) = (&view.job, view.now);
    if let Some(met) = view.holds(SUCCESS_MET) {
        return Some(met.clone());
    }
    if let Some(target) = view.holds(FAILURE_TARGET) {
        return Some(condition::turned(target, FAILED, now));
    }
    let failure = |reason: &str, message: &str| Some(condition::made(FAILURE_TARGET, reason, message, now));
    let fatal = view.pods.iter().filter(|pod| view.is_failed(pod)).find_map(|pod| match policy::judge(job, pod) {
        Verdict::FailJob(message) => Some(message),
        Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
    });
    if let Some(message) = fatal {
        return failure("PodFailurePolicy", &message);
    }
    if view.failed > job.spec.backoff_limit.unwrap_or(6) || restarts_exceed(view) {
        return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(view).is_some_and(|rest| rest <= 0) {
        return failure("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if let Some(failed) = &view.failed_indexes {
        if job.spec.max_failed_indexes.is_some_and(|max| failed.total() > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return failure("MaxFailedIndexesExceeded", message);
        }
        if failed.total() > 0 && failed.total() + view.succeeded_indexes.total() >= view.completions() {
            return failure("FailedIndexes", "Job has failed indexes");
        }
    }
    if view.is_indexed() {
        let met = policy::success(job.spec.success_policy.as_ref(), view.completions(), &view.succeeded_indexes);
        return met.map(|message| condition::made(SUCCESS_MET, "SuccessPolicy", &message, now));
    }
    None
}

/// Seconds until the job has been active for too long.
pub(super) fn deadline(view: &View) -> Option<i64> {
    let limit = view.job.spec.active_deadline_seconds.filter(|_| !view.is_suspended())?;
    Some(view.job.status.start_time?.unix()? + limit - view.now)
}

/// With restarts in place, restarted containers count as failures.
fn restarts_exceed(view: &View) -> bool {
    if view.job.spec.template.spec.restart_policy != "OnFailure" {
        return false;
    }
    let lives = |pod: &&Arc<Pod>| matches!(pod.status.phase.as_str(), "Running" | "Pending");
    let restarts: i32 = view
        .pods
        .iter()
        .filter(lives)
        .flat_map(|pod| pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses))
        .map(|status| status.restart_count)
        .sum();
    match view.job.spec.backoff_limit.unwrap_or(6) {
        0 => restarts > 0,
        limit => restarts >= limit,
    }
}

/// The success of a job that has all it asked for, with so many pods still active.
pub(super) fn judge_success(view: &View, active: i32) -> Option<JobCondition> {
    let enough = match view.job.spec.completions {
        None => view.succeeded > 0,
        Some(wanted) => view.succeeded >= wanted,
    };
    let message = "Reached expected number of succeeded pods";
    (enough && active == 0).then(|| condition::made(SUCCESS_MET, "CompletionsReached", message, view.now))
}

/// Whether this is how a job ends well.
pub(super) fn is_success(end: &JobCondition) -> bool {
    end.r#type == SUCCESS_MET || end.r#type == COMPLETE
}

/// A change of the job's pods.
#[derive(Debug, PartialEq)]
pub(super) enum Manage {
    Keep,
    Delete(Vec<Arc<Pod>>),
    Create(Vec<Pod>),
    /// Failed pods are replaced in so many seconds.
    Wait(i64),
}

/// Compares the active pods with those wanted. Deletion comes before creation.
pub(super) fn manage(view: &View) -> Manage {
    let active = view.active.len();
    if view.is_suspended() {
        return if active == 0 { Manage::Keep } else { Manage::Delete(view.active.clone()) };
    }
    let wanted = wanted_active(view);
    let mut surplus = surplus(view, active.saturating_sub(wanted));
    surplus.truncate(BURST);
    if !surplus.is_empty() {
        return Manage::Delete(surplus);
    }
    let ending = if view.waits_for_end() { usize::try_from(view.terminating).unwrap_or(0) } else { 0 };
    let missing = wanted.saturating_sub(active + ending).min(BURST);
    if missing == 0 {
        return Manage::Keep;
    }
    let per_index = view.job.spec.backoff_limit_per_index.is_some();
    let pause = if per_index { 0 } else { view.record.remaining(view.now) };
    if pause > 0 {
        return Manage::Wait(pause);
    }
    if !view.is_indexed() {
        return Manage::Create(vec![shape(view, None); missing]);
    }
    let indexes = pending(view).missing(view.completions(), missing);
    let rest = |index: &i32| {
        let last = view.delayed.get(index).filter(|_| per_index);
        last.map_or(0, |pod| backoff::remaining(all_failures(pod) + 1, backoff::finished_at(pod), view.now))
    };
    let (due, later): (Vec<i32>, Vec<i32>) = indexes.into_iter().partition(|index| rest(index) == 0);
    match later.iter().map(rest).min() {
        Some(pause) if due.is_empty() => Manage::Wait(pause),
        _ if due.is_empty() => Manage::Keep,
        _ => Manage::Create(due.into_iter().map(|index| shape(view, Some(index))).collect()),
    }
}

fn wanted_active(view: &View) -> usize {
    let parallelism = view.job.spec.parallelism.unwrap_or(1);
    let wanted = match view.job.spec.completions {
        // Any success ends the job once the pods that run have ended.
        None if view.succeeded > 0 => return view.active.len(),
        None => parallelism,
        Some(completions) => parallelism.min(completions - view.succeeded),
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Pods to remove: those whose index is wrong or taken, and as many more as there are too many.
fn surplus(view: &View, at_least: usize) -> Vec<Arc<Pod>> {
    let (mut remove, mut left) = (Vec::new(), Vec::new());
    if view.is_indexed() {
        let mut pods = view.active.clone();
        sort_for_deletion(&mut pods);
        // The last of each index is the one worth keeping.
        let mut taken = std::collections::BTreeSet::new();
        for pod in pods.into_iter().rev() {
            let fresh = view.index_of(&pod).is_some_and(|index| taken.insert(index));
            if fresh { left.push(pod) } else { remove.push(pod) }
        }
    } else {
        left.clone_from(&view.active);
    }
    if remove.len() < at_least {
        sort_for_deletion(&mut left);
        left.truncate(at_least - remove.len());
        remove.extend(left);
    }
    remove
}

/// Indexes that need no new pod.
fn pending(view: &View) -> super::indexes::Indexes {
    let mut taken = view.succeeded_indexes.with(indexes_of(&view.active));
    if view.waits_for_end() {
        let ending =
            view.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && !crate::pods::is_finished(pod));
        taken = taken.with(ending.filter_map(|pod| index_of(pod)));
    }
    match &view.failed_indexes {
        Some(failed) => taken.union(failed),
        None => taken,
    }
}

/// A pod of the job, for an index where it has such.
fn shape(view: &View, index: Option<i32>) -> Pod {
    let job = &view.job;
    let mut pod = pod_from_template(job, &job.spec.template);
    if !pod.metadata.finalizers.iter().any(|f| f == FINALIZER) {
        pod.metadata.finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let spec = &mut pod.spec;
    spec.init_containers.iter_mut().chain(&mut spec.containers).for_each(add_index_variable);
    spec.hostname = format!("{}-{index}", job.metadata.name);
    let tail = format!("-{index}-");
    let mut prefix = job.metadata.name.clone();
    prefix.truncate(MAX_PREFIX - tail.len());
    pod.metadata.generate_name = prefix + &tail;
    pod.metadata.labels.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    pod.metadata.annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    if job.spec.backoff_limit_per_index.is_some() {
        let (failures, ignored) = view.delayed.get(&index).map_or((0, 0), |former| {
            let counts = policy::judge(job, former) != Verdict::Ignore;
            (failures_before(former) + i32::from(counts), ignored_failures_before(former) + i32::from(!counts))
        });
        pod.metadata.annotations.insert(FAILURE_COUNT.to_owned(), failures.to_string());
        if ignored > 0 {
            pod.metadata.annotations.insert(IGNORED_FAILURE_COUNT.to_owned(), ignored.to_string());
        }
    }
    pod
}

fn add_index_variable(container: &mut api::core::v1::Container) {
    use api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
    if container.env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field_path = format!("metadata.labels['{COMPLETION_INDEX}']");
    let field = ObjectFieldSelector { field_path, ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    container.env.push(EnvVar { name: INDEX_VARIABLE.to_owned(), value_from: Some(source), ..EnvVar::default() });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
