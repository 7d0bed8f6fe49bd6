//! The status of a DaemonSet.

use std::sync::Arc;

use api::apps::v1::{DaemonSet, DaemonSetStatus};
use api::core::v1::Node;

use super::Template;
use super::plan::ByNode;
use crate::node_fit::fit;
use crate::pods::{Availability, availability, is_ready};

/// The status as nodes and pods have it. `settled`: the caches show all own writes, so that this generation has
/// been attended to.
pub(super) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &ByNode,
    template: &Template,
    (settled, now): (bool, i64),
) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: if settled { set.metadata.generation } else { set.status.observed_generation },
        collision_count: set.status.collision_count,
        conditions: set.status.conditions.clone(),
        ..DaemonSetStatus::default()
    };
    let pod_spec = super::daemon_pod(set, template).spec;
    for node in nodes {
        let oldest = pods.get(&node.metadata.name).and_then(|pods| pods.first());
        if !fit(&pod_spec, node).run {
            status.number_misscheduled += i32::from(oldest.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = oldest else { continue };
        let available = availability(pod, set.spec.min_ready_seconds, now) == Availability::Available;
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        status.number_available += i32::from(available);
        status.updated_number_scheduled += i32::from(template.made(pod));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}
