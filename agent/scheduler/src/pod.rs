//! A pod, reduced to what scheduling looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::v1::{Affinity, Container, NodeSelectorTerm, Pod, PodCondition, Toleration, TopologySpreadConstraint};
use api::labels::Selector;

use crate::labels::{Labels, PodTerm, any_term_matches, selector, with_label_keys};
use crate::resources::{Requests, is_sidecar};

/// `NAMESPACE/NAME`.
pub(crate) type PodKey = Arc<str>;

/// A pod, reduced to what scheduling looks at.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    /// `NAMESPACE/NAME`.
    pub(crate) key: PodKey,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) labels: Labels,
    /// Empty while the pod waits.
    pub(crate) node_name: String,
    pub(crate) scheduler_name: String,
    /// Higher goes first.
    pub(crate) priority: i32,
    /// Whether it may push out pods of lower priority.
    pub(crate) preempts: bool,
    /// Seconds since 1970.
    pub(crate) started: i64,
    pub(crate) deleting: bool,
    /// Succeeded or Failed: needs nothing any more.
    pub(crate) finished: bool,
    /// Held back by scheduling gates.
    pub(crate) gated: bool,
    pub(crate) nominated_node: String,
    /// The PodScheduled condition, if there is one.
    pub(crate) scheduled: Option<PodCondition>,
    pub(crate) requests: Requests,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) node_choice: NodeChoice,
    pub(crate) affinity: Vec<PodTerm>,
    pub(crate) anti_affinity: Vec<PodTerm>,
    /// Weighted; negative for anti-affinity.
    pub(crate) preferred: Vec<(i64, PodTerm)>,
    pub(crate) spread: Vec<Spread>,
    /// The uid of the controlling owner.
    pub(crate) owner: Option<String>,
    pub(crate) images: Vec<String>,
    pub(crate) claims: Vec<Claim>,
}

/// A port on the node that the pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

/// Which nodes a pod accepts and prefers.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeChoice {
    labels: BTreeMap<String, String>,
    required: Option<Vec<NodeSelectorTerm>>,
    /// Weighted terms.
    pub(crate) preferred: Vec<(i64, NodeSelectorTerm)>,
}

impl NodeChoice {
    /// Whether the node is acceptable.
    pub(crate) fn accepts(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| any_term_matches(terms, name, labels))
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) topology_key: String,
    pub(crate) max_skew: i64,
    /// `DoNotSchedule`.
    pub(crate) hard: bool,
    pub(crate) selector: Selector,
    pub(crate) min_domains: i64,
    pub(crate) honors_node_choice: bool,
    pub(crate) honors_taints: bool,
}

/// A persistent volume claim a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// Made for this pod by the ephemeral volume controller.
    pub(crate) ephemeral: bool,
}

impl PodInfo {
    /// Reads a pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        let (metadata, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
        let mut info = Self {
            key: format!("{}/{}", metadata.namespace, metadata.name).into(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            labels: metadata.labels.clone(),
            node_name: spec.node_name.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            started: status.start_time.as_ref().and_then(|time| time.unix()).unwrap_or(i64::MAX),
            deleting: metadata.deletion_timestamp.is_some(),
            finished: status.phase == "Succeeded" || status.phase == "Failed",
            gated: !spec.scheduling_gates.is_empty(),
            nominated_node: status.nominated_node_name.clone(),
            scheduled: status.conditions.iter().find(|condition| condition.r#type == "PodScheduled").cloned(),
            requests: Requests::of(spec),
            host_ports: host_ports(pod),
            tolerations: spec.tolerations.clone(),
            node_choice: NodeChoice { labels: spec.node_selector.clone(), ..NodeChoice::default() },
            affinity: Vec::new(),
            anti_affinity: Vec::new(),
            preferred: Vec::new(),
            spread: spec.topology_spread_constraints.iter().map(|one| Spread::of(one, &metadata.labels)).collect(),
            owner: metadata
                .owner_references
                .iter()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone()),
            images: spec.init_containers.iter().chain(&spec.containers).map(|one| image_name(&one.image)).collect(),
            claims: claims(pod),
        };
        if let Some(affinity) = &spec.affinity {
            info.read_affinity(affinity);
        }
        info
    }

