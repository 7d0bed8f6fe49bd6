//! ResourceSlices.

use api::dra::v1::{CounterSet, Device, ResourcePool, ResourceSlice, ResourceSliceSpec};

use super::device::{self, counters, named};
use super::{distinct, driver_name, pool_name};
use crate::status::{FieldError, Shown};
use crate::validation::pod::node_selector;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const MAX_DEVICES: usize = 128;
/// Where devices say more than what they are.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;

pub fn resource_slice(change: &Change<'_, ResourceSlice>, errors: &mut Errors) {
    let (new, old) = (&change.new.spec, change.old.map(|old| &old.spec));
    driver_name(&SPEC.child("driver"), &new.driver, errors);
    pool(&SPEC.child("pool"), &new.pool, errors);
    if let Some(old) = old {
        let path = SPEC.child("pool");
        checks::immutable(&path.child("name"), (&new.pool.name, &old.pool.name), String::clone, errors);
        checks::immutable(&SPEC.child("driver"), (&new.driver, &old.driver), String::clone, errors);
        let name = |name: &Option<String>| shown::optional_text(name.as_ref());
        checks::immutable(&SPEC.child("nodeName"), (&new.node_name, &old.node_name), name, errors);
    }
    nodes(new, errors);
    // Lists that hold nothing were given, too.
    let is_given = |list: &str| change.given["spec"][list].is_array();
    if is_given("sharedCounters") && is_given("devices") {
        errors.push(FieldError::invalid(SPEC, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let max = if new.devices.iter().any(is_advanced) { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let of_devices = new.per_device_node_selection == Some(true);
    let each = |path: &Path<'_>, each: &Device, errors: &mut Errors| {
        let before = old.and_then(|old| old.devices.iter().find(|device| device.name == each.name));
        device::device(path, each, (before, of_devices), errors);
    };
    let key = (|device: &Device| device.name.clone(), |device: &Device| Shown::from(&device.name));
    distinct(&SPEC.child("devices"), (&new.devices, max), each, key, errors);
    let key = (|set: &CounterSet| set.name.clone(), |set: &CounterSet| Shown::from(&set.name));
    let list = SPEC.child("sharedCounters");
    distinct(&list, (&new.shared_counters, MAX_COUNTER_SETS), counter_set, key, errors);
}

fn is_advanced(device: &Device) -> bool {
    let lists = device
        .attributes
        .values()
        .any(|a| !a.bools.is_empty() || !a.ints.is_empty() || !a.strings.is_empty() || !a.versions.is_empty());
    lists || !device.taints.is_empty() || !device.consumes_counters.is_empty()
}

fn pool(path: &Path<'_>, pool: &ResourcePool, errors: &mut Errors) {
    pool_name(&path.child("name"), &pool.name, errors);
    if pool.resource_slice_count <= 0 {
        let why = "must be greater than zero";
        errors.push(FieldError::invalid(path.child("resourceSliceCount"), pool.resource_slice_count, why));
    }
    if pool.generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("generation"), pool.generation, why));
    }
}

fn nodes(spec: &ResourceSliceSpec, errors: &mut Errors) {
    let mut set = Vec::new();
    let path = SPEC.child("nodeName");
    match spec.node_name.as_deref() {
        Some("") => {
            errors.push(FieldError::invalid(path, "", "must be either unset or set to a non-empty string"));
        }
        Some(name) => {
            set.push("`nodeName`");
            checks::text(&path, name, names::dns1123_subdomain(name), errors);
        }
        None => {}
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let path = SPEC.child("nodeSelector");
        node_selector(&path, selector, false, errors);
        if selector.node_selector_terms.len() != 1 {
            let value = shown::structures("k8s.io.api.core.v1.NodeSelectorTerm", &selector.node_selector_terms);
            let why = "must have exactly one node selector term";
            errors.push(FieldError::invalid(path.child("nodeSelectorTerms"), value, why));
        }
    }
    let flags = [("allNodes", spec.all_nodes), ("perDeviceNodeSelection", spec.per_device_node_selection)];
    for (field, flag) in flags {
        match flag {
            Some(true) => set.push(if field == "allNodes" { "`allNodes`" } else { "`perDeviceNodeSelection`" }),
            Some(false) => {
                let why = "must be either unset or set to true";
                errors.push(FieldError::invalid(SPEC.child(field), false, why));
            }
            None => {}
        }
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.push(FieldError::required(SPEC, ONE)),
        1 => {}
        _ => {
            let value = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid(SPEC, value, format!("{ONE}, but multiple fields are set")));
        }
    }
}

fn counter_set(path: &Path<'_>, set: &CounterSet, errors: &mut Errors) {
    named(&path.child("name"), &set.name, errors);
    counters(&path.child("counters"), set.counters.keys(), MAX_COUNTERS, errors);
}
