//! Devices of ResourceSlices.

use api::Quantity;
use api::dra::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceAttribute, DeviceCapacity,
    DeviceCounterConsumption, DeviceTaint,
};
use api::dra::v1beta2::DeviceTaintRule;

use super::{distinct, driver_name, items, label, pool_name, qualified_name};
use crate::status::{FieldError, Shown};
use crate::strategy::Part;
use crate::validation::pod::node_selector;
use crate::validation::{Change, Errors, Path, checks, names, resources, shown};

const MAX_ATTRIBUTES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_VALUE_LEN: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_RULE_CONDITIONS: u64 = 8;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_COUNTERS: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
const MAX_VALID_VALUES: usize = 10;
/// Domain, slash and name; a longer key is shown with its middle left out.
const MAX_KEY_LEN: usize = 63 + 1 + 32;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

pub(super) fn device(
    path: &Path<'_>,
    device: &Device,
    (old, of_devices): (Option<&Device>, bool),
    errors: &mut Errors,
) {
    label(&path.child("name"), &device.name, errors);
    let count = device.attributes.len() + device.capacity.len();
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(FieldError::invalid(path, count, why));
    }
    let count = device.attributes.values().map(|attribute| values(attribute).max(1)).sum::<usize>();
    if count > MAX_VALUES {
        let why = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.push(FieldError::invalid(path, count, why));
    }
    for (key, value) in &device.attributes {
        let list = path.child("attributes");
        qualified_name(&list, key, errors);
        attribute(&list.key(&shortened(key)), value, errors);
    }
    for (key, value) in &device.capacity {
        let list = path.child("capacity");
        qualified_name(&list, key, errors);
        capacity(&list.key(&shortened(key)), value, device.allow_multiple_allocations == Some(true), errors);
    }
    if old.is_none_or(|old| old.taints != device.taints) {
        items(&path.child("taints"), &device.taints, MAX_TAINTS, taint, errors);
    }
    let key = (
        |c: &DeviceCounterConsumption| c.counter_set.clone(),
        |c: &DeviceCounterConsumption| Shown::from(&c.counter_set),
    );
    let list = path.child("consumesCounters");
    distinct(&list, (&device.consumes_counters, MAX_CONSUMPTIONS), consumption, key, errors);
    nodes(path, device, of_devices, errors);
    binding(path, &device.binding_conditions, &device.binding_failure_conditions, errors);
    mappings(&path.child("nodeAllocatableResourceMappings"), device, errors);
}

fn shortened(key: &str) -> std::borrow::Cow<'_, str> {
    const DOTS: &str = "...";
    if key.len() <= MAX_KEY_LEN {
        return key.into();
    }
    let rest = MAX_KEY_LEN - DOTS.len();
    let (head, tail) = (rest.div_ceil(2), key.len() - rest / 2);
    format!("{}{DOTS}{}", key.get(..head).unwrap_or_default(), key.get(tail..).unwrap_or_default()).into()
}

/// How many values an attribute lists.
fn values(attribute: &DeviceAttribute) -> usize {
    attribute.bools.len() + attribute.ints.len() + attribute.strings.len() + attribute.versions.len()
}

fn attribute(path: &Path<'_>, attribute: &DeviceAttribute, errors: &mut Errors) {
    let DeviceAttribute { int, bool, string, version, ints, bools, strings, versions } = attribute;
    if let Some(text) = string {
        short(&path.child("string"), text, errors);
    }
    if let Some(text) = version {
        semantic_version(&path.child("version"), text, errors);
    }
    strings.iter().enumerate().for_each(|(i, text)| short(&path.child("strings").index(i), text, errors));
    versions.iter().enumerate().for_each(|(i, text)| semantic_version(&path.child("versions").index(i), text, errors));
    let set = [
        int.is_some(),
        bool.is_some(),
        string.is_some(),
        version.is_some(),
        !ints.is_empty(),
        !bools.is_empty(),
        !strings.is_empty(),
        !versions.is_empty(),
    ];
    let value = match set.iter().filter(|set| **set).count() {
        0 => Shown::from(""),
        1 => return,
        _ => shown::structure("k8s.io.api.resource.v1.DeviceAttribute", attribute),
    };
    errors.push(FieldError::invalid(path, value, "exactly one value must be specified"));
}

