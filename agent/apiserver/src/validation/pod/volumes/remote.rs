//! Sources that lie elsewhere than on the node.

use api::core::v1::{
    AwsElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource, CephFsVolumeSource,
    CinderVolumeSource, CsiVolumeSource, FcVolumeSource, FlexVolumeSource, FlockerVolumeSource,
    GcePersistentDiskVolumeSource, GlusterfsVolumeSource, IscsiVolumeSource, LocalObjectReference, NfsVolumeSource,
    PersistentVolumeClaimVolumeSource, PhotonPersistentDiskVolumeSource, PortworxVolumeSource, QuobyteVolumeSource,
    RbdVolumeSource, ScaleIoVolumeSource, StorageOsVolumeSource, VsphereVirtualDiskVolumeSource,
};

use super::Context;
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names};

/// Fields that need a text.
fn need(path: &Path<'_>, fields: &[(&str, &str)], errors: &mut Errors) {
    for (name, text) in fields {
        checks::required(&path.child(name), text, errors);
    }
}

fn partition(path: &Path<'_>, partition: i32, errors: &mut Errors) {
    if !(0..=255).contains(&partition) {
        let why = "must be between 1 and 255, inclusive";
        errors.push(FieldError::invalid(path.child("partition"), partition, why));
    }
}

fn secret_name(path: &Path<'_>, secret: Option<&LocalObjectReference>, errors: &mut Errors) {
    if secret.is_some_and(|s| s.name.is_empty()) {
        errors.push(FieldError::required(path.child("secretRef").child("name"), ""));
    }
}

pub(super) fn gce(path: &Path<'_>, own: &GcePersistentDiskVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("pdName", &own.pd_name)], errors);
    partition(path, own.partition, errors);
}

pub(super) fn aws(path: &Path<'_>, own: &AwsElasticBlockStoreVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("volumeID", &own.volume_id)], errors);
    partition(path, own.partition, errors);
}

pub(super) fn nfs(path: &Path<'_>, own: &NfsVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("server", &own.server), ("path", &own.path)], errors);
    if !own.path.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), &own.path, "must be an absolute path"));
    }
}

pub(super) fn iscsi(path: &Path<'_>, own: &IscsiVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("targetPortal", &own.target_portal), ("iqn", &own.iqn)], errors);
    if !own.iqn.is_empty() {
        initiator(&path.child("iqn"), &own.iqn, errors);
    }
    checks::in_range(&path.child("lun"), own.lun.into(), (0, 255), errors);
    if (own.chap_auth_discovery || own.chap_auth_session) && own.secret_ref.is_none() {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
    if let Some(name) = &own.initiator_name {
        initiator(&path.child("initiatorname"), name, errors);
    }
}

/// The name of an initiator or target, in one of three forms.
fn initiator(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let long = |count: usize| {
        let rest = name.chars().skip(4);
        rest.clone().count() == count && rest.clone().all(|c| c.is_ascii_alphanumeric())
    };
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => long(16),
        Some("naa") => long(32),
        _ => {
            let why = "must be valid format starting with iqn, eui, or naa";
            errors.push(FieldError::invalid(path, name, why));
            return;
        }
    };
    if !fits {
        errors.push(FieldError::invalid(path, name, "must be valid format"));
    }
}

/// `iqn.`, a month, the name of a domain, a colon and more.
fn is_iqn(name: &str) -> bool {
    let Some((month, rest)) = name.strip_prefix("iqn.").and_then(|r| r.split_at_checked(7)) else { return false };
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let is_month = digits(&month[..4]) && &month[4..5] == "-" && digits(&month[5..]);
    let Some((domain, more)) = rest.strip_prefix('.').and_then(|r| r.split_once(':')) else { return false };
    let is_domain = !domain.is_empty() && domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'));
    let bad = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_ascii_whitespace();
    is_month && is_domain && !more.is_empty() && !more.contains(bad)
}

pub(super) fn glusterfs(path: &Path<'_>, own: &GlusterfsVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("endpoints", &own.endpoints), ("path", &own.path)], errors);
}

pub(super) fn flocker(path: &Path<'_>, own: &FlockerVolumeSource, _: Context<'_>, errors: &mut Errors) {
    match (own.dataset_name.is_empty(), own.dataset_uuid.is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
        }
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", why));
        }
        _ => {}
    }
    if own.dataset_name.contains('/') {
        errors.push(FieldError::invalid(path.child("datasetName"), &own.dataset_name, "must not contain '/'"));
    }
}

pub(super) fn claim(path: &Path<'_>, own: &PersistentVolumeClaimVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("claimName", &own.claim_name)], errors);
}

pub(super) fn rbd(path: &Path<'_>, own: &RbdVolumeSource, _: Context<'_>, errors: &mut Errors) {
    monitors(path, &own.monitors, errors);
    need(path, &[("image", &own.image)], errors);
}

