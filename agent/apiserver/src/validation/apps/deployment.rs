//! Deployments.

use api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};

use super::{is_new, options, template_warnings};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::pod::{Options, warnings};
use crate::validation::workload::{self, at_most, counters};
use crate::validation::{Change, Errors, Path, checks, shown};

pub fn deployment(change: &Change<'_, Deployment>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        status(&new.status, errors);
        if let Some(old) = change.old {
            let counts = (new.status.collision_count, old.status.collision_count);
            workload::growing_collisions(&Path::root("status"), counts.0, counts.1, errors);
        }
        return;
    }
    spec(&change.path("spec"), &new.spec, options(change.old.map(|old| &old.spec.template), change.context), errors);
    if let Some(old) = change.old {
        workload::same_selector(new.spec.selector.as_ref(), old.spec.selector.as_ref(), errors);
    }
}

pub fn deployment_warnings(change: &Change<'_, Deployment>, out: &mut Vec<String>) {
    if change.part == Part::Status || !is_new(&change.new.metadata, change.old.map(|old| &old.metadata)) {
        return;
    }
    if change.old.is_none() {
        warnings::name_for_pods(&change.new.metadata.name, out);
    }
    template_warnings(&change.new.spec.template, out);
}

fn spec(path: &Path<'_>, spec: &DeploymentSpec, options: Options, errors: &mut Errors) {
    checks::non_negative(&path.child("replicas"), spec.replicas.unwrap_or(0), errors);
    super::selected(path, (spec.selector.as_ref(), &spec.template), options, errors);
    strategy(&path.child("strategy"), &spec.strategy, errors);
    checks::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, errors);
    checks::non_negative_if_set(&path.child("revisionHistoryLimit"), spec.revision_history_limit, errors);
    if let Some(seconds) = spec.progress_deadline_seconds {
        let path = path.child("progressDeadlineSeconds");
        checks::non_negative(&path, seconds, errors);
        if seconds <= spec.min_ready_seconds {
            errors.push(FieldError::invalid(path, seconds, "must be greater than minReadySeconds"));
        }
    }
}

fn strategy(path: &Path<'_>, strategy: &DeploymentStrategy, errors: &mut Errors) {
    let at = path.child("rollingUpdate");
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.push(FieldError::forbidden(at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(FieldError::required(at, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(update)) => {
            let (unavailable, surge) =
                (update.max_unavailable.clone().unwrap_or_default(), update.max_surge.clone().unwrap_or_default());
            let (at_unavailable, at_surge) = (at.child("maxUnavailable"), at.child("maxSurge"));
            workload::number_or_percent(&at_unavailable, &unavailable, errors);
            workload::number_or_percent(&at_surge, &surge, errors);
            if workload::is_nothing(&unavailable) && workload::is_nothing(&surge) {
                let shown = workload::shown_number(&unavailable);
                errors.push(FieldError::invalid(at_unavailable, shown, "may not be 0 when `maxSurge` is 0"));
            }
            workload::not_more_than_all(&at_unavailable, &unavailable, errors);
        }
        _ => {
            let shown = shown::structure("k8s.io.api.apps.v1.DeploymentStrategy", strategy);
            errors.push(FieldError::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn status(status: &DeploymentStatus, errors: &mut Errors) {
    let path = Path::root("status");
    let numbers = [
        ("observedGeneration", status.observed_generation),
        ("replicas", status.replicas.into()),
        ("updatedReplicas", status.updated_replicas.into()),
        ("readyReplicas", status.ready_replicas.into()),
        ("availableReplicas", status.available_replicas.into()),
        ("unavailableReplicas", status.unavailable_replicas.into()),
        ("terminatingReplicas", status.terminating_replicas.unwrap_or(0).into()),
        ("collisionCount", status.collision_count.unwrap_or(0).into()),
    ];
    counters(&path, &numbers, errors);
    let numbers = [
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    at_most(&path, &numbers, (status.replicas, "cannot be greater than status.replicas"), errors);
    let available = [("availableReplicas", status.available_replicas)];
    at_most(&path, &available, (status.ready_replicas, "cannot be greater than readyReplicas"), errors);
}
