//! PersistentVolumes, also where they are written into another object.

use api::core::v1::{PersistentVolume, PersistentVolumeSource, PersistentVolumeSpec, VolumeNodeAffinity};

use super::volume_source as source;
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::pod::node_selector;
use crate::validation::{Change, Context, Errors, Path, checks, diff, names, resources, shown};

pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const INLINE: &str = "in the context of inline volumes";

pub fn persistent_volume(change: &Change<'_, PersistentVolume>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        return;
    }
    let old = change.old;
    let any_values = old.is_some_and(|old| has_invalid_values(&old.spec));
    let own = Own { name: &new.metadata.name, any_values };
    volume(&Path::root("spec"), &new.spec, Some(&own), errors);
    mount_options(new, errors);
    if let Some(old) = old {
        // All of it is told again of a change.
        volume(&Path::root("spec"), &new.spec, Some(&own), errors);
        updated(&change.path("spec"), (&new.spec, &old.spec), change.context, errors);
    }
}

/// Only some sources take options of mounting by annotation.
fn mount_options(volume: &PersistentVolume, errors: &mut Errors) {
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    let all = &volume.spec.persistent_volume_source;
    let takes = all.gce_persistent_disk.is_some()
        || all.aws_elastic_block_store.is_some()
        || all.glusterfs.is_some()
        || all.nfs.is_some()
        || all.rbd.is_some()
        || all.quobyte.is_some()
        || all.iscsi.is_some()
        || all.cinder.is_some()
        || all.cephfs.is_some()
        || all.azure_file.is_some()
        || all.vsphere_volume.is_some()
        || all.azure_disk.is_some()
        || all.photon_persistent_disk.is_some();
    if !takes && volume.metadata.annotations.contains_key(OPTIONS) {
        let path = Path::root("metadata.annotations");
        errors.push(FieldError::forbidden(path.child(OPTIONS), "may not specify mount options for this volume type"));
    }
}

fn has_invalid_values(spec: &PersistentVolumeSpec) -> bool {
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let terms = required.map_or(&[][..], |selector| &selector.node_selector_terms);
    let values = terms.iter().flat_map(|term| &term.match_expressions).flat_map(|e| &e.values);
    values.into_iter().any(|value| !names::label_value(value).is_empty())
}

/// What a volume that is no object of its own does not have.
pub struct Own<'a> {
    name: &'a str,
    any_values: bool,
}

