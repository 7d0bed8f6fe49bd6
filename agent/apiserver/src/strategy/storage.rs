//! Volumes, claims of them, and of devices.

use api::features::Features;
use serde_json::{Value, json};

use crate::app::now_text;
use crate::tree;

/// Where a claim's data comes from stands in two fields, which follow one another.
pub(super) fn normalize_claim(claim: &mut Value, old: Option<&Value>, features: &Features) {
    let (source, reference) = ("/spec/dataSource", "/spec/dataSourceRef");
    let had = |path: &str| old.is_some_and(|old| tree::has(old, path));
    let elsewhere = !tree::text(claim, "/spec/dataSourceRef/namespace").is_empty();
    if elsewhere && !had(reference) && !features.is_on("CrossNamespaceVolumeDataSource") {
        tree::remove(&mut claim["spec"], "dataSourceRef");
    }
    if !had(source) && !had(reference) && !tree::has(claim, reference) && !is_known_source(&claim["spec"]["dataSource"])
    {
        tree::remove(&mut claim["spec"], "dataSource");
    }
    let (has_source, has_reference) = (tree::has(claim, source), tree::has(claim, reference));
    if has_source && !has_reference {
        claim["spec"]["dataSourceRef"] = claim["spec"]["dataSource"].clone();
    } else if has_reference && !has_source && tree::text(claim, "/spec/dataSourceRef/namespace").is_empty() {
        let mut own = claim["spec"]["dataSourceRef"].clone();
        tree::remove(&mut own, "namespace");
        claim["spec"]["dataSource"] = own;
    }
}

fn is_known_source(source: &Value) -> bool {
    let known = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
    known.contains(&(tree::text(source, "/kind"), tree::text(source, "/apiGroup")))
}

/// Says since when a volume is in its phase.
pub(super) fn stamp_phase(new: &mut Value, old: &Value) {
    const TIME: &str = "lastPhaseTransitionTime";
    let time = |volume: &Value| volume["status"][TIME].clone();
    let same = tree::text(new, "/status/phase") == tree::text(old, "/status/phase");
    let (given, before) = (time(new), time(old));
    if same && given.is_null() {
        if !before.is_null() {
            tree::object_at(new, "status").insert(TIME.to_owned(), before);
        }
    } else if !same && (given.is_null() || given == before) {
        tree::object_at(new, "status").insert(TIME.to_owned(), now_text().into());
    }
}

/// Forgets what devices report that a claim had, and has no more.
pub(super) fn forget_devices(new: &mut Value, old: &Value) {
    let id = |device: &Value| {
        let text = |key: &str| device[key].as_str().unwrap_or_default().to_owned();
        [text("driver"), text("pool"), text("device"), text("shareID")]
    };
    let results = |claim: &Value| -> Vec<[String; 4]> {
        tree::list(claim, "/status/allocation/devices/results").iter().map(id).collect()
    };
    let (before, after) = (results(old), results(new));
    let Some(devices) = new["status"].get_mut("devices").and_then(Value::as_array_mut) else { return };
    devices.retain(|device| !before.contains(&id(device)) || after.contains(&id(device)));
    if devices.is_empty() {
        tree::remove(&mut new["status"], "devices");
    }
}

/// An API that this server has itself is always there.
pub(super) fn local_api_service(service: &mut Value) {
    if !tree::has(service, "/spec/service") {
        service["status"] = json!({"conditions": [{
            "type": "Available", "status": "True", "lastTransitionTime": now_text(),
            "reason": "Local", "message": "Local APIServices are always available",
        }]});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_of_a_source_follow_one_another() {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let both = json!({"spec": {"dataSource": source, "dataSourceRef": source}});
        for field in ["dataSource", "dataSourceRef"] {
            let mut claim = json!({"spec": {field: source}});
            normalize_claim(&mut claim, None, &Features::default());
            assert_eq!(claim, both);
        }
        let mut unknown = json!({"spec": {"dataSource": {"kind": "a", "name": "b"}}});
        normalize_claim(&mut unknown, None, &Features::default());
        assert_eq!(unknown, json!({"spec": {}}));
    }
}