fn short(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.len() > MAX_VALUE_LEN {
        errors.push(FieldError::too_long(path, MAX_VALUE_LEN));
    }
}

fn semantic_version(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if !is_semantic_version(text) {
        let why = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(FieldError::invalid(path, text, why));
    }
    short(path, text, errors);
}

fn is_semantic_version(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| number(part) || word(part) && !digits(part)))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn capacity(path: &Path<'_>, capacity: &DeviceCapacity, shared: bool, errors: &mut Errors) {
    let Some(policy) = &capacity.request_policy else { return };
    let path = path.child("requestPolicy");
    if !shared {
        return errors.push(FieldError::forbidden(path, "allowMultipleAllocations must be true"));
    }
    request_policy(&path, &capacity.value, policy, errors);
}

fn request_policy(path: &Path<'_>, max: &Quantity, policy: &CapacityRequestPolicy, errors: &mut Errors) {
    let required = |what: &str| FieldError::required(path.child("default"), format!("required when {what} is defined"));
    match (policy.valid_values.as_slice(), &policy.valid_range, &policy.default) {
        ([], None, _) => {}
        ([_, ..], Some(_), _) => {
            let why = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
            errors.push(FieldError::forbidden(path, why));
        }
        ([_, ..], None, None) => errors.push(required("validValues")),
        ([], Some(_), None) => errors.push(required("validRange")),
        (values, None, Some(default)) => valid_values(&path.child("validValues"), (values, default, max), errors),
        ([], Some(range), Some(default)) => valid_range(&path.child("validRange"), (range, default, max), errors),
    }
}

fn valid_values(path: &Path<'_>, (values, default, max): (&[Quantity], &Quantity, &Quantity), errors: &mut Errors) {
    let amount = checks::amount;
    for (i, pair) in values.windows(2).enumerate() {
        if amount(&pair[0]) > amount(&pair[1]) {
            let why = "values must be sorted in ascending order";
            errors.push(FieldError::invalid(path.index(i + 1), &pair[1].string, why));
        }
    }
    let each = |path: &Path<'_>, value: &Quantity, errors: &mut Errors| {
        if amount(value) > amount(max) {
            let why = format!("option is larger than capacity value: {}", max.string);
            errors.push(FieldError::invalid(path, &value.string, why));
        }
    };
    let key =
        (|value: &Quantity| amount(value).value(), |value: &Quantity| Shown::from(amount(value).value().to_string()));
    distinct(path, (values, MAX_VALID_VALUES), each, key, errors);
    let is_default = |value: &Quantity| same(value, default);
    if values.len() > MAX_VALID_VALUES || !values.iter().any(is_default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, &default.string, why));
    }
}

fn same(one: &Quantity, other: &Quantity) -> bool {
    checks::amount(one).partial_cmp(&checks::amount(other)) == Some(std::cmp::Ordering::Equal)
}

