//! Annotations that say something about a Pod's spec.

use std::collections::BTreeMap;

use api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, Toleration};
use api::meta::v1::ObjectMeta;

use super::{Options, each_container, is_windows, mounts, tolerations};
use crate::status::FieldError;
use crate::validation::{Errors, Path};

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

type Map = BTreeMap<String, String>;

/// Annotations of a Pod or of a template.
pub(super) fn of_pod(path: &Path<'_>, meta: &ObjectMeta, spec: &PodSpec, options: Options, errors: &mut Errors) {
    let annotations = &meta.annotations;
    if let Some(value) = annotations.get(MIRROR).filter(|_| spec.node_name.is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(path.key(MIRROR), value, why));
    }
    if let Some(text) = annotations.get(TOLERATIONS).filter(|text| !text.is_empty()) {
        in_annotation(path, text, options, errors);
    }
    if !options.invalid_deletion_cost && !deletion_cost_is_valid(annotations) {
        let value = annotations.get(DELETION_COST).map_or("", String::as_str);
        errors.push(FieldError::invalid(path.key(DELETION_COST), value, "must be a 32bit integer"));
    }
    if let Some(profile) = annotations.get(SECCOMP_POD) {
        seccomp(&path.child(SECCOMP_POD), profile, errors);
    }
    for (key, profile) in annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp(&path.child(key), profile, errors);
    }
    for (key, profile) in annotations {
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            app_armor(&path.key(key), (container, profile), spec, errors);
        }
    }
}

/// Tolerations as they were written before they were fields.
fn in_annotation(path: &Path<'_>, text: &str, options: Options, errors: &mut Errors) {
    let Ok(serde_json::Value::Array(items)) = serde_json::from_str(text) else {
        errors.push(FieldError::invalid(path, TOLERATIONS, "json: cannot unmarshal"));
        return;
    };
    let field = |item: &serde_json::Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let list: Vec<Toleration> = items
        .iter()
        .map(|item| Toleration {
            key: field(item, "key"),
            operator: field(item, "operator"),
            value: field(item, "value"),
            effect: field(item, "effect"),
            toleration_seconds: item["tolerationSeconds"].as_i64(),
        })
        .collect();
    tolerations::tolerations(&path.child(TOLERATIONS), &list, options, errors);
}

/// Whether the cost of deleting the Pod, if any, is a number as it is usually written.
pub(super) fn deletion_cost_is_valid(annotations: &Map) -> bool {
    let Some(text) = annotations.get(DELETION_COST) else { return true };
    let first = text.as_bytes().first();
    (text == "0" || first.is_some_and(|c| matches!(c, b'-' | b'1'..=b'9'))) && text.parse::<i32>().is_ok()
}

fn seccomp(path: &Path<'_>, profile: &str, errors: &mut Errors) {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => mounts::descending_path(path, file, errors),
        None => errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

fn app_armor(path: &Path<'_>, (container, profile): (&str, &str), spec: &PodSpec, errors: &mut Errors) {
    let mut known = spec.containers.iter().chain(&spec.init_containers).any(|c| c.name == container);
    known |= spec.ephemeral_containers.iter().any(|c| c.ephemeral_container_common.name == container);
    if !known {
        errors.push(FieldError::invalid(path, container, "container not found"));
    }
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
        let why = format!("invalid AppArmor profile name: {}", stdx::quoted(profile));
        errors.push(FieldError::invalid(path, profile, why));
    }
}

/// Fields and annotations that say the same thing say it alike.
pub(super) fn match_fields(path: &Path<'_>, meta: &ObjectMeta, spec: &PodSpec, errors: &mut Errors) {
    let annotations = &meta.annotations;
    if annotations.is_empty() {
        return;
    }
    let context = spec.security_context.as_ref();
    if let Some(profile) = context.and_then(|c| c.seccomp_profile.as_ref())
        && let Some(annotation) = annotations.get(SECCOMP_POD)
    {
        let path = path.child("securityContext");
        seccomp_field(&path.child("seccompProfile"), profile, annotation, errors);
    }
    each_container(path, spec, |path, container| {
        let profile = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
        if let Some(profile) = profile
            && let Some(annotation) = annotations.get(&format!("{SECCOMP_CONTAINER}{}", container.name))
        {
            seccomp_field(&path.child("securityContext").child("seccompProfile"), profile, annotation, errors);
        }
    });
    if is_windows(spec) {
        return;
    }
    let of_pod = context.and_then(|c| c.app_armor_profile.as_ref());
    each_container(path, spec, |path, container| {
        let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        if let Some(profile) = own.or(of_pod)
            && let Some(annotation) = annotations.get(&format!("{APP_ARMOR}{}", container.name))
        {
            app_armor_field(&path.child("securityContext").child("appArmorProfile"), profile, annotation, errors);
        }
    });
}

fn seccomp_field(path: &Path<'_>, profile: &SeccompProfile, annotation: &str, errors: &mut Errors) {
    let own = Profile { r#type: &profile.r#type, file: profile.localhost_profile.as_deref() };
    let defaults = ["runtime/default", "docker/default"];
    agree(path, "seccomp", (&own, annotation), &defaults, errors);
}

fn app_armor_field(path: &Path<'_>, profile: &AppArmorProfile, annotation: &str, errors: &mut Errors) {
    let own = Profile { r#type: &profile.r#type, file: profile.localhost_profile.as_deref() };
    agree(path, "apparmor", (&own, annotation), &["runtime/default"], errors);
}

struct Profile<'a> {
    r#type: &'a str,
    file: Option<&'a str>,
}

fn agree(
    path: &Path<'_>,
    what: &str,
    (profile, annotation): (&Profile<'_>, &str),
    defaults: &[&str],
    errors: &mut Errors,
) {
    let file = annotation.strip_prefix("localhost/");
    let same_type = match profile.r#type {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation),
        "Localhost" => file.is_some(),
        _ => return,
    };
    if !same_type {
        let why = format!("{what} type in annotation and field must match");
        errors.push(FieldError::forbidden(path.child("type"), why));
    } else if profile.r#type == "Localhost" && file != profile.file {
        let why = format!("{what} profile in annotation and field must match");
        errors.push(FieldError::forbidden(path.child("localhostProfile"), why));
    }
}
