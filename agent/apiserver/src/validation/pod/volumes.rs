//! Volumes: each of exactly one source.

mod files;
mod remote;

use api::core::v1::{Volume, VolumeSource};
use api::meta::v1::ObjectMeta;

use super::container::PULL_POLICIES;
use super::{Options, projected};
use crate::status::FieldError;
use crate::validation::core::claim;
use crate::validation::{Errors, Path, checks, names};

pub(super) use files::{downward_file, key_to_path, mode};

pub(super) const BAD_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The volumes of a Pod, `meta` being its metadata if it is not a template. Returns those that are valid.
pub(super) fn volumes<'a>(
    path: &Path<'_>,
    list: &'a [Volume],
    meta: Option<&ObjectMeta>,
    options: Options,
    errors: &mut Errors,
) -> Vec<&'a Volume> {
    let name_of_pod = meta.map(|m| m.name.as_str()).filter(|name| !name.is_empty());
    let mut valid: Vec<&Volume> = Vec::new();
    for (i, volume) in list.iter().enumerate() {
        let (path, told) = (path.index(i), errors.len());
        source(&path, volume, name_of_pod, options, errors);
        let at = path.child("name");
        if volume.name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else {
            checks::text(&at, &volume.name, names::dns1123_label(&volume.name), errors);
        }
        if valid.iter().any(|earlier| earlier.name == volume.name) {
            errors.push(FieldError::duplicate(at, &volume.name));
        }
        if errors.len() == told {
            valid.push(volume);
        }
        if let (Some(claim), Some(pod)) = (&volume.volume_source.persistent_volume_claim, name_of_pod) {
            let made = |v: &&Volume| {
                let rest = claim.claim_name.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-'));
                v.volume_source.ephemeral.is_some() && rest == Some(v.name.as_str())
            };
            if list.iter().any(|v| made(&v)) {
                let at = path.child("persistentVolumeClaim");
                let why = "must not reference a PVC that gets created for an ephemeral volume";
                errors.push(FieldError::invalid(at.child("claimName"), &claim.claim_name, why));
            }
        }
    }
    valid
}

/// What a source is looked at with.
#[derive(Clone, Copy)]
struct Context<'a> {
    volume: &'a str,
    pod: Option<&'a str>,
    options: Options,
}

/// Looks at one sort of source, if the volume has it.
type Check = fn(&Path<'_>, &VolumeSource, Context<'_>, &mut Errors);

/// A sort of source.
struct Sort {
    is_set: fn(&VolumeSource) -> bool,
    /// How the field is called when it is one too many.
    too_many: &'static str,
    /// How it is called else.
    field: &'static str,
    check: Check,
}

/// `sort!(rust_field, "json name", check)`, with another name for one too many if there is one.
macro_rules! sort {
    ($field:ident, $name:literal, $check:expr) => {
        sort!($field, $name, $name, $check)
    };
    ($field:ident, $too_many:literal, $name:literal, $check:expr) => {
        Sort {
            is_set: |source| source.$field.is_some(),
            too_many: $too_many,
            field: $name,
            check: |path, source, context, errors| {
                if let Some(own) = &source.$field {
                    $check(path, own, context, errors);
                }
            },
        }
    };
}

