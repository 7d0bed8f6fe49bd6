//! TaintNodesByCondition and NodeRestriction.

use serde_json::{Value, json};

use super::Operation;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

/// New nodes take no pods before they said that they can.
pub(super) fn taint(node: &mut Value) {
    let key = "node.kubernetes.io/not-ready";
    let taints = tree::list_at(&mut node["spec"], "taints");
    if !taints.iter().any(|t| t["key"] == key && t["effect"] == "NoSchedule") {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
    }
}

/// The node that makes the request, if one does.
fn node_of(call: &Call) -> Option<&str> {
    if !call.app.config.node_restriction || !call.user.is_in("system:nodes") {
        return None;
    }
    call.user.name.strip_prefix("system:node:")
}

fn refuse(call: &Call, name: &str, why: &str) -> Failure {
    Failure::forbidden(call.subject(), name, why)
}

/// A node writes only itself, its pods and its lease.
pub(super) fn restrict(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    let Some(node) = node_of(call) else { return Ok(()) };
    let name = tree::text(new, "/metadata/name");
    match (call.kind.group, call.kind.plural) {
        ("", "nodes") if name != node => {
            Err(refuse(call, name, &format!("node {node:?} is not allowed to modify node {name:?}")))
        }
        ("", "nodes") if operation == Operation::Update(Part::Main) => {
            let taints = |v: &Value| v["spec"]["taints"].clone();
            if old.is_some_and(|old| !tree::same(&taints(old), &taints(new))) {
                let text = format!("node {node:?} is not allowed to modify taints");
                return Err(refuse(call, name, &text));
            }
            Ok(())
        }
        ("", "pods") => {
            if tree::text(new, "/spec/nodeName") != node {
                let text = format!("node {node:?} can only create or update pods with spec.nodeName set to itself");
                return Err(refuse(call, name, &text));
            }
            let mirror = "/metadata/annotations/kubernetes.io~1config.mirror";
            if operation == Operation::Create && !tree::has(new, mirror) {
                return Err(refuse(
                    call,
                    name,
                    &format!(
                        "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                    ),
                ));
            }
            Ok(())
        }
        ("coordination.k8s.io", "leases") => {
            if call.namespace() != "kube-node-lease" || name != node {
                let text = format!("can only access node lease with the same name as the requesting node ({node:?})");
                return Err(refuse(call, name, &text));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A node deletes only its own pods, and never a node.
pub(super) fn restrict_delete(call: &Call, name: &str) -> Result<()> {
    let Some(node) = node_of(call) else { return Ok(()) };
    match (call.kind.group, call.kind.plural) {
        ("", "nodes") if name != node => {
            Err(refuse(call, name, &format!("node {node:?} is not allowed to modify node {name:?}")))
        }
        ("", "pods") => {
            let index = crate::cache::selectable("", "pods").position(|(n, _)| n == "spec.nodeName").unwrap_or(0);
            let pod = call.storage()?.get(call.namespace(), name);
            if pod.is_some_and(|p| p.field(index) != node) {
                let text = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
                return Err(refuse(call, name, &text));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
