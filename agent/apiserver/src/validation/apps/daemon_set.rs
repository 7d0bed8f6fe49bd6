//! DaemonSets.

use api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};

use super::{options, template_warnings};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::pod::Options;
use crate::validation::workload::{self, counters};
use crate::validation::{Change, Errors, Path, checks, shown};

pub fn daemon_set(change: &Change<'_, DaemonSet>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        status(&new.status, errors);
        if let Some(old) = change.old {
            let counts = (new.status.collision_count, old.status.collision_count);
            workload::growing_collisions(&Path::root("status"), counts.0, counts.1, errors);
        }
        return;
    }
    let mut options = options(change.old.map(|old| &old.spec.template), change.context);
    if let Some(old) = change.old {
        let selector = old.spec.selector.as_ref();
        options.invalid_selector_values |= selector.is_some_and(labels::has_invalid_values);
        workload::same_selector(new.spec.selector.as_ref(), selector, errors);
    }
    spec(&change.path("spec"), &new.spec, options, errors);
}

pub fn daemon_set_warnings(change: &Change<'_, DaemonSet>, out: &mut Vec<String>) {
    let template = &change.new.spec.template;
    if change.part != Part::Status && change.old.is_none_or(|old| old.spec.template != *template) {
        template_warnings(template, out);
    }
}

fn spec(path: &Path<'_>, spec: &DaemonSetSpec, options: Options, errors: &mut Errors) {
    let (at, at_template) = (path.child("selector"), path.child("template"));
    if let Some(selector) = &spec.selector {
        let allowed =
            SelectorOptions { allow_invalid_values: options.invalid_selector_values, ..SelectorOptions::default() };
        labels::selector(&at, selector, allowed, errors);
    }
    if let Some(usable) = workload::usable(spec.selector.as_ref()) {
        workload::labels_match(&at_template, &spec.template, &usable, errors);
    }
    if let Some(selector) = &spec.selector {
        workload::not_empty(&at, selector, "daemonset", errors);
    }
    workload::running_template(&at_template, &spec.template, ("DaemonSet", options), errors);
    checks::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, errors);
    strategy(&path.child("updateStrategy"), &spec.update_strategy, errors);
    checks::non_negative_if_set(&path.child("revisionHistoryLimit"), spec.revision_history_limit, errors);
}

fn strategy(path: &Path<'_>, strategy: &DaemonSetUpdateStrategy, errors: &mut Errors) {
    let at = path.child("rollingUpdate");
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(FieldError::required(at, "")),
        ("RollingUpdate", Some(update)) => rolling_update(&at, update, errors),
        _ => {
            let shown = shown::structure("k8s.io.api.apps.v1.DaemonSetUpdateStrategy", strategy);
            errors.push(FieldError::not_supported(path, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

fn rolling_update(path: &Path<'_>, update: &RollingUpdateDaemonSet, errors: &mut Errors) {
    let unavailable = update.max_unavailable.clone().unwrap_or_default();
    let surge = update.max_surge.clone().unwrap_or_default();
    let (at_unavailable, at_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    workload::number_or_percent(&at_unavailable, &unavailable, errors);
    workload::number_or_percent(&at_surge, &surge, errors);
    workload::not_more_than_all(&at_unavailable, &unavailable, errors);
    workload::not_more_than_all(&at_surge, &surge, errors);
    match (workload::is_nothing(&unavailable), workload::is_nothing(&surge)) {
        (false, false) => {
            let why = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(at_surge, workload::shown_number(&surge), why));
        }
        (true, true) => errors.push(FieldError::required(at_unavailable, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

fn status(status: &DaemonSetStatus, errors: &mut Errors) {
    let numbers = [
        ("currentNumberScheduled", status.current_number_scheduled.into()),
        ("numberMisscheduled", status.number_misscheduled.into()),
        ("desiredNumberScheduled", status.desired_number_scheduled.into()),
        ("numberReady", status.number_ready.into()),
        ("observedGeneration", status.observed_generation),
        ("updatedNumberScheduled", status.updated_number_scheduled.into()),
        ("numberAvailable", status.number_available.into()),
        ("numberUnavailable", status.number_unavailable.into()),
        ("collisionCount", status.collision_count.unwrap_or(0).into()),
    ];
    counters(&Path::root("status"), &numbers, errors);
}
