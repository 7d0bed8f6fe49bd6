//! `node-lifecycle-controller` and `taint-eviction-controller`: nodes that are not heard of, and their pods.
//!
//! ```text
//!   Ready ──no heartbeat for 50 s──▶ Unknown ──▶ taints unreachable ──toleration over──▶ pods deleted
//! ```

mod eviction;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::core::v1::{Node, NodeCondition, Pod, Taint};
use api::meta::v1::Time;
use client::{DeleteOptions, Patch};
use reconcile::{Action, EventType, Queue};

use crate::caches::{BY_NODE, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};
use crate::podgc::force_delete;

/// A node that was not heard of for so long is not known to be ready any more.
const GRACE: Duration = Duration::from_secs(50);
/// Pause between looks at a node whose heartbeats come.
const PERIOD: Duration = Duration::from_secs(5);

/// Conditions and the taints (without effect NoExecute) that follow from them.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) struct NodeHealth {
    context: Context,
    heard: Mutex<HashMap<String, Heard>>,
}

/// The last heartbeat as seen, by our own clock: nodes' clocks may be wrong.
struct Heard {
    mark: (Option<api::meta::v1::MicroTime>, Option<i64>),
    at: Instant,
}

impl Controller for NodeHealth {
    const NAME: &'static str = "node-lifecycle-controller";
    const NEEDS: &'static [Need] = &[need::nodes, need::pods, need::node_leases];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.nodes.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.pods.handle(move |event| {
            if let Some(pod) = subject(event).filter(|pod| !pod.spec.node_name.is_empty()) {
                queue.add(Key::new("", &pod.spec.node_name));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context, heard: Mutex::default() }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let pods = self.context.caches.pods.by_index(BY_NODE, &key.name);
        let Some(node) = self.context.caches.nodes.get("", &key.name) else {
            self.heard().remove(&key.name);
            return self.collect_orphans(&key.name, &pods).await;
        };
        let silent = self.is_silent(&node);
        let conditions = if silent { silence(&node, now()) } else { Vec::new() };
        if !conditions.is_empty() {
            self.write_conditions(&node, conditions).await?;
            // The changed node comes back as an event.
            return Ok(Action::RequeueAfter(PERIOD));
        }
        if let Some(taints) = plan_taints(&node, now()) {
            let patch =
                Patch::Merge(serde_json::json!({"metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints.iter().map(taint_json).collect::<Vec<_>>()}}));
            self.context.client.patch::<Node>(None, &key.name, None, &patch).await.during("tainting a node")?;
            return Ok(Action::RequeueAfter(PERIOD));
        }
        if condition(&node, "Ready").is_none_or(|c| c.status != "True") {
            self.mark_pods_not_ready(&pods).await?;
        }
        let next = self.evict(&node, &pods).await?;
        Ok(Action::RequeueAfter(next.map_or(PERIOD, |n| n.min(PERIOD))))
    }
}

impl NodeHealth {
    fn heard(&self) -> std::sync::MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether neither the lease nor the status moved for the grace period.
    fn is_silent(&self, node: &Node) -> bool {
        let name = &node.metadata.name;
        let lease = self.context.caches.node_leases.get("kube-node-lease", name);
        let renewed = lease.as_ref().and_then(|l| l.spec.renew_time);
        let status = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.unix());
        let mark = (renewed, status);
        let mut heard = self.heard();
        match heard.get_mut(name) {
            Some(last) if last.mark == mark => last.at.elapsed() > GRACE,
            _ => {
                heard.insert(name.clone(), Heard { mark, at: Instant::now() });
                false
            }
        }
    }

    async fn write_conditions(&self, node: &Node, conditions: Vec<NodeCondition>) -> Result<(), Error> {
        let mut changed = node.clone();
        changed.status.conditions = conditions;
        let message = format!("Node {} status is now: NodeNotReady", node.metadata.name);
        self.context.recorder.event(node, EventType::Normal, "NodeNotReady", message);
        self.context.client.update_status(&changed).await.during("marking a node as unknown").map(|_| ())
    }

    /// Pods of a node that does not answer are not ready, whatever they last said.
    async fn mark_pods_not_ready(&self, pods: &[std::sync::Arc<Pod>]) -> Result<(), Error> {
        for pod in pods.iter().filter(|pod| crate::pods::is_ready(pod)) {
            let time = api::time::format_seconds(now());
            let ready = serde_json::json!({"type": "Ready", "status": "False", "lastTransitionTime": time});
            let patch = Patch::Strategic(serde_json::json!({"status": {"conditions": [ready]}}));
            let meta = &pod.metadata;
            let done =
                self.context.client.patch::<Pod>(Some(&meta.namespace), &meta.name, Some("status"), &patch).await;
            match done {
                Err(error) if !error.is_not_found() => return Err(error).during("marking a pod as not ready"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes pods whose tolerations of the node's NoExecute taints are over; time until the next one.
    async fn evict(&self, node: &Node, pods: &[std::sync::Arc<Pod>]) -> Result<Option<Duration>, Error> {
        let mut next: Option<Duration> = None;
        for pod in pods {
            match eviction::plan(&node.spec.taints, pod, now()) {
                eviction::Verdict::Stay => {}
                eviction::Verdict::Later(rest) => next = Some(next.map_or(rest, |n| n.min(rest))),
                eviction::Verdict::Now => self.delete_evicted(pod).await?,
            }
        }
        Ok(next)
    }

    async fn delete_evicted(&self, pod: &Pod) -> Result<(), Error> {
        let meta = &pod.metadata;
        let (namespace, client) = (Some(meta.namespace.as_str()), &self.context.client);
        let time = api::time::format_seconds(now());
        let condition = serde_json::json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time});
        let patch = Patch::Strategic(serde_json::json!({"status": {"conditions": [condition]}}));
        match client.patch::<Pod>(namespace, &meta.name, Some("status"), &patch).await {
            Err(error) if !error.is_not_found() => return Err(error).during("telling why a pod is evicted"),
            _ => {}
        }
        self.context.recorder.event(
            pod,
            EventType::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {}/{}", meta.namespace, meta.name),
        );
        let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
        match client.delete::<Pod>(namespace, &meta.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error).during("evicting a pod"),
            _ => Ok(()),
        }
    }

    /// Pods of a node that is no more: nobody else can end them.
    async fn collect_orphans(&self, node: &str, pods: &[std::sync::Arc<Pod>]) -> Result<Action, Error> {
        if node.is_empty() || pods.is_empty() {
            return Ok(Action::Done);
        }
        match self.context.client.get::<Node>(None, node).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).during("looking for a node"),
            Ok(_) => return Ok(Action::Done),
        }
        for pod in pods {
            force_delete(&self.context, pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(Action::Done)
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.conditions.iter().find(|c| c.r#type == kind)
}

/// The conditions of a node that is not heard of; empty where they say so already.
fn silence(node: &Node, now: i64) -> Vec<NodeCondition> {
    const KINDS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut conditions = node.status.conditions.clone();
    let mut changed = false;
    for kind in KINDS {
        let (reason, message) = match condition(node, kind) {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let index = conditions.iter().position(|c| c.r#type == kind).unwrap_or_else(|| {
            conditions.push(NodeCondition { r#type: kind.to_owned(), ..NodeCondition::default() });
            conditions.len() - 1
        });
        let place = &mut conditions[index];
        if place.status != "Unknown" {
            place.status = "Unknown".to_owned();
            place.reason = reason.to_owned();
            place.message = message.to_owned();
            place.last_transition_time = Time::from_unix(now);
            changed = true;
        }
    }
    if changed { conditions } else { Vec::new() }
}

/// The taints that follow from the conditions, `None` where they are there already.
fn plan_taints(node: &Node, now: i64) -> Option<Vec<Taint>> {
    let managed = |t: &Taint| t.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| t.key == *key);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in CONDITION_TAINTS {
        if condition(node, kind).is_some_and(|c| c.status == status) {
            wanted.push((key, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    if condition(node, "Ready").is_none() {
        wanted.push((CONDITION_TAINTS[0].2, "NoSchedule"));
    }
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let mut taints: Vec<Taint> = node.spec.taints.iter().filter(|t| !managed(t)).cloned().collect();
    for (key, effect) in wanted {
        let old = node.spec.taints.iter().find(|t| t.key == key && t.effect == effect);
        taints.push(old.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: (effect == "NoExecute").then(|| Time::from_unix(now)),
            ..Taint::default()
        }));
    }
    let same = taints.len() == node.spec.taints.len() && taints.iter().all(|t| node.spec.taints.contains(t));
    (!same).then_some(taints)
}

fn taint_json(taint: &Taint) -> serde_json::Value {
    let mut made = serde_json::json!({"key": taint.key, "effect": taint.effect});
    if !taint.value.is_empty() {
        made["value"] = taint.value.clone().into();
    }
    if let Some(added) = taint.time_added.and_then(|t| t.unix()) {
        made["timeAdded"] = api::time::format_seconds(added).into();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str) -> Node {
        let mut node = Node::default();
        let condition = NodeCondition { r#type: "Ready".to_owned(), status: ready.to_owned(), ..Default::default() };
        node.status.conditions = vec![condition];
        node
    }

    #[test]
    fn taints_follow_conditions_and_go_with_them() {
        let lost = plan_taints(&node("Unknown"), 7).unwrap();
        assert!(lost.iter().all(|t| t.key == "node.kubernetes.io/unreachable"));
        assert_eq!(lost.len(), 2);
        let mut back = node("True");
        back.spec.taints = lost;
        back.spec.taints.push(Taint { key: "mine".to_owned(), ..Default::default() });
        let left = plan_taints(&back, 8).unwrap();
        assert_eq!(left.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["mine"]);
        back.spec.taints = left;
        assert_eq!(plan_taints(&back, 9), None);
    }

    #[test]
    fn a_cordoned_node_is_tainted() {
        let mut cordoned = node("True");
        cordoned.spec.unschedulable = true;
        assert_eq!(plan_taints(&cordoned, 0).unwrap()[0].key, UNSCHEDULABLE);
    }

    #[test]
    fn silence_is_told_once() {
        let mut silent = node("True");
        silent.status.conditions = silence(&silent, 5);
        assert_eq!(silent.status.conditions.len(), 4);
        assert!(silence(&silent, 6).is_empty());
    }
}
