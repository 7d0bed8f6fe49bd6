//! Devices and claims on them.

use api::dra::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use api::dra::v1alpha3::{PoolStatus, ResourcePoolStatusRequest};
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

pub(super) fn resource_pool_status_request(object: &ResourcePoolStatusRequest) -> Vec<Cell> {
    let status = object.status.as_ref();
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let ended = conditions.iter().find(|c| matches!(c.r#type.as_str(), "Complete" | "Failed") && c.status == "True");
    let (count, pools) = status.map_or((0, &[][..]), |status| (status.pool_count.unwrap_or(0), &status.pools));
    let (state, completed) = match ended {
        Some(condition) if condition.r#type == "Failed" => ("Failed".to_owned(), None),
        Some(condition) if usize::try_from(count).is_ok_and(|count| count > pools.len()) => {
            (format!("Complete ({}/{count} pools)", pools.len()), Some(condition))
        }
        Some(condition) => ("Complete".to_owned(), Some(condition)),
        None => ("Pending".to_owned(), None),
    };
    let is_known = status.is_some() && state != "Failed";
    let sum = |count: fn(&PoolStatus) -> Option<i32>| -> String {
        let sum = || pools.iter().filter_map(count).fold(0, i32::wrapping_add);
        if is_known { sum().to_string() } else { "-".to_owned() }
    };
    cells![
        object.metadata.name.as_str(),
        object.spec.driver.as_str(),
        sum(|pool| pool.total_devices),
        sum(|pool| pool.available_devices),
        sum(|pool| pool.allocated_devices),
        sum(|pool| pool.unavailable_devices),
        sum(|pool| pool.validation_error.is_some().then_some(1)),
        count,
        state,
        completed.map_or_else(|| "<none>".into(), |condition| age(&condition.last_transition_time)),
    ]
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
