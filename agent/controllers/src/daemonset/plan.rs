//! Where pods are missing, where there are too many, and which old ones make room for new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::IntOrString;
use api::apps::v1::DaemonSet;
use api::core::v1::{Node, Pod};

use super::Template;
use crate::node_fit::{fit, named_node};
use crate::pods::{Availability, availability, is_finished, is_ready, scaled};

/// A set's pods by the node they run on or are tied to.
pub(super) type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What to change.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that ended by themselves.
    pub(super) finished: Vec<Arc<Pod>>,
}

/// Sorts pods to their nodes, the oldest of each first. Those that ended and are going do not count any more.
pub(super) fn by_node(pods: Vec<Arc<Pod>>) -> ByNode {
    let mut nodes = ByNode::new();
    for pod in pods {
        if is_finished(&pod) && is_going(&pod) {
            continue;
        }
        if let Some(node) = named_node(&pod.spec) {
            nodes.entry(node.to_owned()).or_default().push(pod);
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.unix(), pod.metadata.name.clone()));
    }
    nodes
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_available(set: &DaemonSet, pod: &Pod, now: i64) -> bool {
    availability(pod, set.spec.min_ready_seconds, now) == Availability::Available
}

/// One pod on every node that fits, none elsewhere.
pub(super) fn place(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, template: &Template, now: i64) -> Placed {
    let mut placed = Placed::default();
    let surge = surge_of(set, nodes.len()) > 0;
    let pod_spec = &super::daemon_pod(set, template).spec;
    for node in nodes {
        let fit = fit(pod_spec, node);
        let here = pods.get(&node.metadata.name).map(Vec::as_slice).unwrap_or_default();
        let alive = here.iter().filter(|pod| !is_going(pod));
        if !fit.stay {
            placed.delete.extend(alive.cloned());
            continue;
        }
        let (finished, running): (Vec<_>, Vec<_>) = alive.cloned().partition(|pod| is_finished(pod));
        placed.finished.extend(finished);
        if fit.run && (here.is_empty() || (surge && running.is_empty())) {
            placed.create.push(node.metadata.name.clone());
        } else if surge {
            placed.delete.extend(surplus_of_surge(set, &running, template, now));
        } else {
            placed.delete.extend(running.into_iter().skip(1));
        }
    }
    // Pods tied to a node that is gone before they ran on it: nobody else ends them.
    let known = |name: &str| nodes.iter().any(|node| node.metadata.name == name);
    let lost = pods.iter().filter(|(name, _)| !known(name)).flat_map(|(_, pods)| pods);
    placed.delete.extend(lost.filter(|pod| pod.spec.node_name.is_empty() && !is_going(pod)).cloned());
    placed
}

/// While surging, one old and one new pod may share a node until the new one is available.
fn surplus_of_surge(set: &DaemonSet, running: &[Arc<Pod>], template: &Template, now: i64) -> Vec<Arc<Pod>> {
    let (new, old): (Vec<_>, Vec<_>) = running.iter().cloned().partition(|pod| template.made(pod));
    let mut surplus: Vec<Arc<Pod>> = new.iter().skip(1).chain(old.iter().skip(1)).cloned().collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!is_ready(old) || is_available(set, new, now))
    {
        surplus.push(old.clone());
    }
    surplus
}

/// The next step of a rolling update, once every node has its pod.
pub(super) fn roll(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, template: &Template, now: i64) -> Placed {
    let pod_spec = super::daemon_pod(set, template).spec;
    let runs_here = |name: &str| nodes.iter().any(|node| node.metadata.name == name && fit(&pod_spec, node).run);
    let desired = nodes.iter().filter(|node| fit(&pod_spec, node).run).count();
    let (surge, unavailable) = (surge_of(set, desired), unavailable_of(set, desired));
    let mut on_nodes = Vec::new();
    let mut crowded = 0;
    for (name, pods) in pods {
        let (new, old): (Vec<_>, Vec<_>) = pods.iter().filter(|p| !is_going(p)).partition(|pod| template.made(pod));
        if new.len() > 1 || old.len() > 1 {
            crowded += 1;
            continue;
        }
        on_nodes.push((name.as_str(), new.first().copied(), old.first().copied()));
    }
    let available = |pod: &Arc<Pod>| is_available(set, pod, now);
    if surge == 0 {
        return Placed { delete: replaced(&on_nodes, unavailable, crowded, &available), ..Placed::default() };
    }
    surged(&on_nodes, (surge, crowded, desired), &runs_here, &available)
}

type OnNode<'a> = (&'a str, Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// Old pods to delete: all that do not work, and others as far as pods may be missing.
fn replaced(
    on_nodes: &[OnNode<'_>],
    unavailable: usize,
    crowded: usize,
    available: &impl Fn(&Arc<Pod>) -> bool,
) -> Vec<Arc<Pod>> {
    let (mut missing, mut broken, mut candidates) = (crowded, Vec::new(), Vec::new());
    for (_, new, old) in on_nodes {
        match (new, old) {
            (None, None) | (Some(_), Some(_)) => missing += 1,
            (Some(new), None) => missing += usize::from(!available(new)),
            (None, Some(old)) if !available(old) => {
                missing += 1;
                broken.push((*old).clone());
            }
            (None, Some(old)) => candidates.push((*old).clone()),
        }
    }
    candidates.truncate(unavailable.saturating_sub(missing));
    broken.extend(candidates);
    broken
}

/// New pods next to old ones as far as the surge allows; old ones go once their successor is available.
fn surged(
    on_nodes: &[OnNode<'_>],
    (surge, crowded, desired): (usize, usize, usize),
    runs_here: &impl Fn(&str) -> bool,
    available: &impl Fn(&Arc<Pod>) -> bool,
) -> Placed {
    let (mut surging, mut works) = (crowded, 0);
    let (mut placed, mut candidates, mut leaving) = (Placed::default(), Vec::new(), Vec::new());
    for (name, new, old) in on_nodes {
        works += usize::from(old.or(*new).is_some_and(available));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) => match (available(old), runs_here(name)) {
                (false, false) => placed.delete.push((*old).clone()),
                (false, true) => placed.create.push((*name).to_owned()),
                (true, false) => leaving.push((*old).clone()),
                (true, true) => candidates.push((*name).to_owned()),
            },
            (Some(new), Some(_)) if !available(new) => surging += 1,
            (Some(_), Some(old)) => placed.delete.push((*old).clone()),
        }
    }
    leaving.truncate(works.saturating_sub(desired));
    placed.delete.extend(leaving);
    candidates.truncate(surge.saturating_sub(surging));
    placed.create.extend(candidates);
    placed
}

fn surge_of(set: &DaemonSet, desired: usize) -> usize {
    let rolling = set.spec.update_strategy.rolling_update.as_ref();
    let rolls = set.spec.update_strategy.r#type != "OnDelete";
    rolling.filter(|_| rolls).map_or(0, |r| limit(r.max_surge.as_ref(), desired))
}

fn unavailable_of(set: &DaemonSet, desired: usize) -> usize {
    let rolling = set.spec.update_strategy.rolling_update.as_ref();
    let asked = rolling.map_or(1, |r| limit(r.max_unavailable.as_ref(), desired));
    // Neither would never move.
    if asked == 0 && surge_of(set, desired) == 0 { 1 } else { asked }
}

fn limit(value: Option<&IntOrString>, desired: usize) -> usize {
    let desired = i32::try_from(desired).unwrap_or(i32::MAX);
    value.map_or(0, |value| usize::try_from(scaled(value, desired, true)).unwrap_or(0))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
