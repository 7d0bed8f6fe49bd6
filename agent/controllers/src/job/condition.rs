//! Conditions of jobs.

use api::batch::v1::{Job, JobCondition};
use api::meta::v1::Time;

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
/// The job is going to fail; its pods are still ending.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
/// The job is going to succeed; its pods are still ending.
pub(super) const SUCCESS_MET: &str = "SuccessCriteriaMet";
pub(super) const SUSPENDED: &str = "Suspended";

/// A condition that holds from now on.
pub(super) fn made(kind: &str, reason: &str, message: &str, now: i64) -> JobCondition {
    JobCondition {
        r#type: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_probe_time: Time::from_unix(now),
        last_transition_time: Time::from_unix(now),
    }
}

/// The same reason under another type.
pub(super) fn turned(condition: &JobCondition, kind: &str, now: i64) -> JobCondition {
    made(kind, &condition.reason, &condition.message, now)
}

pub(super) fn find<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    job.status.conditions.iter().find(|c| c.r#type == kind)
}

/// Whether the job has ended.
pub(super) fn is_finished(job: &Job) -> bool {
    finished_at(job).is_some()
}

/// Whether the job has ended well.
pub(crate) fn is_complete(job: &Job) -> bool {
    find(job, COMPLETE).is_some_and(|c| c.status == "True")
}

/// When the job ended.
pub(crate) fn finished_at(job: &Job) -> Option<i64> {
    let ended = |c: &&JobCondition| (c.r#type == COMPLETE || c.r#type == FAILED) && c.status == "True";
    job.status.conditions.iter().find(ended).map(|c| c.last_transition_time.unix().unwrap_or(0))
}

/// Sets a condition; one that does not hold is not added anew. Whether that changed anything.
pub(super) fn set(job: &mut Job, wanted: JobCondition) -> bool {
    match job.status.conditions.iter_mut().find(|c| c.r#type == wanted.r#type) {
        Some(c) if c.status == wanted.status && c.reason == wanted.reason && c.message == wanted.message => false,
        Some(place) => {
            *place = wanted;
            true
        }
        None if wanted.status == "False" => false,
        None => {
            job.status.conditions.push(wanted);
            true
        }
    }
}
