//! What became of ResourceClaims.

use std::collections::HashSet;

use api::dra::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};

use super::claim::Names;
use super::device::binding;
use super::{MAX_CONFIGURATIONS, configuration, distinct, driver_name, items, label, pool_name, raw_object, uid};
use crate::status::{FieldError, Shown};
use crate::validation::addresses::parse_cidr_sloppy;
use crate::validation::conditions::conditions;
use crate::validation::pod::node_selector;
use crate::validation::{Errors, Path, checks, shown};

const STATUS: Path<'static> = Path::root("status");
const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA_BYTES: usize = 10 << 10;
const MAX_INTERFACE_NAME_LEN: usize = 256;
const MAX_HARDWARE_ADDRESS_LEN: usize = 128;
const MAX_ADDRESSES: usize = 16;

/// A device by driver, pool, name and share.
type Id<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

pub(super) fn claim_status(claim: &ResourceClaim, old: &ResourceClaimStatus, errors: &mut Errors) {
    let (new, names) = (&claim.status, Names::of(&claim.spec.devices));
    let reserved = STATUS.child("reservedFor");
    let key =
        (|r: &ResourceClaimConsumerReference| r.uid.clone(), |r: &ResourceClaimConsumerReference| shown::word(&r.uid));
    distinct(&reserved, (&new.reserved_for, MAX_RESERVED), consumer, key, errors);
    let results = new.allocation.iter().flat_map(|allocation| &allocation.devices.results);
    let allocated: HashSet<Id<'_>> =
        results.map(|r| (&*r.driver, &*r.pool, &*r.device, r.share_id.as_deref())).collect();
    let each = |path: &Path<'_>, device: &AllocatedDeviceStatus, errors: &mut Errors| {
        device_status(path, device, allocated.contains(&id(device)), errors);
    };
    let key = (|device| id(device), |device: &AllocatedDeviceStatus| shown_id(device));
    distinct(&STATUS.child("devices"), (&new.devices, usize::MAX), each, key, errors);
    let deleted = claim.metadata.deletion_timestamp.is_some();
    if !new.reserved_for.is_empty() {
        if new.allocation.is_none() {
            errors.push(FieldError::forbidden(reserved, "may not be specified when `allocated` is not set"));
        } else if deleted && new.reserved_for.iter().any(|consumer| !old.reserved_for.contains(consumer)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(reserved, why));
        }
    }
    let path = STATUS.child("allocation");
    match (&old.allocation, &new.allocation) {
        (Some(before), Some(after)) => {
            let shown = |value: &AllocationResult| shown::structure("k8s.io.api.resource.v1.AllocationResult", value);
            checks::immutable(&path, (after, before), shown, errors);
        }
        (None, Some(after)) => allocation(&path, after, &names, errors),
        (_, None) => {}
    }
}

fn id(device: &AllocatedDeviceStatus) -> Id<'_> {
    (&device.driver, &device.pool, &device.device, device.share_id.as_deref())
}

/// A device as its identity is shown: a structure of its own with fields in this order.
fn shown_id(device: &AllocatedDeviceStatus) -> Shown {
    let (driver, pool, name, share) = id(device);
    let parts = [("{\"Driver\":", driver), (",\"Pool\":", pool), (",\"Device\":", name)];
    let mut text = String::new();
    for (key, part) in parts.into_iter().chain([(",\"ShareID\":", share.unwrap_or_default())]) {
        text.push_str(key);
        text.push_str(&shown::quoted(part));
    }
    text.push('}');
    Shown::spelled(text)
}

fn consumer(path: &Path<'_>, consumer: &ResourceClaimConsumerReference, errors: &mut Errors) {
    let fields = [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)];
    fields.iter().for_each(|(field, text)| checks::required(&path.child(field), text, errors));
}

fn allocation(path: &Path<'_>, allocation: &AllocationResult, names: &Names<'_>, errors: &mut Errors) {
    let devices = path.child("devices");
    let each = |path: &Path<'_>, result: &DeviceRequestAllocationResult, errors: &mut Errors| {
        names.reference(&path.child("request"), &result.request, errors);
        driver_name(&path.child("driver"), &result.driver, errors);
        pool_name(&path.child("pool"), &result.pool, errors);
        label(&path.child("device"), &result.device, errors);
        binding(path, &result.binding_conditions, &result.binding_failure_conditions, errors);
        if let Some(share) = &result.share_id {
            uid(&path.child("shareID"), share, errors);
        }
    };
    items(&devices.child("results"), &allocation.devices.results, MAX_RESULTS, each, errors);
    let each = |path: &Path<'_>, config: &DeviceAllocationConfiguration, errors: &mut Errors| {
        checks::one_of(&path.child("source"), &config.source, &["FromClaim", "FromClass"], errors);
        names.references(path, &config.requests, errors);
        configuration(path, &config.device_configuration, false, errors);
    };
    items(&devices.child("config"), &allocation.devices.config, 2 * MAX_CONFIGURATIONS, each, errors);
    if let Some(selector) = &allocation.node_selector {
        node_selector(&path.child("nodeSelector"), selector, false, errors);
    }
}

fn device_status(path: &Path<'_>, device: &AllocatedDeviceStatus, allocated: bool, errors: &mut Errors) {
    driver_name(&path.child("driver"), &device.driver, errors);
    pool_name(&path.child("pool"), &device.pool, errors);
    label(&path.child("device"), &device.device, errors);
    if let Some(share) = &device.share_id {
        uid(&path.child("shareID"), share, errors);
    }
    if !allocated {
        errors.push(FieldError::invalid(path, shown_id(device), "must be an allocated device in the claim"));
    }
    let list = path.child("conditions");
    if device.conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(list, device.conditions.len(), MAX_CONDITIONS as u64));
    }
    conditions(&list, &device.conditions, errors);
    let data = device.data.as_ref().and_then(|data| data.raw.as_deref()).unwrap_or_default();
    if !data.is_empty() {
        raw_object(&path.child("data"), data, MAX_DATA_BYTES, errors);
    }
    if let Some(data) = &device.network_data {
        network_data(&path.child("networkData"), data, errors);
    }
}

fn network_data(path: &Path<'_>, data: &NetworkDeviceData, errors: &mut Errors) {
    let texts = [
        ("interfaceName", &data.interface_name, MAX_INTERFACE_NAME_LEN),
        ("hardwareAddress", &data.hardware_address, MAX_HARDWARE_ADDRESS_LEN),
    ];
    for (field, _, max) in texts.iter().filter(|(_, text, max)| text.len() > *max) {
        errors.push(FieldError::too_long(path.child(field), *max));
    }
    super::distinct_names(&path.child("ips"), &data.ips, MAX_ADDRESSES, interface_address, errors);
}

/// An address with the length of its network's prefix.
fn interface_address(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let Some((ip, length)) = parse_cidr_sloppy(text) else {
        let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return errors.push(FieldError::invalid(path, text, why));
    };
    let canonical = format!("{ip}/{length}");
    if canonical != text {
        errors.push(FieldError::invalid(path, text, format!("must be in canonical form (\"{canonical}\")")));
    }
}
