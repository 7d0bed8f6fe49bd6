//! Fields that are switched off: they are left out, unless the object has them already.

use api::Kind;
use api::features::Features;
use api::schema::{FieldType, MESSAGES, Message};
use serde_json::Value;

use crate::tree;

/// Gate, group, plural and where the field lies, `*` being every item of a list or map. The gates are off by default.
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("CoordinatedLeaderElection", "coordination.k8s.io", "leases", "/spec/strategy"),
    ("CoordinatedLeaderElection", "coordination.k8s.io", "leases", "/spec/preferredHolder"),
    ("MaxUnavailableStatefulSet", "apps", "statefulsets", "/spec/updateStrategy/rollingUpdate/maxUnavailable"),
    ("VolumeLimitScaling", "storage.k8s.io", "csidrivers", "/spec/preventPodSchedulingIfMissing"),
    (
        "DRANodeAllocatableResources",
        "resource.k8s.io",
        "resourceslices",
        "/spec/devices/*/nodeAllocatableResourceMappings",
    ),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/bools"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/ints"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/strings"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/versions"),
];

/// Gate, message and field, wherever the message occurs. The gates are on by default.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    ("EnvFiles", "k8s.io.api.core.v1.EnvVarSource", "fileKeyRef"),
    ("HPAConfigurableTolerance", "k8s.io.api.autoscaling.v2.HPAScalingRules", "tolerance"),
    ("HostnameOverride", "k8s.io.api.core.v1.PodSpec", "hostnameOverride"),
    ("MatchLabelKeysInPodTopologySpread", "k8s.io.api.core.v1.TopologySpreadConstraint", "matchLabelKeys"),
    ("PodLevelResources", "k8s.io.api.core.v1.PodSpec", "resources"),
];

/// Removes what is switched off from a new object, or from the successor of `old`.
pub(super) fn drop(kind: &'static Kind, new: &mut Value, old: Option<&Value>, features: &Features) {
    for (gate, .., path) in FIELDS.iter().filter(|(_, group, plural, _)| (*group, *plural) == (kind.group, kind.plural))
    {
        if !features.is_on(gate) && !old.is_some_and(|old| has(old, path)) {
            remove(new, path);
        }
    }
    for row in EVERYWHERE.iter().filter(|(gate, ..)| !features.is_on(gate)) {
        let (_, message, field) = *row;
        let mut is_used = false;
        if let Some(mut old) = old.cloned() {
            each(kind.schema(), &mut old, message, &mut |found| is_used |= !found[field].is_null());
        }
        if !is_used {
            each(kind.schema(), new, message, &mut |found| tree::remove(found, field));
        }
    }
    if kind.plural == "endpointslices" && old.is_none_or(|old| !tree::same(&old["endpoints"], &new["endpoints"])) {
        remove(new, "/endpoints/*/deprecatedTopology");
    }
}

/// Goes to every message of this name in a tree.
fn each(schema: &'static Message, value: &mut Value, name: &str, work: &mut impl FnMut(&mut Value)) {
    if schema.name == name {
        work(value);
    }
    for field in schema.fields {
        let (below, is_map) = match field.ty {
            FieldType::Message(index) => (index, false),
            FieldType::Map(FieldType::Message(index)) => (*index, true),
            _ => continue,
        };
        let below = &MESSAGES[below];
        match value.get_mut(field.json) {
            _ if field.inline => each(below, value, name, work),
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| each(below, item, name, work)),
            Some(Value::Object(map)) if is_map => map.values_mut().for_each(|item| each(below, item, name, work)),
            Some(inner @ Value::Object(_)) => each(below, inner, name, work),
            _ => {}
        }
    }
}

/// The first step of a path, and the rest.
fn step(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.find('/').map_or((path, ""), |at| path.split_at(at))
}

fn has(value: &Value, path: &str) -> bool {
    if path.is_empty() {
        return !value.is_null();
    }
    match (step(path), value) {
        (("*", rest), Value::Array(items)) => items.iter().any(|item| has(item, rest)),
        (("*", rest), Value::Object(map)) => map.values().any(|item| has(item, rest)),
        ((key, rest), _) => value.get(key).is_some_and(|inner| has(inner, rest)),
    }
}

fn remove(value: &mut Value, path: &str) {
    match (step(path), value) {
        (("*", rest), Value::Array(items)) => items.iter_mut().for_each(|item| remove(item, rest)),
        (("*", rest), Value::Object(map)) => map.values_mut().for_each(|item| remove(item, rest)),
        ((key, ""), value) => tree::remove(value, key),
        ((key, rest), value) => {
            if let Some(inner) = value.get_mut(key) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_left_out_unless_it_is_there() {
        let kind = api::kind_by_name("coordination.k8s.io/v1", "Lease").unwrap();
        let lease = serde_json::json!({"spec": {"strategy": "a", "holderIdentity": "b"}});
        let mut new = lease.clone();
        let features = Features::default();
        drop(kind, &mut new, Some(&lease), &features);
        assert_eq!(new, lease);
        drop(kind, &mut new, None, &features);
        assert_eq!(new, serde_json::json!({"spec": {"holderIdentity": "b"}}));
    }

    #[test]
    fn features_switch_fields_wherever_they_are() {
        let kind = api::kind_by_name("apps/v1", "Deployment").unwrap();
        let with = serde_json::json!({"spec": {"template": {"spec": {
            "hostnameOverride": "a", "containers": [{"env": [{"name": "b", "valueFrom": {"fileKeyRef": {}}}]}],
        }}}});
        let mut new = with.clone();
        drop(kind, &mut new, None, &Features::default());
        assert_eq!(new, with);
        let off = Features::parse(["HostnameOverride=false,EnvFiles=false"]).unwrap();
        drop(kind, &mut new, Some(&with), &off);
        assert_eq!(new, with);
        drop(kind, &mut new, None, &off);
        let without = serde_json::json!({"spec": {"template": {"spec": {
            "containers": [{"env": [{"name": "b", "valueFrom": {}}]}],
        }}}});
        assert_eq!(new, without);
    }
}
