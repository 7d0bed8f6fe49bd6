//! Environment variables and what they are taken from.

use api::core::v1::{EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector};

use super::{each_container, mounts};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names};

/// Fields of a Pod that a variable can have the value of.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a Pod that a file can have the value of.
pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that are known, but not everywhere allowed.
const OTHER_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SEVERAL: &str = "may not have more than one field specified at a time";

/// The variables of a container.
pub(super) fn variables(path: &Path<'_>, list: &[EnvVar], errors: &mut Errors) {
    for (i, variable) in list.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("name");
        if variable.name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else {
            checks::text(&at, &variable.name, names::env_var(&variable.name), errors);
        }
        value_from(&path.child("valueFrom"), variable, errors);
    }
}

fn value_from(path: &Path<'_>, variable: &EnvVar, errors: &mut Errors) {
    let Some(source) = &variable.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(&path.child("fieldRef"), field, &ENV_FIELDS, errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_ref(&path.child("resourceFieldRef"), resource, false, errors);
    }
    let config = source.config_map_key_ref.as_ref().map(|r| (&r.local_object_reference.name, &r.key));
    let secret = source.secret_key_ref.as_ref().map(|r| (&r.local_object_reference.name, &r.key));
    for (child, reference) in [("configMapKeyRef", config), ("secretKeyRef", secret)] {
        if let Some((name, key)) = reference {
            sources += 1;
            key_ref(&path.child(child), name, key, errors);
        }
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        file_ref(&path.child("fileKeyRef"), file, errors);
    }
    let why = match (sources, variable.value.is_empty()) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        (_, false) => "may not be specified when `value` is not empty",
        (1, true) => return,
        _ => SEVERAL,
    };
    errors.push(FieldError::invalid(path, "", why));
}

fn key_ref(path: &Path<'_>, name: &str, key: &str, errors: &mut Errors) {
    checks::text(&path.child("name"), name, names::dns1123_subdomain(name), errors);
    if key.is_empty() {
        errors.push(FieldError::required(path.child("key"), ""));
    } else {
        checks::text(&path.child("key"), key, names::config_key(key), errors);
    }
}

fn file_ref(path: &Path<'_>, file: &FileKeySelector, errors: &mut Errors) {
    let FileKeySelector { volume_name, path: file_path, key, .. } = file;
    if key.is_empty() {
        errors.push(FieldError::required(path.child("key"), ""));
    } else {
        checks::text(&path.child("key"), key, names::env_var(key), errors);
    }
    if volume_name.is_empty() {
        errors.push(FieldError::required(path.child("volumeName"), ""));
    } else {
        checks::text(&path.child("volumeName"), volume_name, names::dns1123_label(volume_name), errors);
    }
    if file_path.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
    } else {
        mounts::no_backsteps(&path.child("path"), file_path, errors);
    }
}

/// A field of the Pod, one of those allowed or a single label or annotation.
pub(super) fn field_ref(path: &Path<'_>, field: &ObjectFieldSelector, allowed: &[&str], errors: &mut Errors) {
    let ObjectFieldSelector { api_version, field_path } = field;
    for (child, text) in [("apiVersion", api_version), ("fieldPath", field_path)] {
        if text.is_empty() {
            errors.push(FieldError::required(path.child(child), ""));
            return;
        }
    }
    let at = path.child("fieldPath");
    let mut convert = |why: String| {
        errors.push(FieldError::invalid(at, field_path, format!("error converting fieldPath: {why}")));
    };
    if api_version != "v1" {
        return convert(format!("unsupported pod version: {api_version}"));
    }
    let subscripted = field_path.strip_suffix("']").and_then(|p| p.split_once("['")).filter(|(p, _)| !p.is_empty());
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            checks::text(path, &key, names::qualified(&key), errors);
        }
        Some(("metadata.labels", key)) => checks::text(path, key, names::qualified(key), errors),
        Some(_) => convert(format!("field label does not support subscript: {field_path}")),
        None => {
            let name = if field_path == "spec.host" { "spec.nodeName" } else { field_path };
            let known = ENV_FIELDS.contains(&name) || FILE_FIELDS.contains(&name) || OTHER_FIELDS.contains(&name);
            if !known {
                convert(format!("field label not supported: {field_path}"));
            } else if !allowed.contains(&name) {
                errors.push(FieldError::not_supported(at, name, allowed));
            }
        }
    }
}

/// A resource of a container, which has to be named in a volume.
pub(super) fn resource_ref(path: &Path<'_>, field: &ResourceFieldSelector, in_volume: bool, errors: &mut Errors) {
    let resource = field.resource.as_str();
    let huge_pages = ["requests.hugepages-", "limits.hugepages-"].iter().any(|p| resource.starts_with(p));
    if in_volume && field.container_name.is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
    }
    divisor(path, field, huge_pages, errors);
}

const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn divisor(path: &Path<'_>, field: &ResourceFieldSelector, huge_pages: bool, errors: &mut Errors) {
    if checks::amount(&field.divisor).is_zero() {
        return;
    }
    let (allowed, what): (&[&str], _) = match field.resource.as_str() {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (&BYTES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (&BYTES, "local ephemeral storage"),
        _ if huge_pages => (&BYTES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&checks::amount(&field.divisor).canonical().as_str()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let why = format!("only divisor's values {list} are supported with the {what} resource");
        errors.push(FieldError::invalid(path.child("divisor"), &field.resource, why));
    }
}

/// Objects whose every key is a variable.
pub(super) fn sources(path: &Path<'_>, list: &[EnvFromSource], errors: &mut Errors) {
    for (i, source) in list.iter().enumerate() {
        let at = path.index(i);
        if !source.prefix.is_empty() {
            checks::text(&at.child("prefix"), &source.prefix, names::env_var(&source.prefix), errors);
        }
        let config = source.config_map_ref.as_ref().map(|r| &r.local_object_reference.name);
        let secret = source.secret_ref.as_ref().map(|r| &r.local_object_reference.name);
        for (child, name) in [("configMapRef", config), ("secretRef", secret)] {
            let Some(name) = name else { continue };
            let at = at.child(child);
            if name.is_empty() {
                errors.push(FieldError::required(at.child("name"), ""));
            } else {
                let masked = names::masked_prefix(name);
                checks::text(&at.child("name"), name, names::dns1123_subdomain(&masked), errors);
            }
        }
        match (config, secret) {
            (None, None) => {
                errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
            }
            (Some(_), Some(_)) => errors.push(FieldError::invalid(path, "", SEVERAL)),
            _ => {}
        }
    }
}

/// Files that variables are taken from lie in volumes that are empty at the start.
pub(super) fn file_volumes(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    each_container(path, spec, |path, container| {
        for (i, variable) in container.env.iter().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|v| v.file_key_ref.as_ref()) else { continue };
            let at = path.child("env");
            let at = at.index(i);
            let at = at.child("valueFrom");
            let at = at.child("fileKeyRef");
            let at = at.child("volumeName");
            match spec.volumes.iter().rfind(|v| v.name == file.volume_name) {
                None => errors.push(FieldError::not_found(at, &file.volume_name)),
                Some(volume) if volume.volume_source.empty_dir.is_none() => {
                    let why = "referenced volume must be of type emptyDir";
                    errors.push(FieldError::invalid(at, &file.volume_name, why));
                }
                Some(_) => {}
            }
        }
    });
}
