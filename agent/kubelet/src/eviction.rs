//! Putting pods out before the machine runs dry.

use std::cmp::Reverse;
use std::sync::Arc;

use api::core::v1::{Pod, PodStatus};

use crate::context::NodeContext;
use crate::manager::PodTable;
use crate::node::status::NodeFindings;
use crate::pod::is_static;
use crate::resources::{Qos, qos_of};
use crate::status::Verdict;

/// Priority from which on pods are not put out.
const CRITICAL: i32 = 2_000_000_000;

/// Puts the least important pod out if memory or disk is short.
pub(crate) fn relieve(node: &NodeContext, table: &PodTable, findings: &NodeFindings) {
    let resource = if findings.has_memory_pressure(node) {
        "memory"
    } else if findings.has_disk_pressure(node) {
        "ephemeral-storage"
    } else {
        return;
    };
    if let Some(victim) = choose_victim(&table.list()) {
        tracing::warn!(pod = victim.metadata.name, resource, "the node is short of a resource: a pod is put out");
        let message = format!("The node was low on resource: {resource}. ");
        table.evict(&victim.metadata.uid, Verdict { reason: "Evicted".to_owned(), message, is_disruption: true });
    }
}

/// The pod that is missed least: best effort before others, low priority before high, young before old.
fn choose_victim(pods: &[(Arc<Pod>, PodStatus)]) -> Option<Arc<Pod>> {
    let rank = |pod: &Pod| match qos_of(pod) {
        Qos::BestEffort => 0,
        Qos::Burstable => 1,
        Qos::Guaranteed => 2,
    };
    let candidates = pods.iter().filter(|(pod, status)| {
        let is_active = !matches!(status.phase.as_str(), "Succeeded" | "Failed");
        is_active && !is_static(pod) && pod.spec.priority.unwrap_or(0) < CRITICAL
    });
    let chosen = candidates.min_by_key(|(pod, _)| {
        let created = pod.metadata.creation_timestamp.unix().unwrap_or(0);
        (rank(pod), pod.spec.priority.unwrap_or(0), Reverse(created))
    });
    chosen.map(|(pod, _)| pod.clone())
}
