//! Nodes and the pods on them, kept up to date by single changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::core::v1::{Node as ApiNode, Taint};

use crate::labels::{Labels, NamespaceLabels};
use crate::pod::{PodInfo, PodKey};
use crate::resources::Resources;
use crate::volumes::Volumes;

/// A place in [`Snapshot::nodes`].
pub(crate) type NodeId = usize;

/// The state a decision is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Never moved; a place is used again once its node and all pods on it are gone.
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    free: Vec<NodeId>,
    present: usize,
    pods: HashMap<PodKey, Placed>,
    by_namespace: HashMap<String, HashMap<PodKey, Placed>>,
    /// Pods with requirements or wishes about other pods.
    with_terms: HashMap<PodKey, Placed>,
    /// How many pods of a controller each node has.
    owners: HashMap<String, HashMap<NodeId, i64>>,
    nominated: HashMap<PodKey, (String, Arc<PodInfo>)>,
    image_nodes: HashMap<String, i64>,
    /// Labels of the namespaces.
    pub(crate) namespaces: NamespaceLabels,
    /// Claims and volumes.
    pub(crate) volumes: Volumes,
}

/// A pod on a node.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// The pod.
    pub(crate) pod: Arc<PodInfo>,
    /// Its node.
    pub(crate) node: NodeId,
}

/// A node, reduced to what scheduling looks at.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Name of the node.
    pub(crate) name: String,
    /// Whether the node object exists; pods may be known before it and after it.
    pub(crate) present: bool,
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    /// How many pods it takes.
    pub(crate) allowed_pods: i64,
    /// Sizes of the images it has.
    pub(crate) images: BTreeMap<String, i64>,
    pub(crate) pods: Vec<Arc<PodInfo>>,
    pub(crate) requested: Resources,
    pub(crate) assumed_cpu: i64,
    pub(crate) assumed_memory: i64,
}

/// What changed about a node, as far as waiting pods care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// The node is new.
    Added,
    /// More or other pods may fit now.
    Relevant,
    /// Only status that does not matter here.
    Irrelevant,
}

impl Snapshot {
    /// Number of nodes that exist.
    pub(crate) fn node_count(&self) -> usize {
        self.present
    }

    /// Number of places, for walks by id.
    pub(crate) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The node at a place.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Every existing node.
    pub(crate) fn present_nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.present)
    }

    /// The place of an existing node.
    pub(crate) fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied().filter(|id| self.nodes[*id].present)
    }

    /// Every pod on a node.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &Placed> {
        self.pods.values()
    }

    /// Every pod of a namespace on a node.
    pub(crate) fn placed_in(&self, namespace: &str) -> impl Iterator<Item = &Placed> {
        self.by_namespace.get(namespace).into_iter().flat_map(HashMap::values)
    }

    /// Every pod with requirements or wishes about other pods.
    pub(crate) fn placed_with_terms(&self) -> impl Iterator<Item = &Placed> {
        self.with_terms.values()
    }

    /// The pod of this key, if it is on a node.
    pub(crate) fn placed_pod(&self, key: &str) -> Option<&Placed> {
        self.pods.get(key)
    }

    /// How many pods of a controller each node has.
    pub(crate) fn owned(&self, owner: &str) -> Option<&HashMap<NodeId, i64>> {
        self.owners.get(owner)
    }

    /// How many nodes have an image.
    pub(crate) fn nodes_with_image(&self, image: &str) -> i64 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// Pods that wait for victims to leave a node.
    pub(crate) fn nominated_to<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.nominated.values().filter(move |(name, _)| name == node).map(|(_, pod)| pod)
    }

    /// Whether anybody waits for victims to leave.
    pub(crate) fn has_nominated(&self) -> bool {
        !self.nominated.is_empty()
    }

    /// Reserves room on a node for a pod whose victims are leaving; an empty name takes that back.
    pub(crate) fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        if node.is_empty() {
            self.nominated.remove(&pod.key);
        } else {
            self.nominated.insert(pod.key.clone(), (node.to_owned(), pod.clone()));
        }
    }

    /// Takes reserved room back.
    pub(crate) fn forget_nomination(&mut self, key: &str) {
        self.nominated.remove(key);
    }

    /// Takes a node in.
    pub(crate) fn apply_node(&mut self, api: &ApiNode) -> NodeChange {
        let id = self.place(&api.metadata.name);
        let fresh = Node::of(api);
        let was_present = self.nodes[id].present;
        self.count_images(id, -1);
        let node = &mut self.nodes[id];
        let change = match was_present {
            false => NodeChange::Added,
            true if node.differs(&fresh) => NodeChange::Relevant,
            true => NodeChange::Irrelevant,
        };
        node.present = true;
        node.labels = fresh.labels;
        node.taints = fresh.taints;
        node.unschedulable = fresh.unschedulable;
        node.allocatable = fresh.allocatable;
        node.allowed_pods = fresh.allowed_pods;
        node.images = fresh.images;
        self.count_images(id, 1);
        if !was_present {
            self.present += 1;
        }
        change
    }

    /// Takes a node out. Pods on it stay known until they go themselves.
    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(id) = self.find(name) else { return };
        self.count_images(id, -1);
        let node = &mut self.nodes[id];
        node.present = false;
        node.images.clear();
        self.present -= 1;
        self.release_place(id);
    }

    /// Puts a pod on the node it names, in place of an earlier state of that pod.
    pub(crate) fn place_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        let id = self.place(node);
        self.nodes[id].add(&pod);
        let placed = Placed { pod: pod.clone(), node: id };
        if pod.has_pod_terms() {
            self.with_terms.insert(pod.key.clone(), placed.clone());
        }
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default().entry(id).or_default() += 1;
        }
        self.by_namespace.entry(pod.namespace.clone()).or_default().insert(pod.key.clone(), placed.clone());
        self.pods.insert(pod.key.clone(), placed);
    }

    /// Takes a pod off its node.
    pub(crate) fn remove_pod(&mut self, key: &str) -> Option<Placed> {
        let placed = self.pods.remove(key)?;
        self.with_terms.remove(key);
        if let Some(pods) = self.by_namespace.get_mut(&placed.pod.namespace) {
            pods.remove(key);
            if pods.is_empty() {
                self.by_namespace.remove(&placed.pod.namespace);
            }
        }
        if let Some(owner) = &placed.pod.owner
            && let Some(counts) = self.owners.get_mut(owner)
        {
            if let Some(count) = counts.get_mut(&placed.node) {
                *count -= 1;
            }
            counts.retain(|_, count| *count > 0);
            if counts.is_empty() {
                self.owners.remove(owner);
            }
        }
        self.nodes[placed.node].remove(key);
        self.release_place(placed.node);
        Some(placed)
    }

    fn place(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let node = Node { name: name.to_owned(), ..Node::default() };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.by_name.insert(name.to_owned(), id);
        id
    }

    fn release_place(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if !node.present && node.pods.is_empty() {
            self.by_name.remove(&node.name);
            *node = Node::default();
            self.free.push(id);
        }
    }

    fn count_images(&mut self, id: NodeId, by: i64) {
        for image in self.nodes[id].images.keys() {
            let count = self.image_nodes.entry(image.clone()).or_default();
            *count += by;
            if *count <= 0 {
                self.image_nodes.remove(image);
            }
        }
    }
}

