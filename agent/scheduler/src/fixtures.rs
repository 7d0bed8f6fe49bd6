//! Pods and nodes for tests, in the few words that matter.

use std::sync::Arc;

use api::Quantity;
use api::core::v1::{
    Affinity, Container, ContainerPort, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource, Pod, PodAffinity, PodAffinityTerm, PodAntiAffinity, PodSchedulingGate, Taint,
    Toleration, TopologySpreadConstraint, Volume, WeightedPodAffinityTerm,
};
use api::meta::v1::{LabelSelector, OwnerReference, Time};

use crate::pod::PodInfo;

pub(crate) struct PodBuilder(pub(crate) Pod);

pub(crate) fn pod(name: &str) -> PodBuilder {
    let mut pod = Pod::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.namespace = "default".to_owned();
    pod.metadata.uid = format!("uid-{name}");
    pod.spec.scheduler_name = "default-scheduler".to_owned();
    pod.spec.containers.push(Container::default());
    PodBuilder(pod)
}

impl PodBuilder {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn request(self, name: &str, amount: &str) -> Self {
        self.with(|pod| {
            pod.spec.containers[0].resources.requests.insert(name.to_owned(), Quantity::new(amount));
        })
    }

    pub(crate) fn cpu(self, amount: &str) -> Self {
        self.request("cpu", amount)
    }

    pub(crate) fn memory(self, amount: &str) -> Self {
        self.request("memory", amount)
    }

    pub(crate) fn priority(self, priority: i32) -> Self {
        self.with(|pod| pod.spec.priority = Some(priority))
    }

    pub(crate) fn label(self, key: &str, value: &str) -> Self {
        self.with(|pod| {
            pod.metadata.labels.insert(key.to_owned(), value.to_owned());
        })
    }

    pub(crate) fn owner(self, uid: &str) -> Self {
        let owner = OwnerReference { uid: uid.to_owned(), controller: Some(true), ..OwnerReference::default() };
        self.with(|pod| pod.metadata.owner_references.push(owner))
    }

    pub(crate) fn gated(self) -> Self {
        self.with(|pod| pod.spec.scheduling_gates.push(PodSchedulingGate { name: "gate".to_owned() }))
    }

    pub(crate) fn deleting(self) -> Self {
        self.with(|pod| pod.metadata.deletion_timestamp = Some(Time::from_unix(1)))
    }

    pub(crate) fn nominated(self, node: &str) -> Self {
        self.with(|pod| node.clone_into(&mut pod.status.nominated_node_name))
    }

    pub(crate) fn selector(self, key: &str, value: &str) -> Self {
        self.with(|pod| {
            pod.spec.node_selector.insert(key.to_owned(), value.to_owned());
        })
    }

    pub(crate) fn tolerates(self, key: &str) -> Self {
        let toleration = Toleration { key: key.to_owned(), operator: "Exists".to_owned(), ..Toleration::default() };
        self.with(|pod| pod.spec.tolerations.push(toleration))
    }

    pub(crate) fn host_port(self, port: i32) -> Self {
        let port = ContainerPort { host_port: port, container_port: port, ..ContainerPort::default() };
        self.with(|pod| pod.spec.containers[0].ports.push(port))
    }

    pub(crate) fn claim(self, name: &str) -> Self {
        let mut volume = Volume { name: name.to_owned(), ..Volume::default() };
        volume.volume_source.persistent_volume_claim =
            Some(PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), read_only: false });
        self.with(|pod| pod.spec.volumes.push(volume))
    }

    pub(crate) fn spread(self, key: &str, when: &str, app: &str) -> Self {
        let constraint = TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: when.to_owned(),
            label_selector: Some(app_is(app)),
            ..TopologySpreadConstraint::default()
        };
        self.with(|pod| pod.spec.topology_spread_constraints.push(constraint))
    }

    pub(crate) fn node_affinity(self, key: &str, values: &[&str]) -> Self {
        let requirement = NodeSelectorRequirement {
            key: key.to_owned(),
            operator: "In".to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let term = NodeSelectorTerm { match_expressions: vec![requirement], ..NodeSelectorTerm::default() };
        let required = NodeSelector { node_selector_terms: vec![term] };
        self.affinity(|affinity| {
            affinity.node_affinity = Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(required),
                ..NodeAffinity::default()
            });
        })
    }

    pub(crate) fn near(self, app: &str, key: &str) -> Self {
        self.affinity(|affinity| {
            let pods = affinity.pod_affinity.get_or_insert_with(PodAffinity::default);
            pods.required_during_scheduling_ignored_during_execution.push(pod_term(app, key));
        })
    }

    pub(crate) fn apart_from(self, app: &str, key: &str) -> Self {
        self.affinity(|affinity| {
            let pods = affinity.pod_anti_affinity.get_or_insert_with(PodAntiAffinity::default);
            pods.required_during_scheduling_ignored_during_execution.push(pod_term(app, key));
        })
    }

    pub(crate) fn rather_near(self, app: &str, key: &str) -> Self {
        self.affinity(|affinity| {
            let pods = affinity.pod_affinity.get_or_insert_with(PodAffinity::default);
            let wish = WeightedPodAffinityTerm { weight: 10, pod_affinity_term: pod_term(app, key) };
            pods.preferred_during_scheduling_ignored_during_execution.push(wish);
        })
    }

    fn affinity(self, change: impl FnOnce(&mut Affinity)) -> Self {
        self.with(|pod| change(pod.spec.affinity.get_or_insert_with(Affinity::default)))
    }

    pub(crate) fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::of(&self.0))
    }
}

fn app_is(app: &str) -> LabelSelector {
    let mut selector = LabelSelector::default();
    selector.match_labels.insert("app".to_owned(), app.to_owned());
    selector
}

fn pod_term(app: &str, key: &str) -> PodAffinityTerm {
    PodAffinityTerm { label_selector: Some(app_is(app)), topology_key: key.to_owned(), ..PodAffinityTerm::default() }
}

pub(crate) struct NodeBuilder(Node);

/// A node with 4 CPUs, 8 GiB and room for 110 pods, in a host domain of its own.
pub(crate) fn node(name: &str) -> NodeBuilder {
    let mut node = Node::default();
    node.metadata.name = name.to_owned();
    let builder = NodeBuilder(node).label("kubernetes.io/hostname", name);
    builder.resource("cpu", "4").resource("memory", "8Gi").resource("pods", "110")
}

impl NodeBuilder {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Node)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn resource(self, name: &str, amount: &str) -> Self {
        self.with(|node| {
            node.status.allocatable.insert(name.to_owned(), Quantity::new(amount));
        })
    }

    pub(crate) fn cpu(self, amount: &str) -> Self {
        self.resource("cpu", amount)
    }

    pub(crate) fn label(self, key: &str, value: &str) -> Self {
        self.with(|node| {
            node.metadata.labels.insert(key.to_owned(), value.to_owned());
        })
    }

    pub(crate) fn taint(self, key: &str, effect: &str) -> Self {
        let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
        self.with(|node| node.spec.taints.push(taint))
    }

    pub(crate) fn build(self) -> Node {
        self.0
    }
}
