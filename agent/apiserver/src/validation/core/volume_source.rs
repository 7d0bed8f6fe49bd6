//! Sources of volumes, for volumes of their own and for those within pods.
//!
//! A source that both have has one function; where both have a type of their own, what they share is passed in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::core::v1::{
    AwsElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FcVolumeSource, FlockerVolumeSource,
    GcePersistentDiskVolumeSource, HostPathVolumeSource, LocalVolumeSource, NfsVolumeSource, QuobyteVolumeSource,
    SecretReference,
};
use regex::Regex;

use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names, shown};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub fn host_path(path: &Path<'_>, source: &HostPathVolumeSource, errors: &mut Errors) {
    if source.path.is_empty() {
        return errors.push(FieldError::required(path.child("path"), ""));
    }
    no_backsteps(&path.child("path"), &source.path, errors);
    if let Some(kind) = &source.r#type {
        checks::supported(&path.child("type"), kind, HOST_PATH_TYPES, errors);
    }
}

/// No part of a path leads up.
pub fn no_backsteps(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

pub fn gce_persistent_disk(path: &Path<'_>, source: &GcePersistentDiskVolumeSource, errors: &mut Errors) {
    checks::required(&path.child("pdName"), &source.pd_name, errors);
    partition(path, source.partition, errors);
}

pub fn aws_elastic_block_store(path: &Path<'_>, source: &AwsElasticBlockStoreVolumeSource, errors: &mut Errors) {
    checks::required(&path.child("volumeID"), &source.volume_id, errors);
    partition(path, source.partition, errors);
}

fn partition(path: &Path<'_>, number: i32, errors: &mut Errors) {
    if !(0..=255).contains(&number) {
        let why = "must be between 1 and 255, inclusive";
        errors.push(FieldError::invalid(path.child("partition"), number, why));
    }
}

pub fn nfs(path: &Path<'_>, source: &NfsVolumeSource, errors: &mut Errors) {
    checks::required(&path.child("server"), &source.server, errors);
    checks::required(&path.child("path"), &source.path, errors);
    if !source.path.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), &source.path, "must be an absolute path"));
    }
}

pub fn quobyte(path: &Path<'_>, source: &QuobyteVolumeSource, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), PAIRS));
    } else if source.tenant.len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(path.child("tenant"), why));
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            errors.push(FieldError::invalid(path.child("registry"), &source.registry, PAIRS));
        }
    }
    checks::required(&path.child("volume"), &source.volume, errors);
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(inner) => !inner.contains(['[', ']']),
        None => !host.contains([':', '[', ']']),
    };
    host_fits && !port.contains(['[', ']'])
}

pub fn flocker(path: &Path<'_>, source: &FlockerVolumeSource, errors: &mut Errors) {
    let (name, uuid) = (&source.dataset_name, &source.dataset_uuid);
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", why));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(path.child("datasetName"), name, "must not contain '/'"));
    }
}

pub fn fc(path: &Path<'_>, source: &FcVolumeSource, errors: &mut Errors) {
    let names = path.child("targetWWNs");
    if source.target_wwns.is_empty() && source.wwids.is_empty() {
        errors.push(FieldError::required(names, "must specify either targetWWNs or wwids, but not both"));
    }
    if source.target_wwns.is_empty() {
        return;
    }
    if !source.wwids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(names, shown::texts(&source.target_wwns), why));
    }
    match source.lun {
        Some(lun) => checks::in_range(&path.child("lun"), lun.into(), (0, 255), errors),
        None => errors.push(FieldError::required(path.child("lun"), "lun is required if targetWWNs is specified")),
    }
}

pub fn azure_disk(path: &Path<'_>, source: &AzureDiskVolumeSource, errors: &mut Errors) {
    checks::required(&path.child("diskName"), &source.disk_name, errors);
    checks::required(&path.child("diskURI"), &source.disk_uri, errors);
    if let Some(mode) = &source.caching_mode {
        checks::supported(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"], errors);
    }
    let Some(kind) = &source.kind else { return };
    checks::supported(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"], errors);
    let (start, form) = if kind == "Managed" {
        let form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", form)
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !source.disk_uri.starts_with(start) {
        errors.push(FieldError::not_supported(path.child("diskURI"), &source.disk_uri, &[form]));
    }
}

pub fn local(path: &Path<'_>, source: &LocalVolumeSource, errors: &mut Errors) {
    if source.path.is_empty() {
        return errors.push(FieldError::required(path.child("path"), ""));
    }
    no_backsteps(&path.child("path"), &source.path, errors);
}

/// Options of a flex volume: names that are Kubernetes' own are not for others.
pub fn flex_options(path: &Path<'_>, options: &BTreeMap<String, String>, errors: &mut Errors) {
    for key in options.keys() {
        let namespace = key.split('/').next().unwrap_or(key).to_lowercase();
        let reserved = ["kubernetes.io", "k8s.io"];
        if reserved.iter().any(|r| namespace.strip_suffix(r).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(path.child("options").key(key), key, why));
        }
    }
}

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:].-]+)(:[^,;*&$|\s]+)$").ok());

