//! Nodes, their leases and how they run containers.

use std::collections::BTreeSet;

use api::coordination::v1::Lease;
use api::coordination::v1beta1::LeaseCandidate;
use api::core::v1::Node;
use api::node::v1::RuntimeClass;

use super::cell::{Cell, age};
use super::cells;
use super::text::{or, or_none};

/// Labels whose keys end with a role.
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// A label whose value is a role.
const ROLE: &str = "kubernetes.io/role";

pub(super) fn node(object: &Node) -> Vec<Cell> {
    let info = &object.status.node_info;
    let mut kernel = or(&info.kernel_version, "<unknown>").to_owned();
    if !info.architecture.is_empty() {
        kernel = format!("{kernel} ({})", info.architecture);
    }
    cells![
        object.metadata.name.as_str(),
        status(object),
        or_none(&roles(object)),
        age(&object.metadata.creation_timestamp),
        info.kubelet_version.as_str(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        or(&info.os_image, "<unknown>"),
        kernel,
        or(&info.container_runtime_version, "<unknown>"),
    ]
}

fn status(object: &Node) -> String {
    let ready = object.status.conditions.iter().rfind(|c| c.r#type == "Ready");
    let status = match ready.map(|c| c.status == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if object.spec.unschedulable { format!("{status},SchedulingDisabled") } else { status.to_owned() }
}

fn roles(object: &Node) -> String {
    let role = |(key, value): (&'_ String, &'_ String)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => role.to_owned(),
        None if key == ROLE => value.clone(),
        None => String::new(),
    };
    let roles: BTreeSet<String> = object.metadata.labels.iter().map(role).filter(|r| !r.is_empty()).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'n>(object: &'n Node, kind: &str) -> &'n str {
    object.status.addresses.iter().find(|a| a.r#type == kind).map_or("<none>", |a| &a.address)
}

pub(super) fn lease(object: &Lease) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.spec.holder_identity.as_deref().unwrap_or_default(),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn lease_candidate(object: &LeaseCandidate) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.spec.lease_name.as_str(),
        object.spec.binary_version.as_str(),
        object.spec.emulation_version.as_str(),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn runtime_class(object: &RuntimeClass) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.handler.as_str(), age(&object.metadata.creation_timestamp),]
}

#[cfg(test)]
mod tests {
    use api::core::v1::NodeCondition;

    use super::*;

    #[test]
    fn a_node_shows_its_state_and_roles() {
        let mut object = Node::default();
        assert_eq!((status(&object).as_str(), roles(&object).as_str()), ("Unknown", ""));
        let ready = NodeCondition { r#type: "Ready".into(), status: "Unknown".into(), ..NodeCondition::default() };
        object.status.conditions.push(ready);
        object.spec.unschedulable = true;
        for (key, value) in
            [("node-role.kubernetes.io/worker", ""), ("kubernetes.io/role", "edge"), ("node-role.kubernetes.io/", "x")]
        {
            object.metadata.labels.insert(key.into(), value.into());
        }
        assert_eq!((status(&object).as_str(), roles(&object).as_str()), ("NotReady,SchedulingDisabled", "edge,worker"));
    }
}
