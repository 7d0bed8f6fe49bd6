//! Sources of files: of the node, and of objects.

use api::core::v1::{
    ConfigMapVolumeSource, DownwardApiVolumeFile, DownwardApiVolumeSource, GitRepoVolumeSource, HostPathVolumeSource,
    KeyToPath, SecretVolumeSource,
};

use super::super::{env, mounts};
use super::{BAD_MODE, Context};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks};

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(super) fn host_path(path: &Path<'_>, own: &HostPathVolumeSource, _: Context<'_>, errors: &mut Errors) {
    if own.path.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
        return;
    }
    mounts::no_backsteps(&path.child("path"), &own.path, errors);
    if let Some(sort) = &own.r#type {
        checks::supported(&path.child("type"), sort, &HOST_PATH_TYPES, errors);
    }
}

pub(super) fn git_repo(path: &Path<'_>, own: &GitRepoVolumeSource, _: Context<'_>, errors: &mut Errors) {
    checks::required(&path.child("repository"), &own.repository, errors);
    mounts::descending_path(&path.child("directory"), &own.directory, errors);
}

pub(super) fn secret(path: &Path<'_>, own: &SecretVolumeSource, _: Context<'_>, errors: &mut Errors) {
    checks::required(&path.child("secretName"), &own.secret_name, errors);
    of_object(path, own.default_mode, &own.items, errors);
}

pub(super) fn config_map(path: &Path<'_>, own: &ConfigMapVolumeSource, _: Context<'_>, errors: &mut Errors) {
    checks::required(&path.child("name"), &own.local_object_reference.name, errors);
    of_object(path, own.default_mode, &own.items, errors);
}

fn of_object(path: &Path<'_>, default_mode: Option<i32>, items: &[KeyToPath], errors: &mut Errors) {
    mode(&path.child("defaultMode"), default_mode, errors);
    for (i, item) in items.iter().enumerate() {
        key_to_path(&path.child("items").index(i), item, errors);
    }
}

/// Permissions of a file.
pub(in super::super) fn mode(path: &Path<'_>, mode: Option<i32>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(path, mode, BAD_MODE));
    }
}

/// A key that becomes a file.
pub(in super::super) fn key_to_path(path: &Path<'_>, item: &KeyToPath, errors: &mut Errors) {
    checks::required(&path.child("key"), &item.key, errors);
    checks::required(&path.child("path"), &item.path, errors);
    mounts::local_path(&path.child("path"), &item.path, errors);
    mode(&path.child("mode"), item.mode, errors);
}

pub(super) fn downward_api(path: &Path<'_>, own: &DownwardApiVolumeSource, _: Context<'_>, errors: &mut Errors) {
    mode(&path.child("defaultMode"), own.default_mode, errors);
    // Which file it is is not told.
    for file in &own.items {
        downward_file(path, file, errors);
    }
}

/// A file with what the Pod says of itself.
pub(in super::super) fn downward_file(path: &Path<'_>, file: &DownwardApiVolumeFile, errors: &mut Errors) {
    checks::required(&path.child("path"), &file.path, errors);
    mounts::local_path(&path.child("path"), &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            env::field_ref(&path.child("fieldRef"), field, &env::FILE_FIELDS, errors);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", why));
            }
        }
        (None, Some(resource)) => env::resource_ref(&path.child("resourceFieldRef"), resource, true, errors),
        (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(&path.child("mode"), file.mode, errors);
}
