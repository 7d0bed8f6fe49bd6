//! Pods.

use api::features::Features;
use api::quantity::Amount;
use serde_json::{Value, json};

use crate::tree;

pub(super) fn prepare_create(pod: &mut Value, features: &Features) {
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    at_least_a_second(pod);
    if !tree::list(pod, "/spec/schedulingGates").is_empty() {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": crate::app::now_text(),
        }]);
    }
    merge_label_keys(pod, features);
}

pub(super) fn prepare_update(new: &mut Value) {
    at_least_a_second(new);
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Profiles of AppArmor that annotations name are those of the containers that name none. Says what is out of date.
pub(super) fn adopt_profiles(pod: &mut Value) -> Vec<String> {
    if pod["spec"]["os"]["name"] == "windows" {
        return Vec::new();
    }
    let annotations = pod["metadata"]["annotations"].clone();
    let of_pod = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    let mut told = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let key = format!("{APP_ARMOR}{}", tree::text(container, "/name"));
            let Some(annotation) = annotations[&key].as_str() else { continue };
            if !container["securityContext"]["appArmorProfile"].is_null() {
                continue;
            }
            let profile = profile_of(annotation);
            if profile.as_ref() == Some(&of_pod) {
                continue;
            }
            if let Some(profile) = profile {
                tree::object_at(container, "securityContext").insert("appArmorProfile".to_owned(), profile);
            }
            told.push(format!(
                "metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
        }
    }
    told
}

/// The profile that an annotation names, if it can be one.
fn profile_of(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let file = annotation.strip_prefix("localhost/").filter(|file| !file.is_empty() && file.trim() == *file)?;
            Some(json!({"type": "Localhost", "localhostProfile": file}))
        }
    }
}

/// No time at all to end is a second; templates keep what they say.
fn at_least_a_second(pod: &mut Value) {
    if tree::integer(pod, "/spec/terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        pod["spec"]["terminationGracePeriodSeconds"] = 1.into();
    }
}

pub(super) fn prepare_status_update(new: &mut Value, old: &Value) {
    let owners = old["metadata"]["ownerReferences"].clone();
    if owners.is_null() {
        tree::remove(&mut new["metadata"], "ownerReferences");
    } else {
        new["metadata"]["ownerReferences"] = owners;
    }
    if tree::text(new, "/status/qosClass").is_empty() {
        new["status"]["qosClass"] = old["status"]["qosClass"].clone();
    }
    keep_observed_generations(new, old);
}

/// What was observed stays observed, of the status and of each condition.
fn keep_observed_generations(new: &mut Value, old: &Value) {
    let generation = |of: &Value| of["observedGeneration"].as_i64().unwrap_or(0);
    if generation(&new["status"]) == 0 && generation(&old["status"]) != 0 {
        new["status"]["observedGeneration"] = old["status"]["observedGeneration"].clone();
    }
    let mut before: Vec<&Value> = tree::list(old, "/status/conditions").iter().collect();
    let Some(conditions) = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    for condition in conditions {
        let Some(index) = before.iter().position(|b| b["type"] == condition["type"]) else { continue };
        let same = before.remove(index);
        if generation(condition) == 0 && generation(same) != 0 {
            condition["observedGeneration"] = same["observedGeneration"].clone();
        }
    }
}

/// Adds the Pod's own labels to the selectors that ask for them by key.
fn merge_label_keys(pod: &mut Value, features: &Features) {
    let labels = pod["metadata"]["labels"].clone();
    if !labels.is_object() {
        return;
    }
    let spec = &mut pod["spec"];
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        let preferred = affinity.get_mut("preferredDuringSchedulingIgnoredDuringExecution");
        for term in preferred.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                merge_into(term, &labels);
            }
        }
        let required = affinity.get_mut("requiredDuringSchedulingIgnoredDuringExecution");
        for term in required.and_then(Value::as_array_mut).into_iter().flatten() {
            merge_into(term, &labels);
        }
    }
    if !features.is_on("MatchLabelKeysInPodTopologySpreadSelectorMerge") {
        return;
    }
    for constraint in spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten() {
        merge_into(constraint, &labels);
    }
}

