//! PersistentVolumeClaims.

use std::collections::BTreeMap;

use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};

use super::claim::{self, ClaimOptions};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::labels::SelectorOptions;
use crate::validation::{Change, Errors, Path, checks, diff, names, resources, shown};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE: &str = "storage";
const RESIZES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub fn persistent_volume_claim(change: &Change<'_, PersistentVolumeClaim>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    if change.part == Part::Status {
        return changed_status(new, errors);
    }
    let had_group = |spec: &PersistentVolumeClaimSpec| {
        let source = spec.data_source.as_ref().is_some_and(|s| s.api_group.is_some());
        source || spec.data_source_ref.as_ref().is_some_and(|s| s.api_group.is_some())
    };
    let selector = SelectorOptions::after(old.and_then(|old| old.spec.selector.as_ref()));
    let options = ClaimOptions {
        allow_invalid_groups: old.is_some_and(|old| had_group(&old.spec)),
        allow_invalid_values: selector.allow_invalid_values,
    };
    claim::spec(&SPEC, &new.spec, options, errors);
    if let Some(old) = old {
        updated(&change.path("spec"), (new, old), errors);
    }
}

fn updated(path: &Path<'_>, (new, old): (&PersistentVolumeClaim, &PersistentVolumeClaim), errors: &mut Errors) {
    let (mut after, mut before) = (new.spec.clone(), old.spec.clone());
    if old.spec.volume_name.is_empty() {
        before.volume_name.clone_from(&after.volume_name);
    }
    storage_class(new, old, &mut after, errors);
    if new.status.phase == "Bound" {
        if !after.resources.requests.is_empty() {
            let size = old.spec.resources.requests.get(STORAGE).cloned().unwrap_or_default();
            after.resources.requests.insert(STORAGE.into(), size);
        }
        after.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
    }
    if after != before {
        const NAME: &str = "k8s.io.api.core.v1.PersistentVolumeClaimSpec";
        let text = |spec: &PersistentVolumeClaimSpec, given| shown::indented(&shown::text(NAME, spec, given));
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            diff::unified(&text(&before, None), &text(&after, path.given()))
        );
        errors.push(FieldError::forbidden("spec", why));
    }
    let size = |amounts: &resources::Amounts| amounts.get(STORAGE).map(checks::amount);
    let nothing = checks::amount(&api::Quantity::default());
    let sizes = [&new.spec.resources.requests, &old.spec.resources.requests, &old.status.capacity];
    let [wanted, asked, has] = sizes.map(|amounts| size(amounts).unwrap_or(nothing));
    if wanted < asked && wanted <= has {
        let path = SPEC.child("resources");
        let path = path.child("requests");
        errors.push(FieldError::forbidden(path.child(STORAGE), "field can not be less than status.capacity"));
    }
    if new.spec.volume_mode != old.spec.volume_mode {
        let value = shown::optional_text(new.spec.volume_mode.as_ref());
        errors.push(FieldError::invalid("volumeMode", value, checks::IMMUTABLE));
    }
    let class = &new.spec.volume_attributes_class_name;
    if *class != old.spec.volume_attributes_class_name
        && old.status.current_volume_attributes_class_name.is_some()
        && class.as_ref().is_none_or(String::is_empty)
    {
        let what = if class.is_none() { "nil" } else { "empty string" };
        let why = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(FieldError::forbidden(SPEC.child("volumeAttributesClassName"), why));
    }
}

/// A class may move from the annotation to its field, or be set where none was.
fn storage_class(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    after: &mut PersistentVolumeClaimSpec,
    errors: &mut Errors,
) {
    let annotation = |claim: &'_ PersistentVolumeClaim| claim.metadata.annotations.get(CLASS).cloned();
    let (noted, noted_now) = (annotation(old), annotation(new));
    let is_first = old.spec.storage_class_name.is_none();
    let class = new.spec.storage_class_name.as_ref();
    let moves = noted.is_some()
        && is_first
        && class == noted.as_ref()
        && noted_now.as_ref().is_none_or(|now| Some(now) == noted.as_ref());
    if moves {
        after.storage_class_name = None;
        return;
    }
    let text = |annotation: &Option<String>| annotation.clone().unwrap_or_default();
    if text(&noted) != text(&noted_now) {
        let path = Path::root("metadata");
        let path = path.child("annotations");
        errors.push(FieldError::invalid(path.key(CLASS), text(&noted_now), checks::IMMUTABLE));
    }
    if let Some(class) = class
        && is_first
        && noted.as_ref().is_none_or(|noted| noted == class)
    {
        after.storage_class_name = None;
    }
}

fn changed_status(new: &PersistentVolumeClaim, errors: &mut Errors) {
    if new.spec.access_modes.is_empty() {
        errors.push(FieldError::required("Spec.accessModes", ""));
    }
    let path = STATUS.child("capacity");
    for (name, quantity) in &new.status.capacity {
        resources::basic(&path.key(name), quantity, errors);
    }
    allocated(&new.status, errors);
}

fn allocated(status: &PersistentVolumeClaimStatus, errors: &mut Errors) {
    let path = STATUS.child("allocatedResourceStatuses");
    let statuses: &BTreeMap<String, String> = &status.allocated_resource_statuses;
    for (name, value) in statuses {
        resource_key(&path, name, errors);
        if !RESIZES.contains(&value.as_str()) {
            errors.push(FieldError::not_supported(path, shown::word(name), RESIZES));
        }
    }
    let path = STATUS.child("allocatedResources");
    for (name, quantity) in &status.allocated_resources {
        let told = errors.len();
        resource_key(&path, name, errors);
        if errors.len() > told {
            continue;
        }
        resources::basic(&path.key(name), quantity, errors);
        if errors.len() == told {
            resources::quantity_value(&path.key(name), STORAGE, quantity, errors);
        }
    }
}

fn resource_key(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let complaints = names::qualified(name);
    if !complaints.is_empty() {
        checks::text(path, name, complaints, errors);
    } else if resources::is_native(name) && name != STORAGE {
        errors.push(FieldError::not_supported(path, name, &[STORAGE]));
    }
}
