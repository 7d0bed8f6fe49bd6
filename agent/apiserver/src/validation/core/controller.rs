//! ReplicationControllers, and templates of Pods by themselves.

use api::core::v1::{PodTemplate, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus};
use api::labels::Selector;

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::pod::{self, Options, warnings};
use crate::validation::workload::{self, at_most, counters};
use crate::validation::{Change, Errors, Path, checks};

pub fn pod_template(change: &Change<'_, PodTemplate>, errors: &mut Errors) {
    let features = change.context.features;
    let options = Options::of(change.old.map(|old| (&old.template.spec, &old.template.metadata)), features);
    pod::template(&Path::root("template"), &change.new.template, options, errors);
}

pub fn pod_template_warnings(change: &Change<'_, PodTemplate>, out: &mut Vec<String>) {
    if change.old.is_none_or(|old| old.metadata.generation != change.new.metadata.generation) {
        warnings::template(&Path::root("template"), &change.new.template, out);
    }
}

pub fn replication_controller(change: &Change<'_, ReplicationController>, errors: &mut Errors) {
    if change.part == Part::Status {
        return status(&change.new.status, errors);
    }
    let old = change.old.and_then(|old| old.spec.template.as_ref());
    let options = Options::of(old.map(|old| (&old.spec, &old.metadata)), change.context.features);
    spec(&change.path("spec"), &change.new.spec, options, errors);
}

pub fn replication_controller_warnings(change: &Change<'_, ReplicationController>, out: &mut Vec<String>) {
    let new = change.new;
    if change.part == Part::Status || change.old.is_some_and(|old| old.metadata.generation == new.metadata.generation) {
        return;
    }
    if change.old.is_none() {
        warnings::name_for_pods(&new.metadata.name, out);
    }
    // Of a changed one it is the old template that is looked at.
    if let Some(template) = &change.old.unwrap_or(new).spec.template {
        warnings::template(&Path::root("spec").child("template"), template, out);
    }
}

fn spec(path: &Path<'_>, spec: &ReplicationControllerSpec, options: Options, errors: &mut Errors) {
    checks::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, errors);
    if spec.selector.is_empty() {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
    match spec.replicas {
        None => errors.push(FieldError::required(path.child("replicas"), "")),
        Some(replicas) => checks::non_negative(&path.child("replicas"), replicas, errors),
    }
    let at = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(FieldError::required(at, ""));
        return;
    };
    workload::labels_match(&at, template, &Selector::from_map(&spec.selector), errors);
    workload::running_template(&at, template, ("ReplicationController", options), errors);
}

fn status(status: &ReplicationControllerStatus, errors: &mut Errors) {
    let path = Path::root("status");
    let numbers = [
        ("replicas", status.replicas.into()),
        ("fullyLabeledReplicas", status.fully_labeled_replicas.into()),
        ("readyReplicas", status.ready_replicas.into()),
        ("availableReplicas", status.available_replicas.into()),
        ("observedGeneration", status.observed_generation),
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