/// Every sort but empty directories, in the order in which they are looked at.
const SORTS: &[Sort] = &[
    sort!(host_path, "hostPath", files::host_path),
    sort!(git_repo, "gitRepo", files::git_repo),
    sort!(gce_persistent_disk, "gcePersistentDisk", "persistentDisk", remote::gce),
    sort!(aws_elastic_block_store, "awsElasticBlockStore", remote::aws),
    sort!(secret, "secret", files::secret),
    sort!(nfs, "nfs", remote::nfs),
    sort!(iscsi, "iscsi", remote::iscsi),
    sort!(glusterfs, "glusterfs", remote::glusterfs),
    sort!(flocker, "flocker", remote::flocker),
    sort!(persistent_volume_claim, "persistentVolumeClaim", remote::claim),
    sort!(rbd, "rbd", remote::rbd),
    sort!(cinder, "cinder", remote::cinder),
    sort!(cephfs, "cephFS", "cephfs", remote::cephfs),
    sort!(quobyte, "quobyte", remote::quobyte),
    sort!(downward_api, "downwarAPI", "downwardAPI", files::downward_api),
    sort!(fc, "fc", remote::fibre_channel),
    sort!(flex_volume, "flexVolume", remote::flex),
    sort!(config_map, "configMap", files::config_map),
    sort!(azure_file, "azureFile", remote::azure_file),
    sort!(vsphere_volume, "vsphereVolume", remote::vsphere),
    sort!(photon_persistent_disk, "photonPersistentDisk", remote::photon),
    sort!(portworx_volume, "portworxVolume", remote::portworx),
    sort!(azure_disk, "azureDisk", remote::azure_disk),
    sort!(storageos, "storageos", remote::storage_os),
    sort!(projected, "projected", |path: &Path<'_>, own, context: Context<'_>, errors: &mut Errors| {
        projected::volume(path, own, context.options, errors);
    }),
    sort!(scale_io, "scaleIO", remote::scale_io),
    sort!(csi, "csi", remote::csi),
    sort!(ephemeral, "ephemeral", ephemeral),
    sort!(image, "image", image),
];

fn source(path: &Path<'_>, volume: &Volume, pod: Option<&str>, options: Options, errors: &mut Errors) {
    let own = &volume.volume_source;
    let context = Context { volume: &volume.name, pod, options };
    let mut any = false;
    if let Some(empty) = &own.empty_dir {
        any = true;
        if empty.size_limit.as_ref().is_some_and(|limit| checks::amount(limit).is_negative()) {
            let why = "SizeLimit field must be a valid resource quantity";
            errors.push(FieldError::forbidden(path.child("emptyDir").child("sizeLimit"), why));
        }
    }
    for sort in SORTS.iter().filter(|sort| (sort.is_set)(own)) {
        if any {
            let why = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(path.child(sort.too_many), why));
        } else {
            (sort.check)(&path.child(sort.field), own, context, errors);
        }
        any = true;
        if sort.field == "iscsi" {
            initiator_fits(path, own, &volume.name, errors);
        }
        if sort.field == "ephemeral" && own.ephemeral.is_some() {
            claim_name_fits(path, context, errors);
        }
    }
    if !any {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// Most characters of a volume's name and where its target is.
const MAX_INITIATOR: usize = 64;

fn initiator_fits(path: &Path<'_>, source: &VolumeSource, name: &str, errors: &mut Errors) {
    let Some(iscsi) = source.iscsi.as_ref().filter(|i| i.initiator_name.is_some()) else { return };
    if name.len() + 1 + iscsi.target_portal.len() > MAX_INITIATOR {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(path.child("name"), name, why));
    }
}

/// The claim that is made for a volume is called after the Pod and the volume.
fn claim_name_fits(path: &Path<'_>, context: Context<'_>, errors: &mut Errors) {
    let Some(pod) = context.pod.filter(|_| !context.volume.is_empty()) else { return };
    let name = format!("{pod}-{}", context.volume);
    for why in names::dns1123_subdomain(&name) {
        let why = format!("PVC name \"{name}\": {why}");
        errors.push(FieldError::invalid(path.child("name"), context.volume, why));
    }
}

fn ephemeral(path: &Path<'_>, own: &api::core::v1::EphemeralVolumeSource, _: Context<'_>, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    match &own.volume_claim_template {
        None => errors.push(FieldError::required(path, "")),
        Some(template) => claim::template(&path, template, errors),
    }
}

fn image(path: &Path<'_>, own: &api::core::v1::ImageVolumeSource, context: Context<'_>, errors: &mut Errors) {
    if context.options.is_pod {
        checks::required(&path.child("reference"), &own.reference, errors);
    }
    checks::one_of(&path.child("pullPolicy"), &own.pull_policy, &PULL_POLICIES, errors);
}