/// A name of an iSCSI node; `false` if it does not even begin like one.
#[must_use]
pub fn is_iscsi_kind(name: &str) -> bool {
    ["iqn", "eui", "naa"].iter().any(|kind| name.starts_with(kind))
}

/// Whether the name has the form that its beginning announces.
#[must_use]
pub fn is_iscsi_name(name: &str) -> bool {
    let digits = |from: usize, count: usize| {
        name.len() == from + count && name.as_bytes()[from..].iter().all(u8::is_ascii_alphanumeric)
    };
    match name.get(..3) {
        Some("iqn") => IQN.as_ref().is_some_and(|iqn| iqn.is_match(name)),
        Some("eui") => digits(4, 16),
        Some("naa") => digits(4, 32),
        _ => true,
    }
}

/// What an iSCSI source in a pod and one of its own share.
pub struct Iscsi<'a> {
    pub target_portal: &'a str,
    pub iqn: &'a str,
    pub lun: i32,
    /// Whether it is proved who asks.
    pub has_chap: bool,
    pub has_secret: bool,
    pub initiator: Option<&'a str>,
    /// The name of the volume of its own, whose error texts are shorter.
    pub volume: Option<&'a str>,
}

/// Errors of an iSCSI source; `secret` adds those of its secret.
pub fn iscsi(path: &Path<'_>, source: &Iscsi<'_>, secret: impl FnOnce(&mut Errors), errors: &mut Errors) {
    const FORM: &str = "must be valid format";
    let start = if source.volume.is_some() { FORM } else { "must be valid format starting with iqn, eui, or naa" };
    let name = |path: Path<'_>, name: &str, errors: &mut Errors| {
        if !is_iscsi_kind(name) {
            errors.push(FieldError::invalid(path, name, start));
        } else if !is_iscsi_name(name) {
            errors.push(FieldError::invalid(path, name, FORM));
        }
    };
    checks::required(&path.child("targetPortal"), source.target_portal, errors);
    if let Some(volume) = source.volume
        && source.initiator.is_some()
        && volume.len() + 1 + source.target_portal.len() > 64
    {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(path.child("targetportal"), source.target_portal, why));
    }
    if source.iqn.is_empty() {
        errors.push(FieldError::required(path.child("iqn"), ""));
    } else {
        name(path.child("iqn"), source.iqn, errors);
    }
    checks::in_range(&path.child("lun"), source.lun.into(), (0, 255), errors);
    if source.has_chap && !source.has_secret {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
    secret(errors);
    if let Some(initiator) = source.initiator {
        name(path.child("initiatorname"), initiator, errors);
    }
}

/// The name of a CSI driver.
pub fn csi_driver_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    checks::text(path, name, names::dns1123_subdomain(&name.to_lowercase()), errors);
}

/// A secret that a volume of its own refers to.
pub fn secret_reference(path: &Path<'_>, secret: &SecretReference, errors: &mut Errors) {
    type Form = fn(&str) -> names::Complaints;
    let parts: [(&str, &str, Form); 2] =
        [("name", &secret.name, names::dns1123_subdomain), ("namespace", &secret.namespace, names::dns1123_label)];
    for (field, text, form) in parts {
        let path = path.child(field);
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            checks::text(&path, text, form(text), errors);
        }
    }
}

/// Name and namespace of a secret that have to be there, if there is a secret.
pub fn secret_is_named(path: &Path<'_>, name: &str, namespace: Option<&str>, errors: &mut Errors) {
    let path = path.child("secretRef");
    checks::required(&path.child("name"), name, errors);
    if let Some(namespace) = namespace {
        checks::required(&path.child("namespace"), namespace, errors);
    }
}

/// Texts that have to be there, by field.
pub fn all_required(path: &Path<'_>, fields: &[(&str, &str)], errors: &mut Errors) {
    for (field, text) in fields {
        checks::required(&path.child(field), text, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iscsi_nodes_have_their_form() {
        for (name, fits) in [
            ("iqn.2001-04.com.example:storage", true),
            ("iqn.2001-4.com:x", false),
            ("eui.02004567A425678D", true),
            ("eui.0", false),
            ("naa.62004567BA64678D0123456789ABCDEF", true),
        ] {
            assert!(is_iscsi_kind(name) && is_iscsi_name(name) == fits, "{name}");
        }
        assert!(!is_iscsi_kind("x"));
    }

    #[test]
    fn hosts_come_with_ports() {
        for (text, fits) in [("a:1", true), ("a", false), ("[::1]:1", true), ("::1:1", false), (":", true)] {
            assert_eq!(is_host_and_port(text), fits, "{text}");
        }
    }
}
