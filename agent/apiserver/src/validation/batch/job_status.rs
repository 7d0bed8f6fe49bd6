//! What is said of a Job.

use api::batch::v1::{Job, JobCondition, JobStatus};
use api::meta::v1::Time;

use super::indexes;
use crate::status::{FieldError, Shown};
use crate::validation::workload::counters;
use crate::validation::{Errors, Path, shown};

const TIME: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.Time";

/// Whether a condition holds.
pub(super) fn is_true(conditions: &[JobCondition], kind: &str) -> bool {
    conditions.iter().any(|c| c.r#type == kind && c.status == "True")
}

fn is_false(conditions: &[JobCondition], kind: &str) -> bool {
    conditions.iter().any(|c| c.r#type == kind && c.status == "False")
}

/// A state of a Job: what its conditions say.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "conditions hold or not, each by itself")]
struct State {
    complete: bool,
    failed: bool,
    success: bool,
    failing: bool,
}

impl State {
    fn of(status: &JobStatus) -> Self {
        let holds = |kind| is_true(&status.conditions, kind);
        Self {
            complete: holds("Complete"),
            failed: holds("Failed"),
            success: holds("SuccessCriteriaMet"),
            failing: holds("FailureTarget"),
        }
    }

    fn finished(self) -> bool {
        self.complete || self.failed
    }
}

/// A Job before and after.
struct Update<'a> {
    new: &'a Job,
    old: &'a Job,
    now: State,
    before: State,
}

/// A change of a Job's status. Rules hold where what they speak of changed.
pub(super) fn status(new: &Job, old: &Job, errors: &mut Errors) {
    let update = Update { new, old, now: State::of(&new.status), before: State::of(&old.status) };
    let path = Path::root("status");
    numbers(&path, &new.status, errors);
    uncounted(&path.child("uncountedTerminatedPods"), &new.status, errors);
    conditions(&path, &update, errors);
    times(&path, &update, errors);
    reasons(&path, &update, errors);
    finished(&path, &update, errors);
    index_lists(&path, &update, errors);
    rest(&path, &update, errors);
    success(&path, &update, errors);
    transitions(&path, &update, errors);
}

fn numbers(path: &Path<'_>, status: &JobStatus, errors: &mut Errors) {
    let numbers = [
        ("active", status.active.into()),
        ("succeeded", status.succeeded.into()),
        ("failed", status.failed.into()),
        ("ready", status.ready.unwrap_or(0).into()),
        ("terminating", status.terminating.unwrap_or(0).into()),
    ];
    counters(path, &numbers, errors);
}

fn uncounted(path: &Path<'_>, status: &JobStatus, errors: &mut Errors) {
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let mut seen: Vec<&str> = Vec::new();
    for (name, list) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in list.iter().enumerate() {
            let path = path.child(name);
            if uid.is_empty() {
                errors.push(FieldError::invalid(path.index(i), uid, "must not be empty"));
            } else if seen.contains(&uid.as_str()) {
                errors.push(FieldError::duplicate(path.index(i), uid));
            } else {
                seen.push(uid);
            }
        }
    }
}

fn tell(path: &Path<'_>, rules: &[(bool, &str)], errors: &mut Errors) {
    for (_, why) in rules.iter().filter(|(broken, _)| *broken) {
        errors.push(FieldError::invalid_omitted(path.child("conditions"), *why));
    }
}

