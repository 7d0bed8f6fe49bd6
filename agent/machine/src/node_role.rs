//! What a Node says of the role of its machine: a label and a taint that nodes may not give to themselves, nor take away.

use api::core::v1::{Node, Taint};
use client::Client;
use manifest::{CONTROL_PLANE_KEY, Manifest, Role};

/// Label of the Node of a master, and key of the taint that keeps ordinary pods off it.
/// As which role the Node of a master was marked last.
const MARKED_AS: &str = "keelson.io/marked-as";

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

/// Whether the Node of a master says what the machine is. Before, its taint keeps nothing off it.
#[must_use]
pub fn is_marked(node: &Node, role: Role) -> bool {
    !role.has_control_plane() || node.metadata.annotations.get(MARKED_AS).is_some_and(|marked| marked == role.as_str())
}

/// The Node as it should be, if it is another one. The taint follows the role when that changes, and at no other time: one
/// that somebody took from a master, or gave to a worker, stays as it is.
fn plan(mut node: Node, manifest: &Manifest) -> Option<Node> {
    let role = manifest.machine.role;
    let (before, is_master) = (node.clone(), role.has_control_plane());
    let is_labelled = node.metadata.labels.contains_key(CONTROL_PLANE_KEY);
    let marked = is_master.then(|| role.to_string());
    let marked_before = node.metadata.annotations.get(MARKED_AS).cloned();
    if is_master {
        node.metadata.labels.insert(CONTROL_PLANE_KEY.to_owned(), String::new());
    } else {
        node.metadata.labels.remove(CONTROL_PLANE_KEY);
    }
    // Before roles were written down, the label alone told of a change.
    let is_another = marked_before.is_some() && marked_before != marked;
    if is_another || is_labelled != is_master {
        follow(&mut node.spec.taints, manifest);
    }
    match marked {
        Some(role) => drop(node.metadata.annotations.insert(MARKED_AS.to_owned(), role)),
        None => drop(node.metadata.annotations.remove(MARKED_AS)),
    }
    (node != before).then_some(node)
}

/// Gives the taints of a Node what its role, which is a new one, has of the master's.
fn follow(taints: &mut Vec<Taint>, manifest: &Manifest) {
    let Some(own) = manifest.node_taints().into_iter().find(|taint| taint.key.as_str() == CONTROL_PLANE_KEY) else {
        return taints.retain(|taint| taint.key != CONTROL_PLANE_KEY);
    };
    if taints.iter().all(|taint| taint.key != CONTROL_PLANE_KEY) {
        let (key, value, effect) = (own.key.to_string(), own.value.to_string(), own.effect.to_string());
        taints.push(Taint { key, value, effect, ..Taint::default() });
    }
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

    fn node(marked_as: &str, is_labelled: bool, taints: &[&str]) -> Node {
        let mut node = Node::default();
        if !marked_as.is_empty() {
            node.metadata.annotations.insert(MARKED_AS.to_owned(), marked_as.to_owned());
        }
        if is_labelled {
            node.metadata.labels.insert(CONTROL_PLANE_KEY.to_owned(), String::new());
        }
        let taint = |key: &&str| Taint { key: (*key).to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        node.spec.taints = taints.iter().map(taint).collect();
        node
    }

    #[test]
    fn label_and_taint_go_and_come_with_the_role() {
        let other = "example.com/a";
        let table = [
            (node("master", true, &[other, CONTROL_PLANE_KEY]), "worker", Some(node("", false, &[other]))),
            (node("", false, &[other]), "master", Some(node("master", true, &[other, CONTROL_PLANE_KEY]))),
            // One that registered as a master has the taint already, and one alone takes pods.
            (node("", false, &[CONTROL_PLANE_KEY]), "master", Some(node("master", true, &[CONTROL_PLANE_KEY]))),
            (node("", false, &[]), "single", Some(node("single", true, &[]))),
            // One alone becomes one of several, and the other way round.
            (node("single", true, &[other]), "master", Some(node("master", true, &[other, CONTROL_PLANE_KEY]))),
            (node("master", true, &[CONTROL_PLANE_KEY, other]), "single", Some(node("single", true, &[other]))),
            // What somebody changed by hand stays, also where it was not written down yet as what the Node was marked.
            (node("master", true, &[]), "master", None),
            (node("single", true, &[CONTROL_PLANE_KEY]), "single", None),
            (node("", true, &[]), "master", Some(node("master", true, &[]))),
            (node("", false, &[CONTROL_PLANE_KEY]), "worker", None),
        ];
        for (before, role, wanted) in table {
            let manifest = manifest(role);
            assert_eq!(plan(before.clone(), &manifest), wanted, "{before:?} {role}");
            assert!(is_marked(&wanted.unwrap_or(before), manifest.machine.role), "{role}");
        }
        assert!(!is_marked(&node("single", true, &[]), Role::Master) && !is_marked(&Node::default(), Role::Single));
    }
}