fn monitors(path: &Path<'_>, monitors: &[String], errors: &mut Errors) {
    if monitors.is_empty() {
        errors.push(FieldError::required(path.child("monitors"), ""));
    }
}

pub(super) fn cinder(path: &Path<'_>, own: &CinderVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("volumeID", &own.volume_id)], errors);
    secret_name(path, own.secret_ref.as_ref(), errors);
}

pub(super) fn cephfs(path: &Path<'_>, own: &CephFsVolumeSource, _: Context<'_>, errors: &mut Errors) {
    monitors(path, &own.monitors, errors);
}

const MAX_TENANT: usize = 64;

pub(super) fn quobyte(path: &Path<'_>, own: &QuobyteVolumeSource, _: Context<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if own.registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), PAIRS));
    } else if own.tenant.len() > MAX_TENANT {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(path.child("tenant"), why));
    } else {
        for _ in own.registry.split(',').filter(|pair| !is_host_port(pair)) {
            errors.push(FieldError::invalid(path.child("registry"), &own.registry, PAIRS));
        }
    }
    need(path, &[("volume", &own.volume)], errors);
}

/// A host, in brackets if it has colons, a colon and a port.
fn is_host_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let brackets = ['[', ']'];
    let host_fits = inner.map_or(!host.contains(':') && !host.contains(brackets), |h| !h.contains(brackets));
    host_fits && !port.contains(brackets)
}

pub(super) fn fibre_channel(path: &Path<'_>, own: &FcVolumeSource, _: Context<'_>, errors: &mut Errors) {
    let at = path.child("targetWWNs");
    let (targets, ids) = (!own.target_wwns.is_empty(), !own.wwids.is_empty());
    if !targets && !ids {
        errors.push(FieldError::required(at, "must specify either targetWWNs or wwids, but not both"));
    }
    if targets && ids {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(at, serde_json::json!(own.target_wwns), why));
    }
    if targets {
        match own.lun {
            None => {
                let why = "lun is required if targetWWNs is specified";
                errors.push(FieldError::required(path.child("lun"), why));
            }
            Some(lun) => checks::in_range(&path.child("lun"), lun.into(), (0, 255), errors),
        }
    }
}

pub(super) fn flex(path: &Path<'_>, own: &FlexVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("driver", &own.driver)], errors);
    for key in own.options.keys() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(path.child("options").key(key), key, why));
        }
    }
}

pub(super) fn azure_file(path: &Path<'_>, own: &AzureFileVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("secretName", &own.secret_name), ("shareName", &own.share_name)], errors);
}

pub(super) fn azure_disk(path: &Path<'_>, own: &AzureDiskVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("diskName", &own.disk_name), ("diskURI", &own.disk_uri)], errors);
    if let Some(mode) = &own.caching_mode {
        checks::supported(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"], errors);
    }
    let Some(kind) = &own.kind else { return };
    checks::supported(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"], errors);
    let (start, form) = if kind == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !own.disk_uri.starts_with(start) {
        errors.push(FieldError::not_supported(path.child("diskURI"), &own.disk_uri, &[form]));
    }
}

pub(super) fn vsphere(path: &Path<'_>, own: &VsphereVirtualDiskVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("volumePath", &own.volume_path)], errors);
}

pub(super) fn photon(path: &Path<'_>, own: &PhotonPersistentDiskVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("pdID", &own.pd_id)], errors);
}

pub(super) fn portworx(path: &Path<'_>, own: &PortworxVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("volumeID", &own.volume_id)], errors);
}

pub(super) fn storage_os(path: &Path<'_>, own: &StorageOsVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("volumeName", &own.volume_name)], errors);
    for (name, text) in [("volumeName", &own.volume_name), ("volumeNamespace", &own.volume_namespace)] {
        if !text.is_empty() {
            checks::text(&path.child(name), text, names::dns1123_label(text), errors);
        }
    }
    secret_name(path, own.secret_ref.as_ref(), errors);
}

pub(super) fn scale_io(path: &Path<'_>, own: &ScaleIoVolumeSource, _: Context<'_>, errors: &mut Errors) {
    need(path, &[("gateway", &own.gateway), ("system", &own.system), ("volumeName", &own.volume_name)], errors);
}

const MAX_DRIVER: usize = 63;

/// The name of a driver.
fn driver(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > MAX_DRIVER {
        errors.push(FieldError::too_long(path, MAX_DRIVER));
    }
    checks::text(path, name, names::dns1123_subdomain(&name.to_lowercase()), errors);
}

pub(super) fn csi(path: &Path<'_>, own: &CsiVolumeSource, _: Context<'_>, errors: &mut Errors) {
    driver(&path.child("driver"), &own.driver, errors);
    let Some(secret) = &own.node_publish_secret_ref else { return };
    if secret.name.is_empty() {
        errors.push(FieldError::required(path.child("nodePublishSecretRef").child("name"), ""));
    } else {
        checks::text(&path.child("name"), &secret.name, names::dns1123_subdomain(&secret.name), errors);
    }
}
