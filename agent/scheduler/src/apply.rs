//! What the scheduler does to the world: bind, report, evict.

use std::sync::Arc;

use api::core::v1::{Binding, ObjectReference, Pod};
use api::meta::v1::Status;
use client::{Client, DeleteOptions, Patch};
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// Gives the pod its node.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> client::Result<()> {
    let mut binding = Binding::default();
    binding.metadata.name.clone_from(&pod.name);
    binding.metadata.namespace.clone_from(&pod.namespace);
    binding.metadata.uid.clone_from(&pod.uid);
    binding.target = ObjectReference { kind: "Node".to_owned(), name: node.to_owned(), ..ObjectReference::default() };
    let namespace = Some(pod.namespace.as_str());
    let answer: client::Result<Status> = client
        .create_subresource::<Pod, Binding, Status>(namespace, &pod.name, "binding", ("v1", "Binding"), &binding)
        .await;
    answer.map(drop)
}

/// What to say about a pod that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) message: String,
    /// Where room is being made; `None` leaves what was there.
    pub(crate) nominated_node: Option<String>,
}

impl Report {
    /// The change of the pod's status; `None` if it says so already.
    pub(crate) fn patch(&self, pod: &PodInfo, now: i64) -> Option<Patch> {
        let known = pod.scheduled.as_ref();
        let same = known.is_some_and(|known| {
            known.status == "False" && known.reason == "Unschedulable" && known.message == self.message
        });
        let nominated = self.nominated_node.as_ref().filter(|node| **node != pod.nominated_node);
        if same && nominated.is_none() {
            return None;
        }
        let mut status = json!({});
        if !same {
            status["conditions"] = json!([self.condition(pod, now)]);
        }
        if let Some(node) = nominated {
            status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { node.as_str().into() };
        }
        Some(Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status})))
    }

    fn condition(&self, pod: &PodInfo, now: i64) -> Value {
        let known = pod.scheduled.as_ref();
        let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.unix());
        json!({
            "type": "PodScheduled",
            "observedGeneration": pod.generation,
            "status": "False",
            "reason": "Unschedulable",
            "message": self.message,
            "lastProbeTime": null,
            "lastTransitionTime": api::time::format_seconds(since.unwrap_or(now)),
        })
    }
}

/// Changes a pod's status. A pod that is gone meanwhile is no failure.
pub(crate) async fn patch_status(client: &Client, pod: &PodInfo, patch: &Patch) -> client::Result<()> {
    match client.patch::<Pod>(Some(&pod.namespace), &pod.name, Some("status"), patch).await {
        Ok(_patched) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a pod leave in favour of one of higher priority.
pub(crate) async fn evict(client: &Client, victim: &Arc<PodInfo>, scheduler: &str, now: i64) -> client::Result<()> {
    let condition = json!({
        "type": "DisruptionTarget",
        "observedGeneration": victim.generation,
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastProbeTime": null,
        "lastTransitionTime": api::time::format_seconds(now),
    });
    let patch = Patch::Strategic(json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}));
    patch_status(client, victim, &patch).await?;
    let options = DeleteOptions { uid: Some(victim.uid.clone()), ..DeleteOptions::default() };
    match client.delete::<Pod>(Some(&victim.namespace), &victim.name, &options).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}
