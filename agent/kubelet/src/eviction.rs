//! Putting pods out before the machine runs dry.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{ObjectReference, Pod, PodStatus};
use reconcile::EventType;
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::manager::PodTable;
use crate::node::status::NodeFindings;
use crate::pod::is_static;
use crate::pod_cgroup::pod_group;
use crate::resources::{Qos, qos_of, whole};
use crate::status::Verdict;

/// Priority from which on pods are not put out.
const CRITICAL: i32 = 2_000_000_000;
/// What one pod held has to come back before another one is put out.
const COOL_DOWN: Duration = Duration::from_secs(8);

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    Memory,
    Disk,
}

impl Shortage {
    fn of(node: &NodeContext, findings: &NodeFindings) -> Option<Self> {
        let is_short =
            [(findings.has_memory_pressure(node), Self::Memory), (findings.has_disk_pressure(node), Self::Disk)];
        is_short.into_iter().find_map(|(is_short, what)| is_short.then_some(what))
    }

    fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }
}

/// Puts pods out, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// When the last one was.
    last: Option<Instant>,
}

impl Relief {
    /// Puts the least important pod out if memory or disk is short. Answers whether it did.
    pub(crate) fn relieve(&mut self, node: &NodeContext, table: &PodTable, findings: &NodeFindings) -> bool {
        let Some(shortage) = Shortage::of(node, findings).filter(|_| self.is_ready(Instant::now())) else {
            return false;
        };
        let resource = shortage.resource();
        let Some(victim) = choose_victim(&table.list(), shortage, |pod| memory_of(node, pod)) else { return false };
        self.last = Some(Instant::now());
        let (pod, namespace) = (&victim.metadata.name, &victim.metadata.namespace);
        let stalled = findings.stall.percent;
        tracing::warn!(namespace, pod, resource, stalled, "the node is short of a resource: a pod is put out");
        let words = format!("Attempting to reclaim {resource}");
        node.recorder.event_on(reference(node), EventType::Warning, "EvictionThresholdMet", words);
        let message = format!("The node was low on resource: {resource}. {}", used(node, &victim, shortage));
        table.evict(&victim.metadata.uid, Verdict { reason: "Evicted".to_owned(), message, is_disruption: true });
        true
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= COOL_DOWN)
    }
}

fn reference(node: &NodeContext) -> ObjectReference {
    let name = node.config.node_name.clone();
    // Events of nodes carry the name here, as upstream's do.
    ObjectReference { kind: "Node".to_owned(), uid: name.clone(), name, ..ObjectReference::default() }
}

fn used(node: &NodeContext, pod: &Pod, shortage: Shortage) -> String {
    match shortage {
        Shortage::Memory => {
            let (used, asked) = (memory_of(node, pod) / 1024, requested(pod) / 1024);
            format!("The pod was using {used}Ki, and had requested {asked}Ki. ")
        }
        Shortage::Disk => String::new(),
    }
}

/// Bytes that a pod holds and cannot give back at once.
fn memory_of(node: &NodeContext, pod: &Pod) -> i64 {
    let Some(hierarchy) = &node.hierarchy else { return 0 };
    let config = &node.config;
    let group = pod_group(config.cgroup_driver, &config.cgroup_root, qos_of(pod), &pod.metadata.uid);
    let usage = hierarchy.group(&group.path).usage(node.system.as_ref());
    i64::try_from(usage.working_set_bytes).unwrap_or(i64::MAX)
}

/// Bytes that a pod asked for.
fn requested(pod: &Pod) -> i64 {
    let requests = pod.spec.containers.iter().filter_map(|container| container.resources.requests.get("memory"));
    requests.map(whole).fold(0, i64::saturating_add)
}

