//! The status of a StatefulSet.

use std::sync::Arc;

use api::apps::v1::{StatefulSet, StatefulSetStatus};
use api::core::v1::Pod;

use super::Revisions;
use super::identity::revision_of;
use crate::pods::{Availability, availability, is_ready};

/// The status as the pods have it; `updating` when one of them is being deleted for an update.
pub(super) fn plan(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: &Revisions,
    updating: bool,
    now: i64,
) -> StatefulSetStatus {
    let (current, update) = (&revisions.current.metadata.name, &revisions.update.metadata.name);
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        current_revision: current.clone(),
        update_revision: update.clone(),
        collision_count: Some(set.status.collision_count.unwrap_or(0)),
        conditions: set.status.conditions.clone(),
        ..StatefulSetStatus::default()
    };
    for pod in pods.iter().filter(|pod| !pod.status.phase.is_empty()) {
        status.replicas += 1;
        if pod.status.phase == "Running" && is_ready(pod) {
            status.ready_replicas += 1;
            let available = availability(pod, set.spec.min_ready_seconds, now) == Availability::Available;
            status.available_replicas += i32::from(available);
        }
        if pod.metadata.deletion_timestamp.is_none() {
            status.current_replicas += i32::from(revision_of(pod) == current);
            status.updated_replicas += i32::from(revision_of(pod) == update);
        }
    }
    if updating {
        status.current_replicas -= 1;
    }
    let wanted = set.spec.replicas.unwrap_or(1);
    let rolls = set.spec.update_strategy.r#type == "RollingUpdate";
    let all = [status.updated_replicas, status.ready_replicas, status.replicas];
    if rolls && all.iter().all(|count| *count == wanted) {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(update);
    }
    status
}

/// Seconds until the next pod becomes available.
pub(super) fn next_available(set: &StatefulSet, pods: &[Arc<Pod>], now: i64) -> Option<u64> {
    let waits = pods.iter().filter_map(|pod| match availability(pod, set.spec.min_ready_seconds, now) {
        Availability::In(rest) => Some(rest),
        Availability::NotReady | Availability::Available => None,
    });
    waits.min()
}
