//! Plugins that are off unless somebody wants them, and small.

use serde_json::Value;

use super::Operation;
use super::plugins::is_on;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// AlwaysPullImages: whoever may not pull an image must not use it because it lies on the node already.
pub(super) fn pull_always(call: &Call, pod: &mut Value, old: Option<&Value>) {
    if !is_on(call, "AlwaysPullImages") || old.is_some_and(|old| images(pod).iter().all(|i| images(old).contains(i))) {
        return;
    }
    for list in CONTAINERS {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    for volume in pod["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            image["pullPolicy"] = "Always".into();
        }
    }
}

fn images(pod: &Value) -> Vec<&str> {
    let containers = CONTAINERS.iter().flat_map(|list| tree::list(&pod["spec"], &format!("/{list}")));
    let volumes = tree::list(pod, "/spec/volumes").iter().map(|volume| tree::text(volume, "/image/reference"));
    containers.map(|container| tree::text(container, "/image")).chain(volumes).collect()
}

/// Plugins that only refuse.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    if !matches!(operation, Operation::Create | Operation::Update(Part::Main)) {
        return Ok(());
    }
    let refuse = |why: &str| Err(Failure::forbidden(call.subject(), tree::name_given(new), why));
    match (call.kind.group, call.kind.plural) {
        ("", "pods") if is_on(call, "LimitPodHardAntiAffinityTopology") => match other_topology(new) {
            None => Ok(()),
            Some(key) => refuse(&format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
            )),
        },
        ("", "services") if is_on(call, "DenyServiceExternalIPs") && !are_kept(new, old) => {
            refuse("Use of external IPs is denied by admission control")
        }
        _ => Ok(()),
    }
}

const HOST: &str = "kubernetes.io/hostname";

fn other_topology(pod: &Value) -> Option<&str> {
    let terms = tree::list(pod, "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    terms.iter().map(|term| tree::text(term, "/topologyKey")).find(|key| *key != HOST)
}

/// Whether a Service has no external addresses but those that it had.
fn are_kept(new: &Value, old: Option<&Value>) -> bool {
    let before = old.map_or(&[][..], |old| tree::list(old, "/spec/externalIPs"));
    tree::list(new, "/spec/externalIPs").iter().all(|address| before.contains(address))
}

/// AlwaysDeny: nothing is written, but by this server itself.
pub(super) fn deny(call: &Call, name: &str) -> Result<()> {
    if !is_on(call, "AlwaysDeny") || call.user.name == "system:apiserver" {
        return Ok(());
    }
    Err(Failure::forbidden(call.subject(), name, "admission control is denying all modifications"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn external_addresses_may_stay_and_go() {
        let with = |addresses: &[&str]| json!({"spec": {"externalIPs": addresses}});
        assert!(are_kept(&with(&[]), None) && !are_kept(&with(&["1.2.3.4"]), None));
        assert!(are_kept(&with(&["1.2.3.4"]), Some(&with(&["5.6.7.8", "1.2.3.4"]))));
        assert!(!are_kept(&with(&["1.2.3.4"]), Some(&with(&["5.6.7.8"]))));
    }

    #[test]
    fn pods_keep_apart_by_host_only() {
        let pod = |key: &str| {
            let terms = json!([{"topologyKey": key}]);
            json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
        };
        assert_eq!(other_topology(&pod("zone")), Some("zone"));
        assert_eq!(other_topology(&pod(HOST)), None);
    }
}
