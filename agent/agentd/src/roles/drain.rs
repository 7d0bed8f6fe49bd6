//! Moving pods away from a node before its machine goes down, as far as budgets allow.
//!
//! A node that is closed for that says in which start of its machine. So whoever closed it may be gone when the machine
//! is back: the machine opens it by itself. What an administrator closed is left closed.

use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use api::core::v1::{Node, Pod};
use api::meta::v1::{ObjectMeta, Status};
use api::policy::v1::Eviction;
use clap::Args;
use client::{Client, ListParams, Patch};
use machine_api::MachineStatus;
use serde_json::json;

use super::target::Target;

/// Pods that are made from files of the node; the API server only shows them.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How often it is looked whether pods have gone, and refused evictions are asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// The start of its machine in which a node was closed for the machine to go down.
const CLOSED_IN: &str = "keelson.io/closed-in-boot";

/// The API may come after the machine on which it runs.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// What becomes of the pods of a machine that is told to go.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// Leave the machine's pods where they are. Without a kubeconfig they are left in any case.
    #[arg(long)]
    no_drain: bool,
    /// Seconds for pods to move away, as budgets allow. What does not move keeps the machine from going.
    #[arg(long, default_value_t = 300)]
    drain_timeout: u64,
}

impl Drain {
    /// The cluster in which the pods find other places, if they are to look for some.
    pub(crate) fn cluster(&self, target: &Target) -> Result<Option<Client>> {
        if self.no_drain { Ok(None) } else { target.cluster() }
    }

    /// What is done first, for people.
    pub(crate) fn step(&self, target: &Target) -> Result<Option<String>> {
        let told =
            || format!("its Node is closed, and its pods move away as budgets allow, within {} s", self.drain_timeout);
        Ok(self.cluster(target)?.map(|_cluster| told()))
    }

    /// Moves the machine's pods away, then lets it go. Its node opens once the machine has started again; where the pods
    /// do not move, which means `otherwise`, or the machine does not go, it opens now.
    pub(crate) async fn then<T>(
        &self,
        target: &Target,
        otherwise: &'static str,
        go: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(client) = self.cluster(target)? else { return go().await };
        let MachineStatus { hostname, boot_id, .. } = target.ask(async |machine| machine.get_status(()).await).await?;
        let cleared = clear(&client, &hostname, &boot_id, Duration::from_secs(self.drain_timeout)).await;
        cleared.context(otherwise)?;
        match go().await {
            Ok(done) => Ok(done),
            Err(error) => Err(give_up(&client, &hostname, error).await),
        }
    }
}

/// Closes a node and moves its pods away, for a machine that goes down. One that cannot be cleared is opened again.
async fn clear(client: &Client, node: &str, boot_id: &str, within: Duration) -> Result<()> {
    close(client, node, boot_id).await?;
    let error = match drain(client, node, within).await {
        Ok(moved) => {
            eprintln!("{moved} pods have left the node {node}");
            return Ok(());
        }
        Err(error) => error,
    };
    Err(give_up(client, node, error).await)
}

/// Opens a node whose machine does not go, because of this.
async fn give_up(client: &Client, node: &str, error: Error) -> Error {
    match open_soon(client, node).await {
        Ok(()) => error,
        Err(still) => error.context(format!("the node {node} stays closed: {still:#}")),
    }
}

/// Opens a node, tried for a while.
pub(crate) async fn open_soon(client: &Client, node: &str) -> Result<()> {
    let end = tokio::time::Instant::now() + OPEN_WITHIN;
    loop {
        match open(client, node).await {
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(AGAIN).await,
            done => return done,
        }
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
