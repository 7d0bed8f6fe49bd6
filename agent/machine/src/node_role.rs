//! What a Node says of the role of its machine: a label and a taint that nodes may not give to themselves, nor take away.

use api::core::v1::{Node, Taint};
use client::Client;
use manifest::Manifest;

/// Label of the Node of a master, and key of the taint that keeps ordinary pods off it.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Makes the Node of this manifest's machine say what the machine is. The caller has the rights of an administrator.
///
/// # Errors
/// When the API server refuses, the Node is not there yet, or somebody else changed it meanwhile.
pub async fn mark_node(client: &Client, manifest: &Manifest) -> client::Result<()> {
    let name = manifest.machine.hostname.to_string();
    let node: Node = client.get(None, &name).await?;
    match plan(node, manifest) {
        Some(node) => client.update(&node).await.map(drop),
        None => Ok(()),
    }
}

/// The Node as it should be, if it is another one. Taints follow the label: one that somebody took from a master, or gave
/// to a worker, stays as it is.
fn plan(mut node: Node, manifest: &Manifest) -> Option<Node> {
    let is_master = manifest.machine.role.has_control_plane();
    if is_master == node.metadata.labels.contains_key(CONTROL_PLANE) {
        return None;
    }
    let taints = &mut node.spec.taints;
    if !is_master {
        node.metadata.labels.remove(CONTROL_PLANE);
        taints.retain(|taint| taint.key != CONTROL_PLANE);
        return Some(node);
    }
    node.metadata.labels.insert(CONTROL_PLANE.to_owned(), String::new());
    let own = manifest.node_taints().into_iter().find(|taint| taint.key.as_str() == CONTROL_PLANE);
    let own = own.filter(|_| taints.iter().all(|taint| taint.key != CONTROL_PLANE));
    taints.extend(own.map(|own| Taint {
        key: own.key.to_string(),
        value: own.value.to_string(),
        effect: own.effect.to_string(),
        ..Taint::default()
    }));
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(role: &str) -> Manifest {
        let cluster = "[cluster]\nendpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                       ca-hash = \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";
        let cluster = if role == "single" { "" } else { cluster };
        let cluster =
            if role == "master" { cluster.lines().take(2).collect::<Vec<_>>().join("\n") } else { cluster.to_owned() };
        let text = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"{role}\"\n{cluster}");
        manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn node(is_labelled: bool, taints: &[&str]) -> Node {
        let mut node = Node::default();
        if is_labelled {
            node.metadata.labels.insert(CONTROL_PLANE.to_owned(), String::new());
        }
        let taint = |key: &&str| Taint { key: (*key).to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        node.spec.taints = taints.iter().map(taint).collect();
        node
    }

    /// Whether a Node has the label, and the keys of its taints.
    fn told(node: Option<Node>) -> Option<(bool, Vec<String>)> {
        let node = node?;
        let taints = node.spec.taints.into_iter().map(|taint| taint.key).collect();
        Some((node.metadata.labels.contains_key(CONTROL_PLANE), taints))
    }

    #[test]
    fn label_and_taint_go_and_come_with_the_role() {
        let wanted =
            |is_labelled, taints: &[&str]| Some((is_labelled, taints.iter().map(ToString::to_string).collect()));
        let table = [
            (node(true, &["example.com/a", CONTROL_PLANE]), "worker", wanted(false, &["example.com/a"])),
            (node(false, &["example.com/a"]), "master", wanted(true, &["example.com/a", CONTROL_PLANE])),
            // One that registered as a master has the taint already, and one alone takes pods.
            (node(false, &[CONTROL_PLANE]), "master", wanted(true, &[CONTROL_PLANE])),
            (node(false, &[]), "single", wanted(true, &[])),
            // What somebody changed by hand stays.
            (node(true, &[]), "master", None),
            (node(false, &[CONTROL_PLANE]), "worker", None),
        ];
        for (node, role, wanted) in table {
            assert_eq!(told(plan(node, &manifest(role))), wanted, "{role}");
        }
    }
}
