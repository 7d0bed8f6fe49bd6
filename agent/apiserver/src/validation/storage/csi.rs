//! Drivers of storage: what they are, where they run, how much room they have.

use std::collections::HashSet;

use api::storage::v1::{CsiDriver, CsiDriverSpec, CsiNode, CsiNodeDriver, CsiStorageCapacity, TokenRequest};

use crate::status::{FieldError, Shown};
use crate::validation::core::volume_source::csi_driver_name;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const MODES: &[&str] = &["Persistent", "Ephemeral"];
const MIN_TOKEN_SECONDS: i64 = 600;
const MIN_PERIOD_SECONDS: i64 = 10;
const MAX_NODE_ID_LEN: usize = 256;

pub fn csi_driver(change: &Change<'_, CsiDriver>, errors: &mut Errors) {
    let spec = &change.new.spec;
    let flags = [
        ("attachedRequired", spec.attach_required),
        ("podInfoOnMount", spec.pod_info_on_mount),
        ("storageCapacity", spec.storage_capacity),
    ];
    for (field, _) in flags.iter().filter(|(_, flag)| flag.is_none()) {
        errors.push(FieldError::required(SPEC.child(field), ""));
    }
    if let Some(policy) = &spec.fs_group_policy {
        checks::supported(&SPEC.child("fsGroupPolicy"), policy, FS_GROUP_POLICIES, errors);
    }
    token_requests(&SPEC.child("tokenRequests"), &spec.token_requests, errors);
    let modes = SPEC.child("volumeLifecycleModes");
    spec.volume_lifecycle_modes.iter().for_each(|mode| checks::supported(&modes, mode, MODES, errors));
    rest(spec, errors);
    if let Some(old) = change.old.map(|old| &old.spec) {
        let flag = |flag: &Option<bool>| flag.map_or_else(|| Shown::spelled("null"), Shown::from);
        let flags = (&spec.attach_required, &old.attach_required);
        checks::immutable(&SPEC.child("attachedRequired"), flags, flag, errors);
        let lists = (&spec.volume_lifecycle_modes, &old.volume_lifecycle_modes);
        checks::immutable(&modes, lists, |modes| shown::texts(modes), errors);
    }
}

fn rest(spec: &CsiDriverSpec, errors: &mut Errors) {
    if spec.se_linux_mount.is_none() {
        errors.push(FieldError::required(SPEC.child("seLinuxMount"), ""));
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|period| *period < MIN_PERIOD_SECONDS) {
        let why = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(SPEC.child("nodeAllocatableUpdatePeriodSeconds"), period, why));
    }
    if let Some(flag) = spec.service_account_token_in_secrets.filter(|_| spec.token_requests.is_empty()) {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(SPEC.child("serviceAccountTokenInSecrets"), flag, why));
    }
}

fn token_requests(path: &Path<'_>, requests: &[TokenRequest], errors: &mut Errors) {
    let mut audiences = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        if !audiences.insert(&request.audience) {
            errors.push(FieldError::duplicate(path.child("audience"), &request.audience));
            continue;
        }
        let Some(seconds) = request.expiration_seconds else { continue };
        let why = match seconds {
            ..MIN_TOKEN_SECONDS => "may not specify a duration less than 10 minutes",
            _ if seconds > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, why));
    }
}

pub fn csi_node(change: &Change<'_, CsiNode>, errors: &mut Errors) {
    let list = SPEC.child("drivers");
    let drivers = &change.new.spec.drivers;
    for (i, driver) in drivers.iter().enumerate() {
        node_driver(&list.index(i), driver, &drivers[..i], errors);
    }
    let reduced = |driver: &CsiNodeDriver| CsiNodeDriver { allocatable: None, ..driver.clone() };
    for old in change.old.iter().flat_map(|old| &old.spec.drivers) {
        for new in drivers.iter().filter(|new| new.name == old.name) {
            let shown = |driver: &CsiNodeDriver| shown::structure("k8s.io.api.storage.v1.CSINodeDriver", driver);
            checks::immutable(&list, (&reduced(new), &reduced(old)), shown, errors);
        }
    }
}

fn node_driver(path: &Path<'_>, driver: &CsiNodeDriver, earlier: &[CsiNodeDriver], errors: &mut Errors) {
    csi_driver_name(&path.child("name"), &driver.name, errors);
    let id = path.child("nodeID");
    checks::required(&id, &driver.node_id, errors);
    if driver.node_id.len() > MAX_NODE_ID_LEN {
        let why = format!("must be {MAX_NODE_ID_LEN} characters or less");
        errors.push(FieldError::invalid(id, &driver.node_id, why));
    }
    let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
    checks::non_negative_if_set(&path.child("allocatable").child("count"), count, errors);
    if earlier.iter().any(|other| other.name == driver.name) {
        errors.push(FieldError::duplicate(path.child("name"), &driver.name));
    }
    for (i, key) in driver.topology_keys.iter().enumerate() {
        checks::required(path, key, errors);
        if driver.topology_keys[..i].contains(key) {
            errors.push(FieldError::duplicate(path, key));
        }
        checks::text(path, key, names::qualified(key), errors);
    }
}

pub fn csi_storage_capacity(change: &Change<'_, CsiStorageCapacity>, errors: &mut Errors) {
    let (new, topology, class) = (change.new, Path::root("nodeTopology"), Path::root("storageClassName"));
    if let Some(selector) = &new.node_topology {
        labels::selector(
            &topology,
            selector,
            SelectorOptions::after(change.old.and_then(|old| old.node_topology.as_ref())),
            errors,
        );
    }
    checks::text(&class, &new.storage_class_name, names::dns1123_subdomain(&new.storage_class_name), errors);
    if let Some(capacity) = &new.capacity {
        checks::non_negative_quantity(&Path::root("capacity"), capacity, errors);
    }
    if let Some(old) = change.old {
        let selector = |selector: &Option<_>| {
            shown::optional("k8s.io.apimachinery.pkg.apis.meta.v1.LabelSelector", selector.as_ref())
        };
        checks::immutable(&topology, (&new.node_topology, &old.node_topology), selector, errors);
        checks::immutable(&class, (&new.storage_class_name, &old.storage_class_name), String::clone, errors);
    }
}
