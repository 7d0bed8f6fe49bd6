//! Devices and claims on them.

use api::dra::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use api::dra::v1beta2::DeviceTaintRule;

use super::cell::{Cell, age};
use super::cells;

pub(super) fn device_class(object: &DeviceClass) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), age(&object.metadata.creation_timestamp)]
}

pub(super) fn device_taint_rule(object: &DeviceTaintRule) -> Vec<Cell> {
    let taint = &object.spec.taint;
    cells![
        object.metadata.name.as_str(),
        taint.key.as_str(),
        taint.value.as_str(),
        taint.effect.as_str(),
        taint.time_added.as_ref().map_or_else(|| "".into(), age),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn resource_claim(object: &ResourceClaim) -> Vec<Cell> {
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    let state = match (&object.status.allocation, is_deleted, object.status.reserved_for.is_empty()) {
        (None, true, _) => "deleted",
        (None, false, _) => "pending",
        (Some(_), true, true) => "deleted,allocated",
        (Some(_), true, false) => "deleted,allocated,reserved",
        (Some(_), false, true) => "allocated",
        (Some(_), false, false) => "allocated,reserved",
    };
    cells![object.metadata.name.as_str(), state, age(&object.metadata.creation_timestamp)]
}

pub(super) fn resource_claim_template(object: &ResourceClaimTemplate) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), age(&object.metadata.creation_timestamp)]
}

pub(super) fn resource_slice(object: &ResourceSlice) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.spec.node_name.as_deref().unwrap_or_default(),
        object.spec.driver.as_str(),
        object.spec.pool.name.as_str(),
        age(&object.metadata.creation_timestamp),
    ]
}
