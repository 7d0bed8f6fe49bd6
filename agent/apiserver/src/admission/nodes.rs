//! TaintNodesByCondition and NodeRestriction.

mod certificates;

use serde_json::{Value, json};

use super::Operation;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::{codec, tree};

/// New nodes take no pods before they said that they can.
pub(super) fn taint(node: &mut Value) {
    let key = "node.kubernetes.io/not-ready";
    let taints = tree::list_at(&mut node["spec"], "taints");
    if !taints.iter().any(|t| t["key"] == key && t["effect"] == "NoSchedule") {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
    }
}

/// Labels of a node that its pods get.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Labels that a pod gets from the node that it is bound to.
pub fn topology_of(call: &Call, node: &str) -> Vec<(String, Value)> {
    let storage = call.app.cache.known("", "nodes");
    if !super::is_on(call, "PodTopologyLabels") || !call.app.config.features.is_on("PodTopologyLabelsAdmission") {
        return Vec::new();
    }
    let value = storage.get("", node).and_then(|o| codec::to_value(storage, storage.kind, &o).ok());
    let Some(value) = value else { return Vec::new() };
    let label = |key: &&str| Some(((*key).to_owned(), value["metadata"]["labels"].get(*key)?.clone()));
    TOPOLOGY.iter().filter_map(label).collect()
}

/// The node that makes the request, if one does.
fn node_of(call: &Call) -> Option<&str> {
    if !super::is_on(call, "NodeRestriction") || !call.user.is_in("system:nodes") {
        return None;
    }
    call.user.name.strip_prefix("system:node:")
}

fn refuse(call: &Call, name: &str, why: impl AsRef<str>) -> Failure {
    Failure::forbidden(call.subject(), name, why.as_ref())
}

/// A node writes only itself, its pods, its lease and what describes its hardware.
pub(super) fn restrict(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    let Some(node) = node_of(call) else { return Ok(()) };
    let name = tree::text(new, "/metadata/name");
    match (call.kind.group, call.kind.plural) {
        ("", "nodes") => own_node(call, node, (operation, new, old)),
        ("", "pods") => own_pod(call, node, (operation, new, old)),
        ("", "persistentvolumeclaims") => own_claim(call, operation, new, old),
        ("coordination.k8s.io", "leases") => {
            if call.namespace() != "kube-node-lease" {
                let text = "can only access leases in the \"kube-node-lease\" system namespace";
                return Err(refuse(call, name, text));
            }
            if name != node {
                let text = "can only access node lease with the same name as the requesting node";
                return Err(refuse(call, name, text));
            }
            Ok(())
        }
        ("certificates.k8s.io", "podcertificaterequests") => certificates::own_request(call, node, operation, new),
        ("storage.k8s.io", "csinodes") if name != node => {
            Err(refuse(call, name, "can only access CSINode with the same name as the requesting node"))
        }
        ("resource.k8s.io", "resourceslices") if tree::text(new, "/spec/nodeName") != node => {
            let text = "can only create ResourceSlice with the same NodeName as the requesting node";
            Err(refuse(call, name, text))
        }
        _ => Ok(()),
    }
}

/// Labels of nodes that nodes may set themselves although they are Kubernetes' own.
const OWN_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node.kubernetes.io/windows-build",
    "kubernetes.io/metadata.name",
];
const OWN_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a label is for administrators to set.
fn is_restricted(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let below = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return false;
    }
    !OWN_LABELS.contains(&label) && !OWN_LABEL_DOMAINS.iter().any(|d| below(d))
}

