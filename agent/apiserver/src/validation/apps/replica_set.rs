//! ReplicaSets.

use api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};

use super::{is_new, options, template_warnings};
use crate::strategy::Part;
use crate::validation::pod::{Options, warnings};
use crate::validation::workload::{self, at_most, counters};
use crate::validation::{Change, Errors, Path, checks};

pub fn replica_set(change: &Change<'_, ReplicaSet>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        return status(&new.status, errors);
    }
    spec(&change.path("spec"), &new.spec, options(change.old.map(|old| &old.spec.template), change.context), errors);
    if let Some(old) = change.old {
        workload::same_selector(new.spec.selector.as_ref(), old.spec.selector.as_ref(), errors);
    }
}

pub fn replica_set_warnings(change: &Change<'_, ReplicaSet>, out: &mut Vec<String>) {
    if change.part == Part::Status || !is_new(&change.new.metadata, change.old.map(|old| &old.metadata)) {
        return;
    }
    if change.old.is_none() {
        warnings::name_for_pods(&change.new.metadata.name, out);
    }
    template_warnings(&change.new.spec.template, out);
}

fn spec(path: &Path<'_>, spec: &ReplicaSetSpec, options: Options, errors: &mut Errors) {
    checks::non_negative(&path.child("replicas"), spec.replicas.unwrap_or(0), errors);
    checks::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, errors);
    super::selected(path, (spec.selector.as_ref(), &spec.template), options, errors);
}

fn status(status: &ReplicaSetStatus, errors: &mut Errors) {
    let path = Path::root("status");
    let numbers = [
        ("replicas", status.replicas.into()),
        ("fullyLabeledReplicas", status.fully_labeled_replicas.into()),
        ("readyReplicas", status.ready_replicas.into()),
        ("availableReplicas", status.available_replicas.into()),
        ("observedGeneration", status.observed_generation),
        ("terminatingReplicas", status.terminating_replicas.unwrap_or(0).into()),
    ];
    counters(&path, &numbers, errors);
    let numbers = [
        ("fullyLabeledReplicas", status.fully_labeled_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    at_most(&path, &numbers, (status.replicas, "cannot be greater than status.replicas"), errors);
    let available = [("availableReplicas", status.available_replicas)];
    at_most(&path, &available, (status.ready_replicas, "cannot be greater than readyReplicas"), errors);
}
