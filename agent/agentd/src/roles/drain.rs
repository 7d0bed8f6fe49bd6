//! Moving pods away from a node before its machine goes down, as far as budgets allow.
//!
//! A node that is closed for that says in which start of its machine. So whoever closed it may be gone when the machine
//! is back: the machine opens it by itself. What an administrator closed is left closed.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::core::v1::{Node, Pod};
use api::meta::v1::{ObjectMeta, Status};
use api::policy::v1::Eviction;
use client::{Client, ListParams, Patch};
use serde_json::json;

/// Pods that are made from files of the node; the API server only shows them.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How often it is looked whether pods have gone, and refused evictions are asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// The start of its machine in which a node was closed for the machine to go down.
const CLOSED_IN: &str = "keelson.io/closed-in-boot";

/// Closes a node and moves its pods away, for a machine that goes down. One that cannot be cleared is opened again.
pub(crate) async fn clear(client: &Client, node: &str, boot_id: &str, within: Duration) -> Result<()> {
    close(client, node, boot_id).await?;
    let error = match drain(client, node, within).await {
        Ok(moved) => {
            eprintln!("{moved} pods have left the node {node}");
            return Ok(());
        }
        Err(error) => error,
    };
    match open(client, node).await {
        Ok(()) => Err(error),
        Err(still) => Err(error.context(format!("the node {node} stays closed: {still:#}"))),
    }
}

/// Lets the cluster put nothing more on a node until its machine has started again.
async fn close(client: &Client, node: &str, boot_id: &str) -> Result<()> {
    let found: Node = client.get(None, node).await.with_context(|| format!("looking at the node {node}"))?;
    if found.spec.unschedulable && closed_in(&found).is_none() {
        return Ok(());
    }
    let patch = json!({ "metadata": { "annotations": { CLOSED_IN: boot_id } }, "spec": { "unschedulable": true } });
    let patched = client.patch::<Node>(None, node, None, &Patch::Merge(patch)).await;
    patched.map(drop).with_context(|| format!("closing the node {node}"))
}

/// Opens a node that [`close`] has closed.
pub(crate) async fn open(client: &Client, node: &str) -> Result<()> {
    let found: Node = client.get(None, node).await.with_context(|| format!("looking at the node {node}"))?;
    if closed_in(&found).is_none() {
        return Ok(());
    }
    let patch = json!({ "metadata": { "annotations": { CLOSED_IN: null } }, "spec": { "unschedulable": null } });
    let patched = client.patch::<Node>(None, node, None, &Patch::Merge(patch)).await;
    patched.map(drop).with_context(|| format!("opening the node {node}"))
}

/// In which start of its machine a node was closed for the machine to go down, if it was.
pub(crate) fn closed_in(node: &Node) -> Option<&str> {
    node.metadata.annotations.get(CLOSED_IN).map(String::as_str)
}

/// Evicts all pods that another node can run, and waits until they are gone. The node takes no new ones from before.
async fn drain(client: &Client, node: &str, within: Duration) -> Result<usize> {
    let end = tokio::time::Instant::now() + within;
    let mut evicted = 0;
    loop {
        let params = ListParams { field_selector: format!("spec.nodeName={node}"), ..ListParams::default() };
        let pods = client.list::<Pod>(None, &params).await.context("listing the node's pods")?.items;
        let moving: Vec<&Pod> = pods.iter().filter(|pod| can_move(pod)).collect();
        if moving.is_empty() {
            return Ok(evicted);
        }
        let mut refused = Vec::new();
        for pod in moving.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            match evict(client, pod).await {
                Ok(()) => evicted += 1,
                Err(error) => refused.push(format!("{}/{}: {error}", pod.metadata.namespace, pod.metadata.name)),
            }
        }
        if tokio::time::Instant::now() >= end {
            let left = moving.iter().map(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name));
            let left: Vec<String> = if refused.is_empty() { left.collect() } else { refused };
            bail!("not all pods left the node {node} within {} s: {}", within.as_secs(), left.join("; "));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a pod is to go: its controller puts it onto every node anew, the node itself keeps it, or it has ended
/// otherwise.
fn can_move(pod: &Pod) -> bool {
    let is_owned = |kind: &str| {
        pod.metadata.owner_references.iter().any(|owner| owner.controller == Some(true) && owner.kind == kind)
    };
    let is_over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    !is_over && !is_owned("DaemonSet") && !pod.metadata.annotations.contains_key(MIRROR)
}

/// A budget refuses with 429; a pod that has gone meanwhile is what was wanted.
async fn evict(client: &Client, pod: &Pod) -> Result<(), client::Error> {
    let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    let metadata = ObjectMeta { namespace: namespace.clone(), name: name.clone(), ..ObjectMeta::default() };
    let eviction = Eviction { metadata, ..Eviction::default() };
    let kind = ("policy/v1", "Eviction");
    let answer =
        client.create_subresource::<Pod, _, Status>(Some(&namespace), &name, "eviction", kind, &eviction).await;
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        answer => answer.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use api::meta::v1::OwnerReference;

    use super::*;

    #[test]
    fn pods_that_stay_with_the_node_are_left_alone() {
        let mut pod = Pod::default();
        assert!(can_move(&pod));
        let owner = |kind: &str| OwnerReference { kind: kind.to_owned(), controller: Some(true), ..Default::default() };
        pod.metadata.owner_references = vec![owner("ReplicaSet")];
        assert!(can_move(&pod));
        let mut of_daemon_set = pod.clone();
        of_daemon_set.metadata.owner_references = vec![owner("DaemonSet")];
        let mut mirror = pod.clone();
        mirror.metadata.annotations.insert(MIRROR.to_owned(), "hash".to_owned());
        pod.status.phase = "Succeeded".to_owned();
        assert!([of_daemon_set, mirror, pod].iter().all(|pod| !can_move(pod)));
    }
}
