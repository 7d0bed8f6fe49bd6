//! Who owns whom, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::Kind;
use api::meta::v1::ObjectMeta;
use client::Propagation;

/// On objects that wait for their dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// On objects whose dependents are to stay.
const ORPHAN: &str = "orphan";

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    blocks: bool,
}

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    owners: Vec<Owner>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

/// A change that follows.
#[derive(Debug)]
pub(super) enum Step {
    /// Deletes the object itself.
    Delete(Propagation),
    /// Takes owners that are gone off its references.
    DropOwners(Vec<String>),
    /// Takes the object off the references of its dependents.
    Orphan(Vec<Node>),
    /// Takes a finalizer off the object.
    DropFinalizer(&'static str),
}

/// All objects by uid, and the dependents of each uid, known or not.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// Number of objects by group, plural and namespace.
    counts: HashMap<(&'static str, &'static str), HashMap<String, usize>>,
}

impl Graph {
    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Takes in an object's state. Returns whom to look at.
    pub(super) fn apply(&mut self, kind: &'static Kind, meta: &ObjectMeta) -> Vec<String> {
        let node = Node::new(kind, meta);
        let mut attend = Vec::new();
        let before: Vec<Owner> = self.nodes.get(&node.uid).map(|old| old.owners.clone()).unwrap_or_default();
        for gone in before.iter().filter(|o| !node.owners.contains(o)) {
            self.unlink(&gone.uid, &node.uid);
            attend.push(gone.uid.clone());
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
            // An owner that waits may wait for this one.
            attend.push(owner.uid.clone());
        }
        if !node.owners.is_empty() || node.deleting {
            attend.push(node.uid.clone());
        }
        if node.deleting && node.foreground {
            attend.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
        }
        let (kind, namespace) = ((node.kind.group, node.kind.plural), node.namespace.clone());
        if self.nodes.insert(node.uid.clone(), node).is_none() {
            *self.counts.entry(kind).or_default().entry(namespace).or_default() += 1;
        }
        attend
    }

    /// An object is gone. Returns whom to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let namespaces = self.counts.entry((node.kind.group, node.kind.plural)).or_default();
        if let Some(count) = namespaces.get_mut(&node.namespace) {
            *count -= 1;
            if *count == 0 {
                namespaces.remove(&node.namespace);
            }
        }
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
        }
        let mut attend: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        attend.extend(node.owners.into_iter().map(|owner| owner.uid));
        attend
    }

    /// How many objects of a kind there are in a namespace.
    pub(super) fn count(&self, group: &str, plural: &str, namespace: &str) -> usize {
        let of_kind = self.counts.iter().find(|((g, p), _)| *g == group && *p == plural);
        of_kind.and_then(|(_, namespaces)| namespaces.get(namespace)).copied().unwrap_or(0)
    }

    /// Uids of a kind that are not among `present`: what a new list no longer shows.
    pub(super) fn missing(&self, kind: &'static Kind, present: &BTreeSet<String>) -> Vec<String> {
        let missing = self.nodes.values().filter(|n| std::ptr::eq(n.kind, kind) && !present.contains(&n.uid));
        missing.map(|n| n.uid.clone()).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Owners that no watch has shown.
    pub(super) fn unknown_owners(&self, node: &Node) -> Vec<Owner> {
        node.owners.iter().filter(|owner| !self.nodes.contains_key(&owner.uid)).cloned().collect()
    }

    /// What to do about an object; `absent` are owners that were found not to exist.
    pub(super) fn plan(&self, node: &Node, absent: &[String]) -> Vec<Step> {
        if node.deleting {
            return self.plan_deleted(node);
        }
        let (gone, there): (Vec<&Owner>, Vec<&Owner>) = node.owners.iter().partition(|o| absent.contains(&o.uid));
        let waits = |owner: &&Owner| self.nodes.get(&owner.uid).is_some_and(|o| o.deleting && o.foreground);
        let (waiting, solid): (Vec<&Owner>, Vec<&Owner>) = there.into_iter().partition(waits);
        if !solid.is_empty() {
            let leave: Vec<String> = gone.iter().chain(&waiting).map(|owner| owner.uid.clone()).collect();
            return if leave.is_empty() { Vec::new() } else { vec![Step::DropOwners(leave)] };
        }
        if !waiting.is_empty() {
            let has_dependents = self.dependents.get(&node.uid).is_some_and(|d| !d.is_empty());
            return vec![Step::Delete(if has_dependents { Propagation::Foreground } else { Propagation::Background })];
        }
        if gone.is_empty() {
            return Vec::new();
        }
        let propagation = match (node.orphan, node.foreground) {
            (true, _) => Propagation::Orphan,
            (_, true) => Propagation::Foreground,
            _ => Propagation::Background,
        };
        vec![Step::Delete(propagation)]
    }

    fn plan_deleted(&self, node: &Node) -> Vec<Step> {
        let dependents = || self.dependents.get(&node.uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid));
        if node.orphan {
            let all: Vec<Node> = dependents().cloned().collect();
            return vec![Step::Orphan(all), Step::DropFinalizer(ORPHAN)];
        }
        if !node.foreground {
            return Vec::new();
        }
        let blocked = dependents().any(|d| d.blocks(&node.uid) && !self.waits_for(d, &node.uid));
        if blocked { Vec::new() } else { vec![Step::DropFinalizer(FOREGROUND)] }
    }
}

