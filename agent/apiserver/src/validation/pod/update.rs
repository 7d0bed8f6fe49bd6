//! What of a Pod may change.

use std::collections::BTreeMap;

use api::core::v1::{Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec, Toleration};

use super::{Options, annotations, containers, tolerations};
use crate::status::FieldError;
use crate::tree;
use crate::validation::{Errors, Path, checks, diff, shown};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The change of a Pod by a client that is no subresource's.
pub(super) fn update(path: &Path<'_>, (new, old): (&Pod, &Pod), options: Options, errors: &mut Errors) {
    annotation_updates(new, old, options, errors);
    let (spec, before) = (&new.spec, &old.spec);
    let lists = [
        ("containers", &spec.containers, &before.containers),
        ("initContainers", &spec.init_containers, &before.init_containers),
    ];
    for (name, new, old) in lists {
        if new.len() != old.len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(path.child(name), why));
            return;
        }
        for (i, container) in new.iter().enumerate() {
            let path = path.child(name);
            let path = path.index(i);
            checks::required(&path.child("image"), &container.image, errors);
            containers::trimmed_image(&path, &container.image, errors);
        }
    }
    if !deadline(&path.child("activeDeadlineSeconds"), spec, before, errors) {
        return;
    }
    added_tolerations(&path.child("tolerations"), (&spec.tolerations, &before.tolerations), options, errors);
    removed_gates(&path.child("schedulingGates"), &spec.scheduling_gates, &before.scheduling_gates, errors);
    if spec != before {
        rest(path, spec, before, errors);
    }
}

/// The annotations of a changed Pod.
pub(super) fn annotation_updates(new: &Pod, old: &Pod, options: Options, errors: &mut Errors) {
    let meta = Path::root("metadata");
    let path = meta.child("annotations");
    let (after, before) = (&new.metadata.annotations, &old.metadata.annotations);
    let mut tell = |key: &str, what: &str| {
        if key.starts_with(annotations::APP_ARMOR) {
            errors.push(FieldError::forbidden(path.key(key), format!("may not {what} AppArmor annotations")));
        }
        if key == annotations::MIRROR {
            errors.push(FieldError::forbidden(path.key(key), format!("may not {what} mirror pod annotation")));
        }
    };
    for (key, _) in before.iter().filter(|(key, value)| after.get(*key) != Some(value)) {
        tell(key, "remove or update");
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        tell(key, "add");
    }
    annotations::of_pod(&path, &new.metadata, &new.spec, options, errors);
}

/// Whether the rest is looked at: the deadline may only come nearer.
fn deadline(path: &Path<'_>, new: &PodSpec, old: &PodSpec, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            checks::in_range(path, seconds, (0, i32::MAX.into()), errors);
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.push(FieldError::invalid(path, seconds, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, serde_json::Value::Null, why));
            true
        }
        _ => true,
    }
}

fn added_tolerations(
    path: &Path<'_>,
    (new, old): (&[Toleration], &[Toleration]),
    options: Options,
    errors: &mut Errors,
) {
    let same = |a: &Toleration, b: &Toleration| {
        (&a.key, &a.operator, &a.value, &a.effect) == (&b.key, &b.operator, &b.value, &b.effect)
    };
    if old.iter().all(|before| new.iter().any(|after| same(before, after))) {
        tolerations::tolerations(path, new, options, errors);
    } else {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, why));
    }
}

fn removed_gates(path: &Path<'_>, new: &[PodSchedulingGate], old: &[PodSchedulingGate], errors: &mut Errors) {
    for (i, gate) in new.iter().enumerate().filter(|(_, gate)| !old.contains(gate)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(FieldError::forbidden(path.index(i).child("name"), why));
    }
}