/// The pod that is missed least. Where memory is short: one that holds more than it asked for before others, low priority
/// before high, and then who holds most beyond what it asked for, as upstream ranks them; pods of best effort asked for
/// nothing. Where disk is: best effort before others, low priority before high, young before old.
fn choose_victim(pods: &[(Arc<Pod>, PodStatus)], shortage: Shortage, memory: impl Fn(&Pod) -> i64) -> Option<Arc<Pod>> {
    let candidates = pods.iter().filter(|(pod, status)| {
        let is_active = !matches!(status.phase.as_str(), "Succeeded" | "Failed");
        is_active && !is_static(pod) && pod.spec.priority.unwrap_or(0) < CRITICAL
    });
    let chosen = candidates.min_by_key(|(pod, _)| {
        let priority = pod.spec.priority.unwrap_or(0);
        match shortage {
            Shortage::Memory => {
                let beyond = memory(pod).saturating_sub(requested(pod));
                (i32::from(beyond <= 0), priority, Reverse(beyond))
            }
            Shortage::Disk => (class(pod), priority, Reverse(pod.metadata.creation_timestamp.unix().unwrap_or(0))),
        }
    });
    chosen.map(|(pod, _)| pod.clone())
}

fn class(pod: &Pod) -> i32 {
    match qos_of(pod) {
        Qos::BestEffort => 0,
        Qos::Burstable => 1,
        Qos::Guaranteed => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Quantity;
    use api::core::v1::Container;

    const MIB: i64 = 1 << 20;

    /// A pod of a priority, with a request of so many MiB, which holds so many.
    fn pod(name: &str, priority: i32, (asks, holds): (i64, i64)) -> (Arc<Pod>, PodStatus, i64) {
        let mut pod = Pod::default();
        pod.metadata.name = name.to_owned();
        pod.spec.priority = Some(priority);
        let mut container = Container::default();
        if asks > 0 {
            container.resources.requests.insert("memory".to_owned(), Quantity { string: format!("{asks}Mi") });
        }
        pod.spec.containers = vec![container];
        (Arc::new(pod), PodStatus { phase: "Running".to_owned(), ..PodStatus::default() }, holds * MIB)
    }

    fn victim(pods: &[(Arc<Pod>, PodStatus, i64)]) -> Option<String> {
        let table: Vec<_> = pods.iter().map(|(pod, status, _)| (pod.clone(), status.clone())).collect();
        let memory = |asked: &Pod| {
            let found = pods.iter().find(|(pod, _, _)| pod.metadata.name == asked.metadata.name);
            found.map_or(0, |(_, _, held)| *held)
        };
        choose_victim(&table, Shortage::Memory, memory).map(|pod| pod.metadata.name.clone())
    }

    #[test]
    fn who_took_most_beyond_its_request_goes_first() {
        let within = pod("within", -5, (900, 800));
        let leaking = pod("leaking", 0, (100, 700));
        let modest = pod("modest", 0, (0, 50));
        let important = pod("important", 1000, (0, 900));
        let all = [within.clone(), important.clone(), modest.clone(), leaking];
        assert_eq!(victim(&all).as_deref(), Some("leaking"));
        assert_eq!(victim(&all[..3]).as_deref(), Some("modest"), "priority counts before size");
        assert_eq!(victim(&all[..2]).as_deref(), Some("important"), "a request that is kept protects");
        assert_eq!(victim(&all[..1]).as_deref(), Some("within"));
    }

    #[test]
    fn critical_static_and_ended_pods_stay() {
        let critical = pod("critical", CRITICAL, (0, 900));
        let mut mirror = pod("static", 0, (0, 900));
        Arc::make_mut(&mut mirror.0)
            .metadata
            .annotations
            .insert("kubernetes.io/config.source".to_owned(), "file".to_owned());
        let mut ended = pod("ended", 0, (0, 900));
        ended.1.phase = "Failed".to_owned();
        assert_eq!(victim(&[critical, mirror, ended]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_pod_at_a_time_goes() {
        let mut relief = Relief::default();
        assert!(relief.is_ready(Instant::now()));
        relief.last = Some(Instant::now());
        assert!(!relief.is_ready(Instant::now() + COOL_DOWN / 2));
        assert!(relief.is_ready(Instant::now() + COOL_DOWN));
    }
}
