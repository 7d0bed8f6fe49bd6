//! Fields that are switched off: they are left out, unless the object has them already.

use api::Kind;
use serde_json::Value;

use crate::tree;

/// Group, plural and where the field lies, `*` being every item of a list or map.
const FIELDS: &[(&str, &str, &str)] = &[
    ("coordination.k8s.io", "leases", "/spec/strategy"),
    ("coordination.k8s.io", "leases", "/spec/preferredHolder"),
    ("storage.k8s.io", "csidrivers", "/spec/preventPodSchedulingIfMissing"),
    ("resource.k8s.io", "resourceslices", "/spec/devices/*/nodeAllocatableResourceMappings"),
    ("resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/bools"),
    ("resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/ints"),
    ("resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/strings"),
    ("resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/versions"),
];

/// Removes what is switched off from a new object, or from the successor of `old`.
pub(super) fn drop(kind: &Kind, new: &mut Value, old: Option<&Value>) {
    for (.., path) in FIELDS.iter().filter(|(group, plural, _)| *group == kind.group && *plural == kind.plural) {
        if !old.is_some_and(|old| has(old, path)) {
            remove(new, path);
        }
    }
    if kind.plural == "endpointslices" && old.is_none_or(|old| !tree::same(&old["endpoints"], &new["endpoints"])) {
        remove(new, "/endpoints/*/deprecatedTopology");
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
        drop(kind, &mut new, Some(&lease));
        assert_eq!(new, lease);
        drop(kind, &mut new, None);
        assert_eq!(new, serde_json::json!({"spec": {"holderIdentity": "b"}}));
    }
}