fn conditions(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (now, before) = (update.now, update.before);
    let complete_changed = now.complete != before.complete;
    let rules = [
        (
            (complete_changed || now.failed != before.failed) && now.complete && now.failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            (complete_changed || now.failing != before.failing) && now.complete && now.failing,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
    ];
    tell(path, &rules, errors);
}

fn shown_time(time: Option<&Time>) -> Shown {
    shown::optional(TIME, time)
}

fn times(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (status, old) = (&update.new.status, &update.old.status);
    let (start, end) = (status.start_time.as_ref(), status.completion_time.as_ref());
    let end_changed = status.completion_time != old.completion_time;
    let at = path.child("completionTime");
    if update.now.complete != update.before.complete || end_changed {
        if end.is_some() && !update.now.complete {
            let why = "cannot set completionTime when there is no Complete=True condition";
            errors.push(FieldError::invalid(at, shown_time(end), why));
        }
        if end.is_none() && update.now.complete {
            errors.push(FieldError::required(at, "completionTime is required for Complete jobs"));
        }
    }
    if (status.start_time != old.start_time || end_changed)
        && let (Some(start), Some(end)) = (start, end)
        && (end.seconds, end.nanos) < (start.seconds, start.nanos)
    {
        errors.push(FieldError::invalid(at, shown_time(Some(end)), "must be equal to or after `startTime`"));
    }
}

/// A Job ends for a reason that was told before.
fn reasons(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (now, before) = (update.now, update.before);
    let failed_indexes_changed = update.new.status.failed_indexes != update.old.status.failed_indexes;
    let rules = [
        (
            (now.failed != before.failed || failed_indexes_changed) && now.failed && !now.failing,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (now.complete != before.complete || now.success != before.success) && now.complete && !now.success,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
    ];
    tell(path, &rules, errors);
}

fn finished(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (spec, status, old) = (&update.new.spec, &update.new.status, &update.old.status);
    if !update.now.finished() {
        return;
    }
    let changed = !update.before.finished();
    if (changed || status.active != old.active) && status.active > 0 {
        errors.push(FieldError::invalid(path.child("active"), status.active, "active>0 is invalid for finished job"));
    }
    let nothing_to_do = spec.suspend == Some(true) && spec.completions == Some(0);
    if (changed || status.start_time != old.start_time) && !nothing_to_do && status.start_time.is_none() {
        errors.push(FieldError::required(path.child("startTime"), "startTime is required for finished job"));
    }
    let pods = status.uncounted_terminated_pods.as_ref();
    if (changed || status.uncounted_terminated_pods != old.uncounted_terminated_pods)
        && let Some(pods) = pods.filter(|p| !p.failed.is_empty() || !p.succeeded.is_empty())
    {
        let shown = shown::structure("k8s.io.api.batch.v1.UncountedTerminatedPods", pods);
        let at = path.child("uncountedTerminatedPods");
        errors.push(FieldError::invalid(at, shown, "must be empty for finished job"));
    }
}

fn index_lists(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (spec, status, old) = (&update.new.spec, &update.new.status, &update.old.status);
    let (completed, failed) = (&status.completed_indexes, status.failed_indexes.as_ref());
    let completed_changed = *completed != old.completed_indexes;
    let failed_changed = status.failed_indexes != old.failed_indexes;
    let (at_completed, at_failed) = (path.child("completedIndexes"), path.child("failedIndexes"));
    if let Some(completions) = spec.completions {
        if completed_changed && let Err(why) = indexes::count(completed, completions) {
            errors.push(FieldError::invalid(at_completed, completed, format!("error parsing completedIndexes: {why}")));
        }
        if failed_changed
            && spec.backoff_limit_per_index.is_some()
            && let Some(failed) = failed
            && let Err(why) = indexes::count(failed, completions)
        {
            errors.push(FieldError::invalid(at_failed, failed, format!("error parsing failedIndexes: {why}")));
        }
    }
    if completed_changed && !completed.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(at_completed, completed, why));
    }
    let Some(failed) = failed else { return };
    if failed_changed && spec.backoff_limit_per_index.is_none() {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(at_failed, failed, why));
    }
    if (failed_changed || completed_changed)
        && let Some(completions) = spec.completions
        && let Some(index) = indexes::first_common(completed, failed, completions)
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(at_failed, failed, why));
    }
}

fn rest(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (status, old) = (&update.new.status, &update.old.status);
    let changed = update.now.finished() != update.before.finished() || status.terminating != old.terminating;
    if let Some(count) = status.terminating.filter(|count| changed && *count > 0 && update.now.finished()) {
        let why = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid(path.child("terminating"), count, why));
    }
    let changed = status.ready != old.ready || status.active != old.active;
    if let Some(ready) = status.ready.filter(|ready| changed && *ready > status.active) {
        errors.push(FieldError::invalid(path.child("ready"), ready, "cannot set more ready pods than active"));
    }
}

fn success(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let now = update.now;
    let rules = [
        (now.success && now.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (now.success && now.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            update.new.spec.success_policy.is_some() && !now.success && now.complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ];
    tell(path, &rules, errors);
}

/// What does not go back.
fn transitions(path: &Path<'_>, update: &Update<'_>, errors: &mut Errors) {
    let (now, before) = (update.now, update.before);
    let (spec, status, old) = (&update.new.spec, &update.new.status, &update.old.status);
    let rules = [
        (before.failed && !now.failed, "cannot disable the terminal Failed=True condition"),
        (before.complete && !now.complete, "cannot disable the terminal Complete=True condition"),
        (before.failing && !now.failing, "cannot disable the terminal FailureTarget=True condition"),
    ];
    tell(path, &rules, errors);
    if status.failed < old.failed {
        errors.push(FieldError::invalid(path.child("failed"), status.failed, "cannot decrease the failed counter"));
    }
    let elastic = spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
    if status.succeeded < old.succeeded && !elastic {
        let why = "cannot decrease the succeeded counter";
        errors.push(FieldError::invalid(path.child("succeeded"), status.succeeded, why));
    }
    let (end, start) = (status.completion_time.as_ref(), status.start_time.as_ref());
    if end.is_some() && old.completion_time.is_some() && status.completion_time != old.completion_time {
        errors.push(FieldError::invalid(path.child("completionTime"), shown_time(end), "field is immutable"));
    }
    let resuming = is_true(&old.conditions, "Suspended") && is_false(&status.conditions, "Suspended");
    let started = old.start_time.is_some() && status.start_time != old.start_time;
    if started && !resuming && spec.suspend != Some(true) {
        let why = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid(path.child("startTime"), shown_time(start), why));
    }
    let rules = [
        (before.success && !now.success, "cannot disable the SuccessCriteriaMet=True condition"),
        (
            before.complete && !before.success && now.success,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ];
    tell(path, &rules, errors);
}