fn valid_range(
    path: &Path<'_>,
    (range, default, capacity): (&CapacityRequestPolicyRange, &Quantity, &Quantity),
    errors: &mut Errors,
) {
    let Some(min) = &range.min else {
        return errors.push(FieldError::required(path.child("min"), "required when validRange is defined"));
    };
    at_most(&path.child("min"), (min, "min"), (capacity, "larger than capacity value"), errors);
    if checks::amount(default) < checks::amount(min) {
        let why = format!("default is less than min: {}", min.string);
        errors.push(FieldError::invalid(path.child("min"), &default.string, why));
    }
    if let Some(max) = &range.max {
        let path = path.child("max");
        at_most(&path, (min, "min"), (max, "larger than max"), errors);
        at_most(&path, (max, "max"), (capacity, "larger than capacity value"), errors);
        at_most(&path, (default, "default"), (max, "more than max"), errors);
    }
    let Some(step) = &range.step else { return };
    let added = checks::amount(min).plus(&checks::amount(step));
    if added > checks::amount(capacity) {
        let why = format!("one step {} is larger than capacity value: {}", added.canonical(), capacity.string);
        errors.push(FieldError::invalid(path.child("step"), &step.string, why));
    }
    for value in std::iter::once(default).chain(&range.max) {
        let distance = checks::amount(value).value().saturating_sub(checks::amount(min).value());
        if distance.checked_rem(checks::amount(step).value()) != Some(0) {
            let why = format!("value is not a multiple of a given step ({}) from ({})", step.string, min.string);
            errors.push(FieldError::invalid(path.child("step"), &value.string, why));
        }
    }
}

/// An amount by name that is not above another, and what it is if it is.
fn at_most(path: &Path<'_>, (low, name): (&Quantity, &str), (high, why): (&Quantity, &str), errors: &mut Errors) {
    if checks::amount(low) > checks::amount(high) {
        let why = format!("{name} is {why}: {}", high.string);
        errors.push(FieldError::invalid(path, &low.string, why));
    }
}

fn taint(path: &Path<'_>, taint: &DeviceTaint, errors: &mut Errors) {
    key_and_value(path, (&taint.key, &taint.value), errors);
    checks::one_of(&path.child("effect"), &taint.effect, EFFECTS, errors);
}

fn key_and_value(path: &Path<'_>, (key, value): (&str, &str), errors: &mut Errors) {
    checks::text(&path.child("key"), key, names::qualified(key), errors);
    if !value.is_empty() {
        checks::text(&path.child("value"), value, names::label_value(value), errors);
    }
}

pub fn taint_rule(change: &Change<'_, DeviceTaintRule>, errors: &mut Errors) {
    if change.part == Part::Status {
        let path = Path::root("status");
        let (path, conditions) = (path.child("conditions"), &change.new.status.conditions);
        crate::validation::conditions::conditions(&path, conditions, errors);
        if conditions.len() as u64 > MAX_RULE_CONDITIONS {
            errors.push(FieldError::too_many(path, conditions.len(), MAX_RULE_CONDITIONS));
        }
        return;
    }
    let (path, spec) = (Path::root("spec"), &change.new.spec);
    if let Some(selector) = &spec.device_selector {
        let path = path.child("deviceSelector");
        if let Some(driver) = &selector.driver {
            driver_name(&path.child("driver"), driver, errors);
        }
        if let Some(pool) = &selector.pool {
            pool_name(&path.child("pool"), pool, errors);
        }
        if let Some(device) = &selector.device {
            label(&path.child("device"), device, errors);
        }
    }
    let path = path.child("taint");
    key_and_value(&path, (&spec.taint.key, &spec.taint.value), errors);
    if change.old.is_none_or(|old| old.spec.taint.effect != spec.taint.effect) {
        checks::one_of(&path.child("effect"), &spec.taint.effect, EFFECTS, errors);
    }
}

fn consumption(path: &Path<'_>, consumption: &DeviceCounterConsumption, errors: &mut Errors) {
    named(&path.child("counterSet"), &consumption.counter_set, errors);
    counters(&path.child("counters"), consumption.counters.keys(), MAX_COUNTERS, errors);
}

/// A label that has to be there.
pub(super) fn named(path: &Path<'_>, name: &str, errors: &mut Errors) {
    checks::required(path, name, errors);
    if !name.is_empty() {
        label(path, name, errors);
    }
}

pub(super) fn counters<'a>(
    path: &Path<'_>,
    names: impl ExactSizeIterator<Item = &'a String>,
    max: usize,
    errors: &mut Errors,
) {
    match names.len() {
        0 => errors.push(FieldError::required(path, "")),
        count if count > max => errors.push(FieldError::too_many(path, count, max as u64)),
        _ => names.for_each(|name| label(path, name, errors)),
    }
}

