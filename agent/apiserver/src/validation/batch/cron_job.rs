//! CronJobs.

use api::batch::v1::{CronJob, CronJobSpec};

use super::{job, schedule};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::pod::{Options, warnings};
use crate::validation::{Change, Context, Errors, Path, checks, workload};

/// Longest name that leaves room for the time in the names of Jobs.
const MAX_NAME: usize = 52;

pub fn cron_job(change: &Change<'_, CronJob>, errors: &mut Errors) {
    if change.part == Part::Status {
        return;
    }
    let new = change.new;
    let old = change.old.map(|old| &old.spec);
    spec(&change.path("spec"), (&new.spec, old), change.context, errors);
    if old.is_none() && new.metadata.name.len() > MAX_NAME {
        let why = format!("must be no more than {MAX_NAME} characters");
        errors.push(FieldError::invalid("metadata.name", &new.metadata.name, why));
    }
}

pub fn cron_job_warnings(change: &Change<'_, CronJob>, out: &mut Vec<String>) {
    let (new, old) = (change.new, change.old);
    if change.part == Part::Status {
        return;
    }
    if old.is_none() {
        warnings::name_for_pods(&new.metadata.name, out);
    }
    if old.is_none_or(|old| old.metadata.generation != new.metadata.generation) {
        let path = Path::root("spec");
        let path = path.child("jobTemplate");
        job::spec_warnings(&path.child("spec"), &new.spec.job_template.spec, out);
    }
    if old.is_some() && new.spec.schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
        out.push(why.to_owned());
    }
}

fn spec(path: &Path<'_>, (spec, old): (&CronJobSpec, Option<&CronJobSpec>), context: Context<'_>, errors: &mut Errors) {
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        let had_zone = old.is_some_and(|old| old.schedule.contains("TZ"));
        schedule::schedule(&at, &spec.schedule, (had_zone, spec.time_zone.is_some()), errors);
    }
    checks::non_negative_if_set(&path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds, errors);
    if old.is_none_or(|old| old.time_zone != spec.time_zone)
        && let Some(zone) = &spec.time_zone
    {
        schedule::time_zone(&path.child("timeZone"), zone, errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    checks::one_of(&path.child("concurrencyPolicy"), &spec.concurrency_policy, &policies, errors);
    template(&path.child("jobTemplate"), (spec, old), context, errors);
    checks::non_negative_if_set(&path.child("successfulJobsHistoryLimit"), spec.successful_jobs_history_limit, errors);
    checks::non_negative_if_set(&path.child("failedJobsHistoryLimit"), spec.failed_jobs_history_limit, errors);
}

fn template(
    path: &Path<'_>,
    (spec, old): (&CronJobSpec, Option<&CronJobSpec>),
    context: Context<'_>,
    errors: &mut Errors,
) {
    let old = old.map(|old| &old.job_template.spec.template);
    let options = Options::of(old.map(|old| (&old.spec, &old.metadata)), context.features);
    let (path, own) = (path.child("spec"), &spec.job_template.spec);
    job::spec(&path, own, options, errors);
    if own.selector.is_some() {
        let shown = workload::shown_selector(own.selector.as_ref());
        errors.push(FieldError::invalid(path.child("selector"), shown, "`selector` will be auto-generated"));
    }
    if own.manual_selector == Some(true) {
        let shown = crate::status::Shown::from(true);
        errors.push(FieldError::not_supported(path.child("manualSelector"), shown, &["nil", "false"]));
    }
}