impl Graph {
    /// Whether an object that is being deleted in the foreground waits, at last, for another: those two would wait for
    /// each other for ever.
    fn waits_for(&self, node: &Node, other: &str) -> bool {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            if !(node.deleting && node.foreground && seen.insert(&node.uid)) {
                continue;
            }
            let dependents = self.dependents.get(&node.uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid));
            for dependent in dependents.filter(|d| d.blocks(&node.uid)) {
                if dependent.uid == other {
                    return true;
                }
                todo.push(dependent);
            }
        }
        false
    }
}

impl Node {
    /// Whether it keeps an owner from going before it.
    fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.blocks)
    }

    fn new(kind: &'static Kind, meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().any(|f| f == finalizer);
        let owner = |o: &api::meta::v1::OwnerReference| Owner {
            api_version: o.api_version.clone(),
            kind: o.kind.clone(),
            name: o.name.clone(),
            uid: o.uid.clone(),
            blocks: o.block_owner_deletion == Some(true),
        };
        Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            owners: meta.owner_references.iter().map(owner).collect(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::meta::v1::{OwnerReference, Time};

    use super::*;

    fn kind() -> &'static Kind {
        api::kind_by_resource("", "v1", "configmaps").unwrap()
    }

    fn meta(uid: &str, owners: &[&str]) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..Default::default()
        };
        ObjectMeta { uid: uid.to_owned(), owner_references: owners.iter().map(owner).collect(), ..Default::default() }
    }

    fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
        meta.deletion_timestamp = Some(Time::from_unix(1));
        meta.finalizers = vec![finalizer.to_owned()];
        meta
    }

    fn plan(graph: &Graph, uid: &str, absent: &[&str]) -> String {
        let absent: Vec<String> = absent.iter().map(|a| (*a).to_owned()).collect();
        let names = graph.plan(graph.node(uid).unwrap(), &absent).into_iter().map(|step| match step {
            Step::Delete(p) => format!("delete {}", p.as_str()),
            Step::DropOwners(owners) => format!("drop {}", owners.join("+")),
            Step::Orphan(dependents) => format!("orphan {}", dependents.len()),
            Step::DropFinalizer(finalizer) => format!("finalizer {finalizer}"),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn dependents_of_what_is_gone_are_deleted_unless_another_owner_is_left() {
        let mut graph = Graph::default();
        graph.apply(kind(), &meta("a", &[]));
        graph.apply(kind(), &meta("b", &[]));
        graph.apply(kind(), &meta("one", &["a"]));
        graph.apply(kind(), &meta("two", &["a", "b"]));
        assert_eq!(graph.count("", "configmaps", ""), 4);
        let attend = graph.remove("a");
        assert_eq!(graph.count("", "configmaps", ""), 3);
        assert_eq!(attend, ["one", "two"]);
        assert_eq!(graph.unknown_owners(graph.node("one").unwrap())[0].uid, "a");
        assert_eq!(plan(&graph, "one", &["a"]), "delete Background");
        assert_eq!(plan(&graph, "two", &["a"]), "drop a");
    }

    #[test]
    fn a_foreground_deletion_waits_for_the_dependents_that_block_it() {
        let mut graph = Graph::default();
        graph.apply(kind(), &meta("child", &["parent"]));
        let attend = graph.apply(kind(), &deleting(meta("parent", &[]), FOREGROUND));
        assert!(attend.contains(&"child".to_owned()));
        assert_eq!(plan(&graph, "parent", &[]), "");
        assert_eq!(plan(&graph, "child", &[]), "delete Background");
        assert!(graph.remove("child").contains(&"parent".to_owned()));
        assert_eq!(plan(&graph, "parent", &[]), "finalizer foregroundDeletion");
    }

    #[test]
    fn objects_that_wait_for_each_other_go_all_the_same() {
        let mut graph = Graph::default();
        for (uid, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            graph.apply(kind(), &deleting(meta(uid, &[owner]), FOREGROUND));
        }
        graph.apply(kind(), &meta("child", &["a"]));
        assert_eq!(plan(&graph, "a", &[]), "", "the child is not part of the circle");
        assert_eq!(plan(&graph, "b", &[]), "finalizer foregroundDeletion");
        graph.remove("child");
        assert_eq!(plan(&graph, "a", &[]), "finalizer foregroundDeletion");
    }

    #[test]
    fn orphans_are_let_go_before_their_owner() {
        let mut graph = Graph::default();
        graph.apply(kind(), &meta("child", &["parent"]));
        graph.apply(kind(), &deleting(meta("parent", &[]), ORPHAN));
        assert_eq!(plan(&graph, "parent", &[]), "orphan 1, finalizer orphan");
    }
}
