//! StatefulSets.

use api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use api::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume, VolumeSource};

use super::{is_new, options, template_warnings};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::core::claim::{self, ClaimOptions};
use crate::validation::pod::{self, Options, warnings};
use crate::validation::workload::{self, at_most, counters};
use crate::validation::{Change, Errors, Path, checks, labels, names, shown};

/// What is not looked at.
#[derive(Clone, Copy)]
struct Skip {
    /// What never changes, and so may be as it was when the rules were others.
    kept: bool,
    /// The template, which was not valid before.
    template: bool,
}

pub fn stateful_set(change: &Change<'_, StatefulSet>, errors: &mut Errors) {
    let new = change.new;
    let path = change.path("spec");
    if change.part == Part::Status {
        status(&new.status, errors);
        if let Some(old) = change.old {
            let counts = (new.status.collision_count, old.status.collision_count);
            workload::growing_collisions(&Path::root("status"), counts.0, counts.1, errors);
        }
        return;
    }
    let options = options(change.old.map(|old| &old.spec.template), change.context);
    let Some(old) = change.old else {
        return spec(&path, &new.spec, (options, Skip { kept: false, template: false }), errors);
    };
    let mut before = Errors::new();
    spec(&path, &old.spec, (options, Skip { kept: true, template: false }), &mut before);
    spec(&path, &new.spec, (options, Skip { kept: true, template: !before.is_empty() }), errors);
    let changeable = |spec: &StatefulSetSpec| StatefulSetSpec {
        replicas: None,
        template: PodTemplateSpec::default(),
        update_strategy: Default::default(),
        min_ready_seconds: 0,
        ordinals: None,
        revision_history_limit: None,
        persistent_volume_claim_retention_policy: None,
        ..spec.clone()
    };
    if changeable(&new.spec) != changeable(&old.spec) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(path, why));
    }
}

pub fn stateful_set_warnings(change: &Change<'_, StatefulSet>, out: &mut Vec<String>) {
    if change.part == Part::Status {
        return;
    }
    let spec = &change.new.spec;
    if is_new(&change.new.metadata, change.old.map(|old| &old.metadata)) {
        template_warnings(&spec.template, out);
    }
    let path = Path::root("spec");
    let path = path.child("volumeClaimTemplates");
    for (i, claim) in spec.volume_claim_templates.iter().enumerate() {
        let at = path.index(i);
        let at = if change.old.is_some() { at.child("Spec") } else { at };
        warnings::claim(&at, &claim.spec, out);
    }
    if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
        let why =
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
        out.push(why.to_owned());
    }
}

fn spec(path: &Path<'_>, spec: &StatefulSetSpec, (options, skip): (Options, Skip), errors: &mut Errors) {
    policies(path, spec, errors);
    if !skip.kept {
        for (i, template) in spec.volume_claim_templates.iter().enumerate() {
            let at = path.child("volumeClaimTemplates");
            claim::spec(&at.index(i).child("spec"), &template.spec, ClaimOptions::default(), errors);
        }
    }
    checks::non_negative(&path.child("replicas"), spec.replicas.unwrap_or(0), errors);
    checks::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, errors);
    if let Some(ordinals) = &spec.ordinals {
        checks::non_negative(&path.child("ordinals.start"), ordinals.start, errors);
    }
    if !skip.kept && !spec.service_name.is_empty() {
        let name = &spec.service_name;
        checks::text(&path.child("serviceName"), name, names::dns1123_label(name), errors);
    }
    let selector = spec.selector.as_ref();
    workload::selector(&path.child("selector"), selector, "statefulset", errors);
    let at = path.child("template");
    match workload::usable(selector) {
        None => {
            errors.push(FieldError::invalid(path.child("selector"), workload::shown_selector(selector), ""));
        }
        Some(usable) => {
            workload::labels_match(&at, &spec.template, &usable, errors);
            let template = as_used(spec);
            if !skip.template {
                pod::template(&at, &template, options, errors);
            }
            // These are looked at once more.
            labels::labels(&at.child("labels"), &template.metadata.labels, errors);
            pod::template_annotations(&at, &template, options, errors);
        }
    }
    workload::always_running(&at, &spec.template, "StatefulSet", errors);
}

/// The template with what Pods get from the set: names of their own, and volumes for the claims made for them.
fn as_used(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    template.spec.subdomain.clear();
    template.spec.hostname.clear();
    let claims = &spec.volume_claim_templates;
    let made = claims
        .iter()
        .enumerate()
        .filter(|(i, claim)| !claims.iter().skip(i + 1).any(|later| later.metadata.name == claim.metadata.name));
    let volume = |name: &String| Volume {
        name: name.clone(),
        volume_source: VolumeSource {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        },
    };
    let mut volumes: Vec<Volume> = made.map(|(_, claim)| volume(&claim.metadata.name)).collect();
    let own = template.spec.volumes.drain(..).filter(|v| !claims.iter().any(|c| c.metadata.name == v.name));
    volumes.extend(own);
    template.spec.volumes = volumes;
    template
}

fn policies(path: &Path<'_>, spec: &StatefulSetSpec, errors: &mut Errors) {
    let (at, policy) = (path.child("podManagementPolicy"), &spec.pod_management_policy);
    match policy.as_str() {
        "" => errors.push(FieldError::required(at, "")),
        "OrderedReady" | "Parallel" => {}
        _ => {
            let why = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(at, shown::word(policy), why));
        }
    }
    let (at, strategy) = (path.child("updateStrategy"), &spec.update_strategy);
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("", _) => errors.push(FieldError::required(at, "")),
        ("OnDelete", Some(update)) => {
            let shown = shown::structure("k8s.io.api.apps.v1.RollingUpdateStatefulSetStrategy", update);
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(at.child("rollingUpdate"), shown, why));
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(update)) => rolling_update(&at.child("rollingUpdate"), update, errors),
        _ => {
            let shown = shown::structure("k8s.io.api.apps.v1.StatefulSetUpdateStrategy", strategy);
            errors.push(FieldError::invalid(at, shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (name, policy) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            checks::supported(&path.child(name), policy, &["Retain", "Delete"], errors);
        }
    }
}

fn rolling_update(path: &Path<'_>, update: &RollingUpdateStatefulSetStrategy, errors: &mut Errors) {
    checks::non_negative(&path.child("partition"), update.partition.unwrap_or(0), errors);
    let Some(unavailable) = &update.max_unavailable else { return };
    let path = path.child("maxUnavailable");
    workload::number_or_percent(&path, unavailable, errors);
    if workload::is_nothing(unavailable) {
        errors.push(FieldError::invalid(path, workload::shown_number(unavailable), "cannot be 0"));
    }
    workload::not_more_than_all(&path, unavailable, errors);
}

fn status(status: &StatefulSetStatus, errors: &mut Errors) {
    let path = Path::root("status");
    let numbers = [
        ("replicas", status.replicas.into()),
        ("readyReplicas", status.ready_replicas.into()),
        ("currentReplicas", status.current_replicas.into()),
        ("updatedReplicas", status.updated_replicas.into()),
        ("availableReplicas", status.available_replicas.into()),
        ("observedGeneration", status.observed_generation),
        ("collisionCount", status.collision_count.unwrap_or(0).into()),
    ];
    counters(&path, &numbers, errors);
    let numbers = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    at_most(&path, &numbers, (status.replicas, "cannot be greater than status.replicas"), errors);
    let available = [("availableReplicas", status.available_replicas)];
    at_most(&path, &available, (status.ready_replicas, "cannot be greater than status.readyReplicas"), errors);
}