fn own_node(call: &Call, node: &str, (operation, new, old): (Operation, &Value, Option<&Value>)) -> Result<()> {
    let name = tree::text(new, "/metadata/name");
    if name != node {
        return Err(refuse(call, name, format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let empty = serde_json::Map::new();
    let labels =
        |v: Option<&'_ Value>| v.and_then(|v| v["metadata"]["labels"].as_object()).cloned().unwrap_or(empty.clone());
    let (now, before) = (labels(Some(new)), labels(old));
    let mut touched: Vec<&String> =
        now.keys().chain(before.keys()).filter(|k| is_restricted(k) && now.get(*k) != before.get(*k)).collect();
    touched.sort();
    touched.dedup();
    let list = || touched.iter().map(|l| l.as_str()).collect::<Vec<_>>().join(", ");
    if !touched.is_empty() {
        let why = match operation {
            Operation::Create => format!("node {node:?} is not allowed to set the following labels: {}", list()),
            Operation::Update(_) => format!("is not allowed to modify labels: {}", list()),
        };
        return Err(refuse(call, name, why));
    }
    let Some(old) = old else { return Ok(()) };
    let taints = |v: &Value| v["spec"]["taints"].clone();
    if operation == Operation::Update(Part::Main) && !tree::same(&taints(old), &taints(new)) {
        return Err(refuse(call, name, format!("node {node:?} is not allowed to modify taints")));
    }
    if !tree::same(&old["metadata"]["ownerReferences"], &new["metadata"]["ownerReferences"]) {
        return Err(refuse(call, name, format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    Ok(())
}

fn own_pod(call: &Call, node: &str, (operation, new, old): (Operation, &Value, Option<&Value>)) -> Result<()> {
    let name = tree::text(new, "/metadata/name");
    let no = |why: String| Err(refuse(call, name, why));
    match operation {
        Operation::Create => mirror_pod(call, node, new),
        Operation::Update(Part::Status) => {
            let bound = old.map_or("", |old| tree::text(old, "/spec/nodeName"));
            if bound != node {
                return no(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            let labels = |v: &Value| v["metadata"]["labels"].clone();
            if old.is_some_and(|old| !tree::same(&labels(old), &labels(new))) {
                return no(format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        Operation::Update(_) => {
            no(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
    }
}

/// A node shows what it runs from files, and such pods refer to nothing that only the API has.
fn mirror_pod(call: &Call, node: &str, pod: &Value) -> Result<()> {
    let name = tree::text(pod, "/metadata/name");
    let no = |why: String| Err(refuse(call, name, why));
    if !tree::has(pod, "/metadata/annotations/kubernetes.io~1config.mirror") {
        return no(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ));
    }
    if tree::text(pod, "/spec/nodeName") != node {
        return no(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    if let Some(why) = stranger(call, node, tree::list(pod, "/metadata/ownerReferences")) {
        return no(why);
    }
    if !tree::text(pod, "/spec/serviceAccountName").is_empty() {
        return no(format!("node {node:?} can not create pods that reference a service account"));
    }
    let volumes = tree::list(pod, "/spec/volumes");
    for (key, what) in
        [("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "persistentvolumeclaims")]
    {
        let sources = ["containers", "initContainers"];
        let containers = || sources.iter().flat_map(|list| tree::list(&pod["spec"], &format!("/{list}")));
        let by_env = containers().any(|c| {
            let from = tree::list(c, "/envFrom").iter().any(|e| e[format!("{key}Ref")].is_object());
            from || tree::list(c, "/env").iter().any(|e| e["valueFrom"][format!("{key}KeyRef")].is_object())
        });
        if by_env || volumes.iter().any(|v| v[key].is_object()) {
            return no(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    Ok(())
}

/// Why the owner of a mirror pod is not the node that makes it.
fn stranger(call: &Call, node: &str, owners: &[Value]) -> Option<String> {
    let only =
        |what: &str| Some(format!("node {node:?} can only create pods with {what} owner reference set to itself"));
    let owner = match owners {
        [] => return only("an"),
        [owner] => owner,
        _ => return only("a single"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return only("an");
    }
    if owner["controller"] != true {
        return only("a controller");
    }
    if owner["blockOwnerDeletion"] == true {
        return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let storage = call.app.cache.known("", "nodes");
    let own = storage.get("", node).and_then(|o| codec::to_value(storage, storage.kind, &o).ok());
    let Some(own) = own else { return Some(format!("node {node:?} not found")) };
    let (given, known) = (tree::text(owner, "/uid"), tree::text(&own, "/metadata/uid"));
    (given != known).then(|| format!("node {node} UID mismatch: expected {given} got {known}"))
}

/// Of claims a node changes only what resizing needs.
fn own_claim(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    let name = tree::text(new, "/metadata/name");
    if operation != Operation::Update(Part::Status) {
        return Err(refuse(call, name, "unexpected operation: nodes can only update the status of claims"));
    }
    let rest = |value: &Value| {
        let mut value = value.clone();
        for key in ["capacity", "allocatedResources", "allocatedResourceStatuses", "conditions"] {
            tree::remove(&mut value["status"], key);
        }
        for key in ["managedFields", "resourceVersion"] {
            tree::remove(&mut value["metadata"], key);
        }
        value
    };
    if old.is_some_and(|old| !tree::same(&rest(old), &rest(new))) {
        let text = format!(
            "node is not allowed to update fields other than status.capacity and status.conditions of {name:?}"
        );
        return Err(refuse(call, name, text));
    }
    Ok(())
}

/// A node deletes and evicts only its own pods, and never another node.
pub(super) fn restrict_delete(call: &Call, name: &str) -> Result<()> {
    let Some(node) = node_of(call) else { return Ok(()) };
    match (call.kind.group, call.kind.plural) {
        ("", "nodes") if name != node => {
            Err(refuse(call, name, format!("node {node:?} is not allowed to modify node {name:?}")))
        }
        ("", "pods") => {
            let index = crate::cache::selectable("", "pods").position(|(n, _)| n == "spec.nodeName").unwrap_or(0);
            let pod = call.storage()?.get(call.namespace(), name);
            if pod.is_some_and(|p| p.field(index) != node) {
                let (doing, node) = match call.info.subresource.as_str() {
                    "eviction" => ("evict", node.to_owned()),
                    _ => ("delete", format!("{node:?}")),
                };
                let text = format!("node {node} can only {doing} pods with spec.nodeName set to itself");
                return Err(refuse(call, name, text));
            }
            Ok(())
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            Err(refuse(call, name, certificates::unexpected(call, "DELETE")))
        }
        ("coordination.k8s.io", "leases") | ("storage.k8s.io", "csinodes") if name != node => {
            Err(refuse(call, name, "can only access objects with the same name as the requesting node"))
        }
        _ => Ok(()),
    }
}

/// A node asks for tokens only for the pods that it runs.
pub fn restrict_token(call: &Call, request: &Value) -> Result<()> {
    let Some(node) = node_of(call) else { return Ok(()) };
    let bound = &request["spec"]["boundObjectRef"];
    let account = &call.info.name;
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || tree::text(bound, "/name").is_empty() {
        return Err(refuse(call, account, "node requested token not bound to a pod"));
    }
    if tree::text(bound, "/uid").is_empty() {
        return Err(refuse(call, account, "node requested token with a pod binding without a uid"));
    }
    let index = crate::cache::selectable("", "pods").position(|(n, _)| n == "spec.nodeName").unwrap_or(0);
    let pod = call.app.cache.known("", "pods").get(call.namespace(), tree::text(bound, "/name"));
    if pod.is_some_and(|p| p.field(index) != node) {
        let text = format!("node requested token bound to a pod scheduled on a different node: {node}");
        return Err(refuse(call, account, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_administrators_are_not_for_nodes() {
        for label in ["node-restriction.kubernetes.io/a", "node-role.kubernetes.io/master", "k8s.io/x", "a.k8s.io/x"] {
            assert!(is_restricted(label), "{label}");
        }
        for label in ["a", "example.org/a", "kubernetes.io/os", "node.kubernetes.io/x", "x.kubelet.kubernetes.io/y"] {
            assert!(!is_restricted(label), "{label}");
        }
    }
}
