//! Questions that several controllers ask about pods.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use api::{IntOrString, Resource};

use crate::owner::controller_reference;

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Succeeded or failed.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// The pod's condition of this type.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.conditions.iter().find(|c| c.r#type == kind)
}

/// Whether the pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Whether the pod has been ready for `min_ready_seconds`; else how many seconds that will still take, where it is
/// ready at all.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: i64) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return Availability::NotReady };
    let since = ready.last_transition_time.unix().unwrap_or(now);
    match since + i64::from(min_ready_seconds) - now {
        _ if min_ready_seconds == 0 => Availability::Available,
        ..=0 => Availability::Available,
        rest => Availability::In(rest.unsigned_abs()),
    }
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    NotReady,
    In(u64),
    Available,
}

/// Orders pods so that those to be deleted first come first, by upstream's rules.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>]) {
    let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter() {
        *on_node.entry(pod.spec.node_name.clone()).or_default() += 1;
    }
    pods.sort_by(|a, b| deletion_order(a, b, &on_node));
}

fn deletion_order(a: &Pod, b: &Pod, on_node: &BTreeMap<String, usize>) -> Ordering {
    let phase = |pod: &Pod| match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| -> i64 {
        let text = pod.metadata.annotations.get("controller.kubernetes.io/pod-deletion-cost");
        text.and_then(|t| t.parse().ok()).unwrap_or(0)
    };
    let rank = |pod: &Pod| on_node.get(&pod.spec.node_name).copied().unwrap_or(0);
    let ready_since = |pod: &Pod| condition(pod, "Ready").and_then(|c| c.last_transition_time.unix()).unwrap_or(0);
    let restarts = |pod: &Pod| pod.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0);
    let created = |pod: &Pod| pod.metadata.creation_timestamp.unix().unwrap_or(0);
    (!a.spec.node_name.is_empty())
        .cmp(&!b.spec.node_name.is_empty())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| ready_since(b).cmp(&ready_since(a)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(b).cmp(&created(a)))
}

/// A number or a percentage of `total`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    if value.r#type == 0 {
        return value.int_val;
    }
    let percent: i64 = value.str_val.trim_end_matches('%').parse().unwrap_or(0);
    let product = percent * i64::from(total);
    let value = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A pod of this template, named after its owner.
pub(crate) fn pod_from_template<K: Resource>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = owner.metadata();
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.namespace.clone_from(&meta.namespace);
    pod.metadata.generate_name = format!("{}-", meta.name);
    pod.metadata.labels.clone_from(&template.metadata.labels);
    pod.metadata.annotations.clone_from(&template.metadata.annotations);
    pod.metadata.finalizers.clone_from(&template.metadata.finalizers);
    pod.metadata.owner_references = vec![controller_reference(owner)];
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = name.to_owned();
        pod.spec.node_name = node.to_owned();
        pod.status.phase = phase.to_owned();
        Arc::new(pod)
    }

    #[test]
    fn pods_that_do_least_are_deleted_first() {
        let mut pods = vec![
            pod("runs", "a", "Running"),
            pod("crowded", "b", "Running"),
            pod("crowded2", "b", "Running"),
            pod("waits", "", "Pending"),
            pod("starts", "a", "Pending"),
        ];
        sort_for_deletion(&mut pods);
        let names: Vec<_> = pods.iter().map(|p| p.metadata.name.as_str()).collect();
        assert_eq!(names[..2], ["waits", "starts"]);
    }
}