impl Node {
    fn of(api: &ApiNode) -> Self {
        let pods = api.status.allocatable.get("pods").map_or(0, |pods| pods.amount().value());
        let sizes = api.status.images.iter();
        let images = sizes.flat_map(|image| image.names.iter().map(|name| (name.clone(), image.size_bytes))).collect();
        Self {
            name: api.metadata.name.clone(),
            present: true,
            labels: api.metadata.labels.clone(),
            taints: api.spec.taints.clone(),
            unschedulable: api.spec.unschedulable,
            allocatable: Resources::from_list(&api.status.allocatable),
            allowed_pods: pods,
            images,
            ..Self::default()
        }
    }

    fn differs(&self, other: &Self) -> bool {
        self.labels != other.labels
            || self.taints != other.taints
            || self.unschedulable != other.unschedulable
            || self.allocatable != other.allocatable
            || self.allowed_pods != other.allowed_pods
    }

    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests.exact);
        self.assumed_cpu += pod.requests.assumed_cpu;
        self.assumed_memory += pod.requests.assumed_memory;
        self.pods.push(pod.clone());
    }

    fn remove(&mut self, key: &str) {
        let Some(at) = self.pods.iter().position(|pod| &*pod.key == key) else { return };
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests.exact);
        self.assumed_cpu -= pod.requests.assumed_cpu;
        self.assumed_memory -= pod.requests.assumed_memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};

    #[test]
    fn pods_may_be_known_before_and_after_their_node() {
        let mut snapshot = Snapshot::default();
        snapshot.place_pod(pod("a").cpu("1").owner("rs").info(), "n1");
        assert_eq!(snapshot.node_count(), 0);
        assert_eq!(snapshot.apply_node(&node("n1").build()), NodeChange::Added);
        assert_eq!(snapshot.node(0).requested.cpu, 1000);
        assert_eq!(snapshot.apply_node(&node("n1").build()), NodeChange::Irrelevant);
        assert_eq!(snapshot.apply_node(&node("n1").label("x", "y").build()), NodeChange::Relevant);
        snapshot.remove_node("n1");
        assert_eq!((snapshot.node_count(), snapshot.places()), (0, 1));
        snapshot.remove_pod("default/a");
        assert!(snapshot.owned("rs").is_none());
        snapshot.apply_node(&node("n2").build());
        assert_eq!((snapshot.node(0).name.as_str(), snapshot.places()), ("n2", 1));
    }

    #[test]
    fn a_changed_pod_takes_the_place_of_its_earlier_state() {
        let mut snapshot = Snapshot::default();
        snapshot.apply_node(&node("n1").build());
        snapshot.place_pod(pod("a").cpu("1").info(), "n1");
        snapshot.place_pod(pod("a").cpu("500m").info(), "n1");
        assert_eq!((snapshot.node(0).requested.cpu, snapshot.node(0).pods.len()), (500, 1));
    }
}