    /// Whether existing pods' terms may concern others: then the pod is looked at in every decision.
    pub(crate) fn has_pod_terms(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred.is_empty()
    }

    fn read_affinity(&mut self, affinity: &Affinity) {
        let term = |term| PodTerm::of(term, &self.namespace, &self.labels);
        if let Some(pods) = &affinity.pod_affinity {
            self.affinity = pods.required_during_scheduling_ignored_during_execution.iter().map(term).collect();
            for one in &pods.preferred_during_scheduling_ignored_during_execution {
                self.preferred.push((i64::from(one.weight), term(&one.pod_affinity_term)));
            }
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            self.anti_affinity = pods.required_during_scheduling_ignored_during_execution.iter().map(term).collect();
            for one in &pods.preferred_during_scheduling_ignored_during_execution {
                self.preferred.push((-i64::from(one.weight), term(&one.pod_affinity_term)));
            }
        }
        if let Some(nodes) = &affinity.node_affinity {
            let required = nodes.required_during_scheduling_ignored_during_execution.as_ref();
            self.node_choice.required = required.map(|selector| selector.node_selector_terms.clone());
            for one in &nodes.preferred_during_scheduling_ignored_during_execution {
                self.node_choice.preferred.push((i64::from(one.weight), one.preference.clone()));
            }
        }
    }
}

impl Spread {
    fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let selected = with_label_keys(constraint.label_selector.as_ref(), &constraint.match_label_keys, labels);
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: selector(selected.as_ref()),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            honors_node_choice: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS)
    }
}

const ANY_ADDRESS: &str = "0.0.0.0";

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let ports = |container: &Container| -> Vec<HostPort> {
        let wanted = container.ports.iter().filter(|port| port.host_port > 0);
        wanted
            .map(|port| HostPort {
                ip: or(&port.host_ip, ANY_ADDRESS),
                protocol: or(&port.protocol, "TCP"),
                port: port.host_port,
            })
            .collect()
    };
    let sidecars = pod.spec.init_containers.iter().filter(|container| is_sidecar(container));
    pod.spec.containers.iter().chain(sidecars).flat_map(ports).collect()
}

fn claims(pod: &Pod) -> Vec<Claim> {
    let volumes = pod.spec.volumes.iter();
    volumes
        .filter_map(|volume| {
            let source = &volume.volume_source;
            if let Some(claim) = &source.persistent_volume_claim {
                return Some(Claim { name: claim.claim_name.clone(), ephemeral: false });
            }
            source.ephemeral.as_ref()?;
            Some(Claim { name: format!("{}-{}", pod.metadata.name, volume.name), ephemeral: true })
        })
        .collect()
}

/// The name as nodes report it: with a tag.
fn image_name(image: &str) -> String {
    let tag_possible = image.rsplit('/').next().unwrap_or(image);
    if tag_possible.contains(':') || tag_possible.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// Drops what scheduling does not look at before a pod is cached.
pub(crate) fn project(pod: &mut Pod) {
    pod.metadata.managed_fields = Vec::new();
    pod.metadata.annotations = BTreeMap::new();
    let spec = &mut pod.spec;
    for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
        *container = Container {
            image: std::mem::take(&mut container.image),
            ports: std::mem::take(&mut container.ports),
            resources: std::mem::take(&mut container.resources),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
    spec.ephemeral_containers = Vec::new();
    spec.volumes.retain(|volume| {
        volume.volume_source.persistent_volume_claim.is_some() || volume.volume_source.ephemeral.is_some()
    });
    let status = &mut pod.status;
    status.conditions.retain(|condition| condition.r#type == "PodScheduled");
    status.container_statuses = Vec::new();
    status.init_container_statuses = Vec::new();
    status.ephemeral_container_statuses = Vec::new();
}
