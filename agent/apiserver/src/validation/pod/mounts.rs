//! What a container sees of the Pod's volumes.

use api::core::v1::{Container, Volume, VolumeDevice, VolumeMount};

use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, shown};

const PROPAGATION: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const RECURSION: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];

/// Volumes mounted as directories.
pub(super) fn mounts(path: &Path<'_>, container: &Container, volumes: &[&Volume], errors: &mut Errors) {
    for (i, mount) in container.volume_mounts.iter().enumerate() {
        let VolumeMount { name, mount_path, sub_path, sub_path_expr, .. } = mount;
        let at = path.index(i);
        checks::required(&at.child("name"), name, errors);
        if !volumes.iter().any(|v| v.name == *name) {
            errors.push(FieldError::not_found(at.child("name"), name));
        }
        checks::required(&at.child("mountPath"), mount_path, errors);
        if container.volume_mounts.iter().take(i).any(|m| m.mount_path == *mount_path) {
            errors.push(FieldError::invalid(at.child("mountPath"), mount_path, "must be unique"));
        }
        if container.volume_devices.iter().any(|d| d.name == *name) {
            errors.push(FieldError::invalid(at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if last_device_paths(&container.volume_devices).any(|device_path| device_path == mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(at.child("mountPath"), mount_path, why));
        }
        // From here on the index is not told.
        if !sub_path.is_empty() {
            descending_path(&path.child("subPath"), sub_path, errors);
        }
        if !sub_path_expr.is_empty() {
            if !sub_path.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(at.child("subPathExpr"), sub_path_expr, why));
            }
            descending_path(&path.child("subPathExpr"), sub_path_expr, errors);
        }
        modes(path, mount, container, errors);
    }
}

/// The path of each device; of those with one name the last counts.
fn last_device_paths(devices: &[VolumeDevice]) -> impl Iterator<Item = &String> {
    let last = |(i, d): &(usize, &VolumeDevice)| !devices.iter().skip(i + 1).any(|other| other.name == d.name);
    devices.iter().enumerate().filter(last).map(|(_, d)| &d.device_path)
}

fn last_mount_paths(mounts: &[VolumeMount]) -> impl Iterator<Item = &String> {
    let last = |(i, m): &(usize, &VolumeMount)| !mounts.iter().skip(i + 1).any(|other| other.name == m.name);
    mounts.iter().enumerate().filter(last).map(|(_, m)| &m.mount_path)
}

fn modes(path: &Path<'_>, mount: &VolumeMount, container: &Container, errors: &mut Errors) {
    if let Some(mode) = &mount.mount_propagation {
        let path = path.child("mountPropagation");
        checks::supported(&path, mode, &PROPAGATION, errors);
        let privileged = container.security_context.as_ref().is_some_and(|c| c.privileged == Some(true));
        if mode == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(path, why));
        }
    }
    let Some(mode) = &mount.recursive_read_only else { return };
    let path = path.child("recursiveReadOnly");
    match mode.as_str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.read_only {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, why));
            }
        }
        other => errors.push(FieldError::not_supported(path, shown::word(other), &RECURSION)),
    }
}

/// Volumes given as block devices.
pub(super) fn devices(path: &Path<'_>, container: &Container, volumes: &[&Volume], errors: &mut Errors) {
    let devices = &container.volume_devices;
    for (i, device) in devices.iter().enumerate() {
        let VolumeDevice { name, device_path } = device;
        let (at_name, at_path) = (path.index(i), path.index(i));
        let (at_name, at_path) = (at_name.child("name"), at_path.child("devicePath"));
        checks::required(&at_name, name, errors);
        let earlier = || devices.iter().take(i);
        if !name.is_empty() && earlier().any(|d| d.name == *name) {
            errors.push(FieldError::invalid(at_name, name, "must be unique"));
        }
        match volumes.iter().find(|v| v.name == *name).map(|v| &v.volume_source) {
            None => errors.push(FieldError::not_found(at_name, name)),
            Some(source) if source.persistent_volume_claim.is_none() && source.ephemeral.is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(at_name, name, why));
            }
            Some(_) => {}
        }
        checks::required(&at_path, device_path, errors);
        if earlier().any(|d| d.device_path == *device_path && !has_backstep(&d.device_path)) {
            errors.push(FieldError::invalid(at_path, device_path, "must be unique"));
        }
        if has_backstep(device_path) {
            errors.push(FieldError::invalid(at_path, device_path, "can not contain backsteps ('..')"));
        }
        if container.volume_mounts.iter().any(|m| m.name == *name) {
            errors.push(FieldError::invalid(at_name, name, "must not already exist in volumeMounts"));
        }
        if last_mount_paths(&container.volume_mounts).any(|mount_path| mount_path == device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(at_path, device_path, why));
        }
    }
}

/// A path that goes down from where it starts.
pub(super) fn descending_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    no_backsteps(path, text, errors);
}

/// A path that goes down, and not to what is kept for the node itself.
pub(super) fn local_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    descending_path(path, text, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.push(FieldError::invalid(path, text, "must not start with '..'"));
    }
}

/// A path that does not go up.
pub(super) fn no_backsteps(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if has_backstep(text) {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

fn has_backstep(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}