/// What is left when all is put back that may change is as it was.
fn rest(path: &Path<'_>, new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let mut spec = new.clone();
    keep_images(&mut spec.containers, &old.containers);
    keep_images(&mut spec.init_containers, &old.init_containers);
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    spec.tolerations.clone_from(&old.tolerations);
    let grace = old.termination_grace_period_seconds;
    if grace.is_some_and(|seconds| seconds < 0) && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = grace;
    }
    if !old.scheduling_gates.is_empty() {
        gated(path, &mut spec, old, errors);
    }
    if spec != *old {
        let name = "k8s.io.api.core.v1.PodSpec";
        let mut given = path.given().cloned().unwrap_or_default();
        for replaced in ["tolerations", "schedulingGates"] {
            tree::remove(&mut given, replaced);
        }
        let text = |spec: &PodSpec, given| shown::indented(&shown::text(name, spec, given));
        let why = format!("{UPDATABLE}\n{}", diff::unified(&text(old, None), &text(&spec, Some(&given))));
        errors.push(FieldError::forbidden(path, why));
    }
}

fn keep_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

/// As long as a Pod is held back from scheduling, the nodes it may get can become fewer.
fn gated(path: &Path<'_>, spec: &mut PodSpec, old: &PodSpec, errors: &mut Errors) {
    if spec.node_selector != old.node_selector {
        only_more_labels(&path.child("nodeSelector"), &spec.node_selector, &old.node_selector, errors);
        spec.node_selector.clone_from(&old.node_selector);
    }
    let before = old.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let after = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    if before == after {
        return;
    }
    node_affinity(&path.child("affinity").child("nodeAffinity"), after, before, errors);
    match &mut spec.affinity {
        None => spec.affinity = before.map(|b| Affinity { node_affinity: Some(b.clone()), ..Affinity::default() }),
        Some(own) if old.affinity.is_none() && own.pod_affinity.is_none() && own.pod_anti_affinity.is_none() => {
            spec.affinity = None;
        }
        Some(own) => own.node_affinity = before.cloned(),
    }
}

fn only_more_labels(
    path: &Path<'_>,
    new: &BTreeMap<String, String>,
    old: &BTreeMap<String, String>,
    errors: &mut Errors,
) {
    if old.iter().any(|(key, value)| new.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(path, serde_json::json!(new), why));
    }
}

fn node_affinity(path: &Path<'_>, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, errors: &mut Errors) {
    const TERM: &str = "k8s.io.api.core.v1.NodeSelectorTerm";
    let terms = |affinity: Option<&NodeAffinity>| -> Vec<NodeSelectorTerm> {
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|r| r.node_selector_terms.clone()).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    let path = path.child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, shown::structures(TERM, &new), why));
        return;
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        let fewer = new.match_expressions.get(..old.match_expressions.len()) != Some(&old.match_expressions)
            || new.match_fields.get(..old.match_fields.len()) != Some(&old.match_fields);
        // A term without requirements selects nothing, so that any would select more.
        let was_empty = old.match_expressions.is_empty() && old.match_fields.is_empty();
        if fewer || was_empty && new != old {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(path.index(i), shown::structure(TERM, new), why));
        }
    }
}

/// Containers that were added stay as they are.
pub(super) fn ephemeral_containers(new: &Pod, old: &Pod, errors: &mut Errors) {
    if old.metadata.annotations.contains_key(annotations::MIRROR) {
        errors.clear();
        errors.push(FieldError::forbidden("", "static pods do not support ephemeral containers"));
        return;
    }
    let spec = Path::root("spec");
    let path = spec.child("ephemeralContainers");
    for before in &old.spec.ephemeral_containers {
        let name = &before.ephemeral_container_common.name;
        let after = new.spec.ephemeral_containers.iter().rfind(|c| c.ephemeral_container_common.name == *name);
        match after {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(path, why));
            }
            Some(after) if after != before => {
                let text = |c| shown::indented(&shown::text("k8s.io.api.core.v1.EphemeralContainer", c, None));
                let lines = diff::unified(&text(before), &text(after));
                let why = format!("existing ephemeral containers {name:?} may not be changed\n{lines}");
                errors.push(FieldError::forbidden(path, why));
            }
            Some(_) => {}
        }
    }
}
