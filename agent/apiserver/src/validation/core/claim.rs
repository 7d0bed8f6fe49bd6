//! What claims of storage say: those of their own, and those that are made for a Pod.

use api::core::v1::{
    PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, TypedLocalObjectReference, TypedObjectReference,
};
use api::meta::v1::ObjectMeta;

use crate::status::FieldError;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Errors, Path, checks, names, resources};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What a claim may keep although new ones may not have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaimOptions {
    /// Its selector may have any values.
    pub allow_invalid_values: bool,
    /// The API group of its data source may be any text.
    pub allow_invalid_groups: bool,
}

/// The template of a claim.
pub fn template(path: &Path<'_>, template: &PersistentVolumeClaimTemplate, errors: &mut Errors) {
    template_meta(&path.child("metadata"), &template.metadata, errors);
    spec(&path.child("spec"), &template.spec, ClaimOptions::default(), errors);
}

/// Metadata of a template: only labels and annotations.
pub fn template_meta(path: &Path<'_>, meta: &ObjectMeta, errors: &mut Errors) {
    checks::annotations(&path.child("annotations"), &meta.annotations, errors);
    labels::labels(&path.child("labels"), &meta.labels, errors);
    let fields = [
        ("name", !meta.name.is_empty()),
        ("generateName", !meta.generate_name.is_empty()),
        ("namespace", !meta.namespace.is_empty()),
        ("selfLink", !meta.self_link.is_empty()),
        ("uID", !meta.uid.is_empty()),
        ("resourceVersion", !meta.resource_version.is_empty()),
        ("generation", meta.generation != 0),
        ("creationTimestamp", meta.creation_timestamp.unix().is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", !meta.owner_references.is_empty()),
        ("finalizers", !meta.finalizers.is_empty()),
        ("managedFields", !meta.managed_fields.is_empty()),
    ];
    for (name, _) in fields.iter().filter(|(name, set)| *set || path.child(name).is_blank()) {
        errors.push(FieldError::forbidden(path.child(name), "cannot be set"));
    }
}

/// What a claim asks for.
pub fn spec(path: &Path<'_>, spec: &PersistentVolumeClaimSpec, options: ClaimOptions, errors: &mut Errors) {
    let modes = path.child("accessModes");
    if spec.access_modes.is_empty() {
        errors.push(FieldError::required(modes, "at least 1 access mode is required"));
    }
    if let Some(selector) = &spec.selector {
        let options =
            SelectorOptions { allow_invalid_values: options.allow_invalid_values, ..SelectorOptions::default() };
        labels::selector(&path.child("selector"), selector, options, errors);
    }
    for mode in &spec.access_modes {
        checks::supported(&modes, mode, &ACCESS_MODES, errors);
    }
    let has = |wanted: fn(&str) -> bool| spec.access_modes.iter().any(|mode| wanted(mode));
    if has(|m| m == "ReadWriteOncePod") && has(|m| m != "ReadWriteOncePod" && ACCESS_MODES.contains(&m)) {
        errors.push(FieldError::forbidden(modes, "may not use ReadWriteOncePod with other access modes"));
    }
    let at = path.child("resources");
    let at = at.key("storage");
    match spec.resources.requests.get("storage") {
        None => errors.push(FieldError::required(at, "")),
        Some(storage) => {
            let told = errors.len();
            checks::positive_quantity(&at, storage, errors);
            if errors.len() == told {
                resources::quantity_value(&at, "storage", storage, errors);
            }
        }
    }
    classes_and_sources(path, spec, options, errors);
}

fn classes_and_sources(path: &Path<'_>, spec: &PersistentVolumeClaimSpec, options: ClaimOptions, errors: &mut Errors) {
    let class = |name: &str, class: &Option<String>, errors: &mut Errors| {
        if let Some(class) = class.as_deref().filter(|class| !class.is_empty()) {
            checks::text(&path.child(name), class, names::dns1123_subdomain(class), errors);
        }
    };
    class("storageClassName", &spec.storage_class_name, errors);
    if let Some(mode) = &spec.volume_mode {
        checks::supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"], errors);
    }
    let any_group = options.allow_invalid_groups;
    if let Some(source) = &spec.data_source {
        let TypedLocalObjectReference { api_group, kind, name } = source;
        data_source(&path.child("dataSource"), (api_group, kind, name), any_group, errors);
    }
    if let Some(source) = &spec.data_source_ref {
        let TypedObjectReference { api_group, kind, name, namespace } = source;
        let path = path.child("dataSourceRef");
        data_source(&path, (api_group, kind, name), any_group, errors);
        if let Some(namespace) = namespace.as_deref().filter(|n| !n.is_empty()) {
            checks::text(&path.child("namespace"), namespace, names::dns1123_label(namespace), errors);
        }
    }
    sources_agree(path, spec, errors);
    class("volumeAttributesClassName", &spec.volume_attributes_class_name, errors);
}

fn data_source(
    path: &Path<'_>,
    (group, kind, name): (&Option<String>, &str, &str),
    any_group: bool,
    errors: &mut Errors,
) {
    checks::required(&path.child("name"), name, errors);
    checks::required(&path.child("kind"), kind, errors);
    let group = group.as_deref().unwrap_or_default();
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(path, kind, why));
        }
    } else if !any_group {
        checks::text(&path.child("apiGroup"), group, names::dns1123_subdomain(group), errors);
    }
}

/// Both ways of naming a source name the same.
fn sources_agree(path: &Path<'_>, spec: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let (Some(source), Some(reference)) = (&spec.data_source, &spec.data_source_ref) else { return };
    let why = if reference.namespace.as_deref().is_some_and(|n| !n.is_empty()) {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if (&source.api_group, &source.kind, &source.name)
        == (&reference.api_group, &reference.kind, &reference.name)
    {
        return;
    } else {
        "must match dataSourceRef"
    };
    // The value told is a path, which has nothing to show.
    errors.push(FieldError::invalid(path, crate::status::Shown::spelled("{}"), why));
}