fn merge_into(term: &mut Value, labels: &Value) {
    if !term["labelSelector"].is_object() {
        return;
    }
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let own = tree::list(term, &format!("/{keys}")).iter().filter_map(Value::as_str);
        let added: Vec<Value> = own
            .filter(|key| labels[*key].is_string())
            .map(|key| json!({"key": key, "operator": operator, "values": [labels[key]]}))
            .collect();
        if !added.is_empty() {
            tree::list_at(&mut term["labelSelector"], "matchExpressions").extend(added);
        }
    }
}

/// Whether a pod has the containers that it had, in the same order.
pub(super) fn has_same_containers(new: &Value, old: &Value) -> bool {
    ["/spec/containers", "/spec/initContainers"].into_iter().all(|list| {
        let names = |pod| tree::list(pod, list).iter().map(|container| &container["name"]);
        names(new).eq(names(old))
    })
}

/// Takes the container resources of `wanted` over.
pub(super) fn copy_resources(pod: &mut Value, wanted: &Value) {
    for list in ["containers", "initContainers"] {
        let source = tree::list(wanted, &format!("/spec/{list}")).to_vec();
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            if let Some(from) = source.iter().find(|c| c["name"] == container["name"]) {
                tree::copy_key(container, from, "resources");
                tree::copy_key(container, from, "resizePolicy");
            }
        }
    }
    let mut spec = wanted["spec"].clone();
    tree::copy_key(&mut pod["spec"], &spec.take(), "resources");
}

/// The quality of service class that follows from a pod's resources.
#[must_use]
pub fn qos_class(pod: &Value) -> &'static str {
    if tree::has(pod, "/spec/resources") {
        return class_of(std::slice::from_ref(&pod["spec"]).iter());
    }
    class_of(tree::list(pod, "/spec/containers").iter().chain(tree::list(pod, "/spec/initContainers")))
}

fn class_of<'a>(holders: impl Iterator<Item = &'a Value>) -> &'static str {
    let amount = |holder: &Value, list: &str, resource: &str| {
        let text = holder["resources"][list][resource].as_str()?;
        Amount::parse(text).ok().filter(|a| !a.is_zero())
    };
    let (mut any, mut guaranteed) = (false, true);
    for holder in holders {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount(holder, "requests", resource), amount(holder, "limits", resource));
            any |= request.is_some() || limit.is_some();
            let equal = match (&request, &limit) {
                (Some(request), Some(limit)) => request.minus(limit).is_zero(),
                (None, Some(_)) => true,
                _ => false,
            };
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qos_follows_from_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            qos_class(&pod(json!({"requests": both, "limits": {"cpu": "1000m", "memory": "1Gi"}}))),
            "Guaranteed"
        );
    }

    #[test]
    fn annotations_of_profiles_become_fields() {
        let mut pod = json!({
            "metadata": {"annotations": {
                format!("{APP_ARMOR}a"): "unconfined", format!("{APP_ARMOR}b"): "localhost/x",
                format!("{APP_ARMOR}c"): "nonsense", format!("{APP_ARMOR}d"): "runtime/default"}},
            "spec": {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}, "containers": [
                {"name": "a"}, {"name": "b", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
                {"name": "c"}, {"name": "d"}, {"name": "e"}]},
        });
        let told = adopt_profiles(&mut pod);
        let text = |name: &str| {
            let field = format!("metadata.annotations[{APP_ARMOR}{name}]");
            format!("{field}: deprecated since v1.30; use the \"appArmorProfile\" field instead")
        };
        assert_eq!(told, [text("a"), text("c")]);
        let of = |index: usize| pod["spec"]["containers"][index]["securityContext"]["appArmorProfile"]["type"].clone();
        assert_eq!([of(0), of(1), of(2), of(3)], [json!("Unconfined"), json!("Unconfined"), Value::Null, Value::Null]);
    }
}