fn nodes(path: &Path<'_>, device: &Device, of_devices: bool, errors: &mut Errors) {
    if !of_devices {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(FieldError::invalid(path, serde_json::Value::Null, why));
        }
        return;
    }
    let mut set = Vec::new();
    match device.node_name.as_deref() {
        Some("") => errors.push(FieldError::invalid(path.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            set.push("`nodeName`");
            checks::text(&path.child("nodeName"), name, names::dns1123_subdomain(name), errors);
        }
        None => {}
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        node_selector(&path.child("nodeSelector"), selector, false, errors);
    }
    match device.all_nodes {
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            let why = "must be either unset or set to true";
            errors.push(FieldError::invalid(path.child("allNodes"), false, why));
        }
        None => {}
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => errors.push(FieldError::required(path, why)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, format!("{{{}}}", set.join(", ")), why)),
    }
}

/// Conditions that have to hold before a device is bound, and that say that it cannot be.
pub(super) fn binding(path: &Path<'_>, wanted: &[String], failures: &[String], errors: &mut Errors) {
    let (wanted_path, failures_path) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    let each = |path: &Path<'_>, name: &String, errors: &mut Errors| {
        checks::text(path, name, names::qualified(name), errors);
    };
    items(&wanted_path, wanted, MAX_BINDING_CONDITIONS, each, errors);
    items(&failures_path, failures, MAX_BINDING_CONDITIONS, each, errors);
    for (i, name) in wanted.iter().enumerate().filter(|(i, name)| wanted[..*i].contains(name)) {
        errors.push(FieldError::duplicate(wanted_path.index(i), name));
    }
    for (i, name) in failures.iter().enumerate() {
        if failures[..i].contains(name) {
            errors.push(FieldError::duplicate(failures_path.index(i), name));
        }
        if wanted.contains(name) {
            let why = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(FieldError::invalid(failures_path.index(i), name, why));
        }
    }
    if wanted.is_empty() && !failures.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        errors.push(FieldError::invalid(wanted_path, shown::texts(wanted), why));
    }
    if failures.is_empty() && !wanted.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        errors.push(FieldError::invalid(failures_path, shown::texts(failures), why));
    }
}

fn mappings(path: &Path<'_>, device: &Device, errors: &mut Errors) {
    for (name, mapping) in &device.node_allocatable_resource_mappings {
        let path = path.key(name);
        if !resources::is_native(name) {
            errors.push(FieldError::invalid(path, shown::word(name), "must be a node allocatable resource name"));
        }
        if mapping.allocation_multiplier.is_none() && mapping.capacity_key.is_none() {
            let why = "at least one of allocationMultiplier or capacityKey must be set";
            errors.push(FieldError::invalid(path, "", why));
        }
        if let Some(factor) = &mapping.allocation_multiplier {
            let amount = checks::amount(factor);
            if amount.is_negative() || amount.is_zero() {
                errors.push(FieldError::invalid(
                    path.child("allocationMultiplier"),
                    &factor.string,
                    "must be positive",
                ));
            }
        }
        let at = path.child("capacityKey");
        match mapping.capacity_key.as_deref() {
            Some("") => errors.push(FieldError::invalid(at, "", "capacityKey must not be an empty string")),
            Some(key) if !device.capacity.contains_key(key) => errors.push(FieldError::not_found(at, shown::word(key))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for (text, fits) in
            [("1.2.3", true), ("1.2.3-a.1+b", true), ("1.2", false), ("01.2.3", false), ("1.2.3-01", false)]
        {
            assert_eq!(is_semantic_version(text), fits, "{text}");
        }
        let long = "a".repeat(100);
        assert_eq!(shortened(&long).len(), MAX_KEY_LEN);
    }
}