/// Errors of a volume that is an object of its own, or else written into another.
pub fn volume(path: &Path<'_>, spec: &PersistentVolumeSpec, own: Option<&Own<'_>>, errors: &mut Errors) {
    if own.is_none() {
        inline(path, spec, errors);
    }
    access_modes(path, &spec.access_modes, "", errors);
    if own.is_some() {
        capacity(path, spec, errors);
    }
    let policy = &spec.persistent_volume_reclaim_policy;
    let at = path.child("persistentVolumeReclaimPolicy");
    if own.is_some() {
        if !policy.is_empty() {
            checks::supported(&at, policy, RECLAIM_POLICIES, errors);
        }
    } else if !policy.is_empty() && policy != "Retain" {
        errors.push(FieldError::forbidden(at, format!("may only be Retain {INLINE}")));
    }
    if let Some(affinity) = &spec.node_affinity {
        match own {
            Some(own) => node_affinity(&path.child("nodeAffinity"), affinity, own.any_values, errors),
            None => errors.push(FieldError::forbidden(path.child("nodeAffinity"), not_specified())),
        }
    }
    sources(path, spec, own.map_or("", |own| own.name), errors);
    let root = spec.persistent_volume_source.host_path.as_ref().is_some_and(|host| is_root(&host.path));
    if root && policy == "Recycle" {
        errors.push(FieldError::forbidden(at, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    classes(path, spec, own.is_some(), errors);
}

fn not_specified() -> String {
    format!("may not be specified {INLINE}")
}

fn inline(path: &Path<'_>, spec: &PersistentVolumeSpec, errors: &mut Errors) {
    if spec.claim_ref.is_some() {
        errors.push(FieldError::forbidden(path.child("claimRef"), not_specified()));
    }
    if !spec.capacity.is_empty() {
        errors.push(FieldError::forbidden(path.child("capacity"), not_specified()));
    }
    if spec.persistent_volume_source.csi.is_none() {
        errors.push(FieldError::required(path.child("csi"), format!("has to be specified {INLINE}")));
    }
}

/// Whether the path is that of the root, however it is written.
fn is_root(path: &str) -> bool {
    path.starts_with('/')
        && path.split('/').fold(0usize, |depth, part| match part {
            "" | "." => depth,
            ".." => depth.saturating_sub(1),
            _ => depth + 1,
        }) == 0
}

/// Modes of access; `missing` is said if there are none.
pub fn access_modes(path: &Path<'_>, modes: &[String], missing: &str, errors: &mut Errors) {
    let path = path.child("accessModes");
    if modes.is_empty() && missing.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    for mode in modes {
        checks::supported(&path, mode, ACCESS_MODES, errors);
    }
    let alone = |mode: &String| mode == "ReadWriteOncePod";
    let others = modes.iter().any(|mode| !alone(mode) && ACCESS_MODES.contains(&mode.as_str()));
    if modes.iter().any(alone) && others {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn capacity(path: &Path<'_>, spec: &PersistentVolumeSpec, errors: &mut Errors) {
    let path = path.child("capacity");
    if spec.capacity.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if !spec.capacity.contains_key("storage") || spec.capacity.len() > 1 {
        let all: serde_json::Map<_, _> =
            spec.capacity.iter().map(|(name, quantity)| (name.clone(), quantity.string.as_str().into())).collect();
        let value = if all.is_empty() { serde_json::Value::Null } else { all.into() };
        errors.push(FieldError::not_supported(path, value, &["storage"]));
    }
    for (name, quantity) in &spec.capacity {
        resources::basic(&path.key(name), quantity, errors);
        checks::positive_quantity(&path.key(name), quantity, errors);
    }
}

fn node_affinity(path: &Path<'_>, affinity: &VolumeNodeAffinity, any_values: bool, errors: &mut Errors) {
    let path = path.child("required");
    match &affinity.required {
        Some(selector) => node_selector(&path, selector, any_values, errors),
        None => errors.push(FieldError::required(path, "must specify required node constraints")),
    }
}

/// A source by its field, and what is wrong with it.
type Source<'a> = (&'static str, Option<Check<'a>>);

/// What looks at a source that was found.
type Check<'a> = Box<dyn FnOnce(&Path<'_>, &mut Errors) + 'a>;

fn sources(path: &Path<'_>, spec: &PersistentVolumeSpec, name: &str, errors: &mut Errors) {
    let mut found = false;
    for (field, check) in all_sources(spec, name) {
        let Some(check) = check else { continue };
        // Of this one nothing is said, whatever comes before it.
        if found && field != "flexVolume" {
            let field = if field == "cephfs" { "cephFS" } else { field };
            errors.push(FieldError::forbidden(path.child(field), "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        let shown = if field == "gcePersistentDisk" { "persistentDisk" } else { field };
        check(&path.child(shown), errors);
        if field == "local" && spec.node_affinity.is_none() {
            let why = "Local volume requires node affinity";
            errors.push(FieldError::required(path.child("nodeAffinity"), why));
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn all_sources<'a>(spec: &'a PersistentVolumeSpec, name: &'a str) -> Vec<Source<'a>> {
    let all = &spec.persistent_volume_source;
    /// `shared!(field)` for a source that pods have, too, `own!(field, |path, source, errors| ..)` for others.
    macro_rules! own {
        ($found:expr, $check:expr) => {
            $found.as_ref().map(|found| {
                let check: Check<'a> =
                    Box::new(move |path: &Path<'_>, errors: &mut Errors| $check(path, found, errors));
                check
            })
        };
    }
    macro_rules! texts {
        ($found:expr, $($json:literal: $field:ident),+) => {
            $found.as_ref().map(|found| {
                let check: Check<'a> = Box::new(move |path: &Path<'_>, errors: &mut Errors| {
                    source::all_required(path, &[$(($json, &found.$field)),+], errors);
                });
                check
            })
        };
    }
    let mut list: Vec<Source<'a>> = vec![
        ("hostPath", own!(all.host_path, source::host_path)),
        ("gcePersistentDisk", own!(all.gce_persistent_disk, source::gce_persistent_disk)),
        ("awsElasticBlockStore", own!(all.aws_elastic_block_store, source::aws_elastic_block_store)),
        ("glusterfs", own!(all.glusterfs, glusterfs)),
        ("flocker", own!(all.flocker, source::flocker)),
        ("nfs", own!(all.nfs, source::nfs)),
        ("rbd", own!(all.rbd, rbd)),
        ("quobyte", own!(all.quobyte, source::quobyte)),
        ("cephfs", own!(all.cephfs, cephfs)),
        ("iscsi", all.iscsi.as_ref().map(|found| iscsi(found, name))),
        ("cinder", own!(all.cinder, cinder)),
        ("fc", own!(all.fc, source::fc)),
        ("flexVolume", own!(all.flex_volume, flex_volume)),
        ("azureFile", own!(all.azure_file, azure_file)),
        ("vsphereVolume", texts!(all.vsphere_volume, "volumePath": volume_path)),
        ("photonPersistentDisk", texts!(all.photon_persistent_disk, "pdID": pd_id)),
        ("portworxVolume", texts!(all.portworx_volume, "volumeID": volume_id)),
        ("azureDisk", own!(all.azure_disk, source::azure_disk)),
    ];
    list.extend([
        ("scaleIO", texts!(all.scale_io, "gateway": gateway, "system": system, "volumeName": volume_name)),
        ("local", own!(all.local, source::local)),
        ("storageos", own!(all.storageos, storageos)),
        ("csi", own!(all.csi, csi)),
    ]);
    list
}

mod own {
    //! Sources that only volumes of their own have in this form.

    use api::core::v1::{
        AzureFilePersistentVolumeSource, CephFsPersistentVolumeSource, CinderPersistentVolumeSource,
        CsiPersistentVolumeSource, FlexPersistentVolumeSource, GlusterfsPersistentVolumeSource,
        IscsiPersistentVolumeSource, RbdPersistentVolumeSource, StorageOsPersistentVolumeSource,
    };

    use super::source;
    use crate::status::FieldError;
    use crate::validation::{Errors, Path, checks, names};

    pub fn glusterfs(path: &Path<'_>, source: &GlusterfsPersistentVolumeSource, errors: &mut Errors) {
        source::all_required(path, &[("endpoints", &source.endpoints), ("path", &source.path)], errors);
        let Some(namespace) = &source.endpoints_namespace else { return };
        let path = path.child("endpointsNamespace");
        if namespace.is_empty() {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(path, namespace, why));
        } else {
            checks::text(&path, namespace, names::dns1123_label(namespace), errors);
        }
    }

    pub fn rbd(path: &Path<'_>, source: &RbdPersistentVolumeSource, errors: &mut Errors) {
        if source.monitors.is_empty() {
            errors.push(FieldError::required(path.child("monitors"), ""));
        }
        checks::required(&path.child("image"), &source.image, errors);
    }

    pub fn cephfs(path: &Path<'_>, source: &CephFsPersistentVolumeSource, errors: &mut Errors) {
        if source.monitors.is_empty() {
            errors.push(FieldError::required(path.child("monitors"), ""));
        }
    }

    pub fn cinder(path: &Path<'_>, source: &CinderPersistentVolumeSource, errors: &mut Errors) {
        checks::required(&path.child("volumeID"), &source.volume_id, errors);
        if let Some(secret) = &source.secret_ref {
            source::secret_is_named(path, &secret.name, Some(&secret.namespace), errors);
        }
    }

    pub fn flex_volume(path: &Path<'_>, source: &FlexPersistentVolumeSource, errors: &mut Errors) {
        checks::required(&path.child("driver"), &source.driver, errors);
        source::flex_options(path, &source.options, errors);
    }

    pub fn azure_file(path: &Path<'_>, source: &AzureFilePersistentVolumeSource, errors: &mut Errors) {
        source::all_required(path, &[("secretName", &source.secret_name), ("shareName", &source.share_name)], errors);
        if let Some(namespace) = &source.secret_namespace {
            checks::required(&path.child("secretNamespace"), namespace, errors);
        }
    }

    pub fn storageos(path: &Path<'_>, source: &StorageOsPersistentVolumeSource, errors: &mut Errors) {
        let (name, namespace) = (&source.volume_name, &source.volume_namespace);
        if name.is_empty() {
            errors.push(FieldError::required(path.child("volumeName"), ""));
        } else {
            checks::text(&path.child("volumeName"), name, names::dns1123_label(name), errors);
        }
        if !namespace.is_empty() {
            checks::text(&path.child("volumeNamespace"), namespace, names::dns1123_label(namespace), errors);
        }
        if let Some(secret) = &source.secret_ref {
            source::secret_is_named(path, &secret.name, Some(&secret.namespace), errors);
        }
    }

    pub fn csi(path: &Path<'_>, source: &CsiPersistentVolumeSource, errors: &mut Errors) {
        source::csi_driver_name(&path.child("driver"), &source.driver, errors);
        checks::required(&path.child("volumeHandle"), &source.volume_handle, errors);
        let secrets = [
            ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
            ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
            ("nodePublishSecretRef", &source.node_publish_secret_ref),
            ("nodeExpandSecretRef", &source.node_expand_secret_ref),
        ];
        for (field, secret) in secrets {
            if let Some(secret) = secret {
                source::secret_reference(&path.child(field), secret, errors);
            }
        }
    }

    /// A check that knows the name of the volume, too.
    pub fn iscsi<'a>(found: &'a IscsiPersistentVolumeSource, name: &'a str) -> super::Check<'a> {
        Box::new(move |path, errors| {
            let common = source::Iscsi {
                target_portal: &found.target_portal,
                iqn: &found.iqn,
                lun: found.lun,
                has_chap: found.chap_auth_discovery || found.chap_auth_session,
                has_secret: found.secret_ref.is_some(),
                initiator: found.initiator_name.as_deref(),
                volume: Some(name),
            };
            let secret = |errors: &mut Errors| {
                if let Some(secret) = &found.secret_ref {
                    source::secret_is_named(path, &secret.name, None, errors);
                }
            };
            source::iscsi(path, &common, secret, errors);
        })
    }
}
use own::{azure_file, cephfs, cinder, csi, flex_volume, glusterfs, iscsi, rbd, storageos};

fn classes(path: &Path<'_>, spec: &PersistentVolumeSpec, is_own: bool, errors: &mut Errors) {
    let class = &spec.storage_class_name;
    if !class.is_empty() {
        let path = path.child("storageClassName");
        if is_own {
            checks::text(&path, class, names::dns1123_subdomain(class), errors);
        } else {
            errors.push(FieldError::forbidden(path, not_specified()));
        }
    }
    if let Some(mode) = &spec.volume_mode {
        let path = path.child("volumeMode");
        if is_own {
            checks::supported(&path, mode, VOLUME_MODES, errors);
        } else if mode != "Filesystem" {
            let why = format!("may not specify volumeMode other than Filesystem {INLINE}");
            errors.push(FieldError::forbidden(path, why));
        }
    }
    let Some(class) = spec.volume_attributes_class_name.as_ref().filter(|_| is_own) else { return };
    let at = path.child("volumeAttributesClassName");
    if class.is_empty() {
        errors.push(FieldError::required(at, "an empty string is disallowed"));
    } else {
        checks::text(&at, class, names::dns1123_subdomain(class), errors);
    }
    if spec.persistent_volume_source.csi.is_none() {
        let why = "has to be specified when using volumeAttributesClassName";
        errors.push(FieldError::required(path.child("csi"), why));
    }
}

fn updated(
    path: &Path<'_>,
    (new, old): (&PersistentVolumeSpec, &PersistentVolumeSpec),
    context: Context<'_>,
    errors: &mut Errors,
) {
    let (before, after) = (&old.persistent_volume_source, &new.persistent_volume_source);
    if before != after {
        let after = without_late_secret(after, before);
        if *before != after {
            const NAME: &str = "k8s.io.api.core.v1.PersistentVolumeSource";
            let text = |source: &PersistentVolumeSource, given| shown::indented(&shown::text(NAME, source, given));
            let why = format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                diff::unified(&text(before, None), &text(&after, path.given()))
            );
            errors.push(FieldError::forbidden(Path::root("spec").child("persistentvolumesource"), why));
        }
    }
    if new.volume_mode != old.volume_mode {
        let value = shown::optional_text(new.volume_mode.as_ref());
        errors.push(FieldError::invalid("volumeMode", value, checks::IMMUTABLE));
    }
    if let Some(before) = &old.node_affinity
        && !context.features.is_on("MutablePVNodeAffinity")
    {
        affinity_stays(new.node_affinity.as_ref(), before, errors);
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        let path = Path::root("spec");
        errors.push(FieldError::forbidden(
            path.child("volumeAttributesClassName"),
            "update from non-nil value to nil is forbidden",
        ));
    }
}

/// Labels that were renamed: old, new.
const RENAMED: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// Where a volume can be used stays, but for new names of labels.
fn affinity_stays(new: Option<&VolumeNodeAffinity>, old: &VolumeNodeAffinity, errors: &mut Errors) {
    let mut renamed = old.clone();
    let terms = renamed.required.iter_mut().flat_map(|selector| &mut selector.node_selector_terms).zip(
        new.into_iter().filter_map(|new| new.required.as_ref()).flat_map(|selector| &selector.node_selector_terms),
    );
    for (before, after) in terms {
        let pairs = before.match_expressions.iter_mut().chain(&mut before.match_fields);
        for (before, after) in pairs.zip(after.match_expressions.iter().chain(&after.match_fields)) {
            if RENAMED.contains(&(before.key.as_str(), after.key.as_str())) {
                before.key.clone_from(&after.key);
            }
        }
    }
    if new != Some(&renamed) {
        let value = shown::optional("k8s.io.api.core.v1.VolumeNodeAffinity", new);
        let why = "field is immutable, except for updating from beta label to GA";
        errors.push(FieldError::invalid("nodeAffinity", value, why));
    }
}

/// A secret for growing may be added later.
fn without_late_secret(new: &PersistentVolumeSource, old: &PersistentVolumeSource) -> PersistentVolumeSource {
    let mut new = new.clone();
    if let (Some(csi), Some(before)) = (&mut new.csi, &old.csi)
        && before.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    new
}
