//! Volumes, claims and the drivers behind them.

use std::collections::BTreeMap;

use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::storage::v1::{CsiDriver, CsiNode, StorageClass, VolumeAttachment, VolumeAttributesClass};

use super::cell::{Cell, age};
use super::cells;
use super::text::{or_none, quantity};

/// Held the storage class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const UNSET: &str = "<unset>";

const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

fn access_modes(modes: &[String]) -> String {
    let held = ACCESS_MODES.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn class<'o>(annotations: &'o BTreeMap<String, String>, field: &'o str) -> &'o str {
    annotations.get(CLASS_ANNOTATION).map_or(field, String::as_str)
}

pub(super) fn persistent_volume(object: &PersistentVolume) -> Vec<Cell> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let claim = spec.claim_ref.as_ref().map(|claim| format!("{}/{}", claim.namespace, claim.name));
    let phase = if meta.deletion_timestamp.is_some() { "Terminating" } else { &object.status.phase };
    cells![
        meta.name.as_str(),
        quantity(spec.capacity.get("storage")),
        access_modes(&spec.access_modes),
        spec.persistent_volume_reclaim_policy.as_str(),
        phase,
        claim.unwrap_or_default(),
        class(&meta.annotations, &spec.storage_class_name),
        spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET),
        object.status.reason.as_str(),
        age(&meta.creation_timestamp),
        spec.volume_mode.as_deref().unwrap_or(UNSET),
    ]
}

pub(super) fn persistent_volume_claim(object: &PersistentVolumeClaim) -> Vec<Cell> {
    let (meta, spec, status) = (&object.metadata, &object.spec, &object.status);
    let phase = if meta.deletion_timestamp.is_some() { "Terminating" } else { &status.phase };
    let (capacity, modes) = if spec.volume_name.is_empty() {
        ("", String::new())
    } else {
        (quantity(status.capacity.get("storage")), access_modes(&status.access_modes))
    };
    cells![
        meta.name.as_str(),
        phase,
        spec.volume_name.as_str(),
        capacity,
        modes,
        class(&meta.annotations, spec.storage_class_name.as_deref().unwrap_or_default()),
        spec.volume_attributes_class_name.as_deref().unwrap_or(UNSET),
        age(&meta.creation_timestamp),
        spec.volume_mode.as_deref().unwrap_or(UNSET),
    ]
}

pub(super) fn storage_class(object: &StorageClass) -> Vec<Cell> {
    let is_default = |name: &&str| object.metadata.annotations.get(*name).is_some_and(|v| v == "true");
    let suffix = if DEFAULT_CLASS.iter().any(is_default) { " (default)" } else { "" };
    cells![
        format!("{}{suffix}", object.metadata.name),
        object.provisioner.as_str(),
        object.reclaim_policy.as_deref().unwrap_or("Delete"),
        object.volume_binding_mode.as_deref().unwrap_or("Immediate"),
        object.allow_volume_expansion.unwrap_or(false),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn volume_attributes_class(object: &VolumeAttributesClass) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.driver_name.as_str(), age(&object.metadata.creation_timestamp),]
}

pub(super) fn volume_attachment(object: &VolumeAttachment) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.spec.attacher.as_str(),
        object.spec.source.persistent_volume_name.as_deref().unwrap_or_default(),
        object.spec.node_name.as_str(),
        object.status.attached,
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn csi_node(object: &CsiNode) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.spec.drivers.len(), age(&object.metadata.creation_timestamp),]
}

pub(super) fn csi_driver(object: &CsiDriver) -> Vec<Cell> {
    let spec = &object.spec;
    let audiences: Vec<&str> = spec.token_requests.iter().map(|r| r.audience.as_str()).collect();
    cells![
        object.metadata.name.as_str(),
        spec.attach_required.unwrap_or(true),
        spec.pod_info_on_mount.unwrap_or(false),
        spec.storage_capacity.unwrap_or(false),
        if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") },
        spec.requires_republish.unwrap_or(false),
        or_none(&spec.volume_lifecycle_modes.join(",")),
        age(&object.metadata.creation_timestamp),
    ]
}

#[cfg(test)]
mod tests {
    use api::Quantity;

    use super::*;

    #[test]
    fn a_claim_shows_capacity_once_it_has_a_volume() {
        let mut object = PersistentVolumeClaim::default();
        object.status.capacity.insert("storage".into(), Quantity::new("1Gi"));
        object.status.access_modes = vec!["ReadWriteMany".into(), "ReadWriteOnce".into(), "ReadWriteMany".into()];
        let cells = |object: &PersistentVolumeClaim| persistent_volume_claim(object);
        assert_eq!(cells(&object)[3..5], ["", ""]);
        object.spec.volume_name = "v".into();
        assert_eq!(cells(&object)[3..5], ["1Gi", "RWO,RWX"]);
    }
}
