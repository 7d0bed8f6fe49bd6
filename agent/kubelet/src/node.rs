//! The node's own object: registration, status, lease.

use std::sync::Arc;
use std::time::Duration;

use api::coordination::v1::Lease;
use api::core::v1::{Node, NodeStatus};
use api::meta::v1::{MicroTime, OwnerReference};
use client::{Error, Patch};
use reconcile::Backoff;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::clock;
use crate::context::NodeContext;
use crate::eviction::Relief;
use crate::manager::PodTable;
use crate::stall::Stalls;
use crate::status_writer::object_value;

pub(crate) mod facts;
pub(crate) mod status;

use status::{NodeFindings, node_status};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(7);

/// Registers the node and keeps its status and lease current until the shutdown.
pub(crate) async fn run(node: Arc<NodeContext>, table: PodTable) {
    let shutdown = node.shutdown.clone();
    let work = async {
        let registered = register(&node).await;
        let registration = Registration::new(registered.metadata.uid);
        tokio::join!(keep_status(&node, &table, &registration, registered.status), keep_lease(&node, &registration));
    };
    tokio::select! {
        () = shutdown.wait() => {}
        () = work => {}
    }
}

/// What the keepers of the status and of the lease tell one another of the node's object.
struct Registration {
    uid: watch::Sender<String>,
    doubt: Notify,
}

impl Registration {
    fn new(uid: String) -> Self {
        Self { uid: watch::Sender::new(uid), doubt: Notify::new() }
    }
}

/// Makes the node's object, or takes over the one that is there.
async fn register(node: &NodeContext) -> Node {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        match try_register(node).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(error = %stdx::chain(&error), "node not registered"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

async fn try_register(node: &NodeContext) -> Result<Node, Error> {
    let name = &node.config.node_name;
    match node.client.get::<Node>(None, name).await {
        Ok(found) => return update_labels(node, found).await,
        Err(error) if error.is_not_found() && node.config.register_node => {}
        Err(error) => return Err(error),
    }
    let mut new = Node::default();
    new.metadata.name.clone_from(name);
    new.metadata.labels = labels(node);
    new.metadata
        .annotations
        .insert("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    new.spec.taints.clone_from(&node.config.taints);
    new.spec.provider_id.clone_from(&node.config.provider_id);
    new.status = node_status(node, &NodeFindings::observe(node).await, &NodeStatus::default(), clock::now());
    node.client.create(&new).await
}

fn labels(node: &NodeContext) -> std::collections::BTreeMap<String, String> {
    let mut labels = node.config.labels.clone();
    let arch = facts::architecture().to_owned();
    for (key, value) in [
        ("kubernetes.io/hostname", node.config.node_name.clone()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", arch.clone()),
        ("beta.kubernetes.io/os", "linux".to_owned()),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.entry(key.to_owned()).or_insert(value);
    }
    labels
}

/// Labels that the node itself answers for are set again.
async fn update_labels(node: &NodeContext, found: Node) -> Result<Node, Error> {
    let wanted = labels(node);
    let missing: serde_json::Map<_, _> = wanted
        .into_iter()
        .filter(|(key, value)| found.metadata.labels.get(key) != Some(value))
        .map(|(key, value)| (key, value.into()))
        .collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": missing}}));
    node.client.patch::<Node>(None, &node.config.node_name, None, &patch).await
}

async fn keep_status(node: &NodeContext, table: &PodTable, registration: &Registration, mut known: NodeStatus) {
    // A node that is not ready yet waits for its runtime or its network, which take a moment and do not call.
    let mut looks = Backoff::new(RETRY_FIRST, node.config.status_interval);
    let mut pause = Duration::ZERO;
    let mut reported: Option<Instant> = None;
    let (mut relief, mut stalls) = (Relief::default(), Stalls::watch(node));
    loop {
        tokio::select! {
            () = rest(node, table, (&mut relief, &mut stalls), pause) => {}
            () = registration.doubt.notified() => reported = None,
        }
        let findings = NodeFindings::observe(node).await;
        let status = node_status(node, &findings, &known, clock::now());
        pause = if is_ready(&status) {
            looks.reset();
            node.config.status_interval
        } else {
            looks.next_pause()
        };
        relief.relieve(node, table, &findings);
        let is_due = reported.is_none_or(|at| at.elapsed() >= node.config.status_report);
        if !is_due && same_but_heartbeats(&status, &known) {
            continue;
        }
        match write_status(node, &status).await {
            Ok(found) => {
                known = found.status;
                reported = Some(Instant::now());
            }
            Err(error) if error.is_not_found() => {
                let anew = register(node).await;
                registration.uid.send_replace(anew.metadata.uid);
                known = anew.status;
                reported = None;
            }
            Err(error) => {
                tracing::warn!(error = %stdx::chain(&error), "node status not written");
                reported = None;
            }
        }
    }
}

/// Waits for the next look; shorter if pods stall for want of memory and one of them has to go, which waits for nobody.
async fn rest(node: &NodeContext, table: &PodTable, (relief, stalls): (&mut Relief, &mut Stalls), pause: Duration) {
    let end = Instant::now() + pause;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => return,
            () = stalls.next() => {}
        }
        if relief.relieve(node, table, &NodeFindings::of_machine(node)) {
            return;
        }
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
}

fn same_but_heartbeats(a: &NodeStatus, b: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().for_each(|c| c.last_heartbeat_time = api::meta::v1::Time::default());
        status.images.sort_by(|a, b| a.names.cmp(&b.names));
        status
    };
    strip(a) == strip(b)
}

async fn write_status(node: &NodeContext, status: &NodeStatus) -> Result<Node, Error> {
    let whole = Node { status: status.clone(), ..Node::default() };
    let mut value = object_value(&whole).get("status").cloned().unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for list in ["addresses"] {
            if let Some(serde_json::Value::Array(items)) = fields.get_mut(list) {
                items.push(json!({"$patch": "replace"}));
            }
        }
    }
    let patch = Patch::Strategic(json!({"status": value}));
    node.client.patch::<Node>(None, &node.config.node_name, Some("status"), &patch).await
}

/// Renews the lease by which the control plane knows that the node lives. A lease that is gone casts doubt on the
/// node's object: whoever deletes that takes the lease along, and a control plane that has lost its data has neither.
async fn keep_lease(node: &NodeContext, registration: &Registration) {
    let mut ticks = tokio::time::interval(node.config.lease_renew);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held: Option<Lease> = None;
    loop {
        ticks.tick().await;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let uid = registration.uid.borrow().clone();
            match renew(node, &uid, held.take()).await {
                Ok(lease) => {
                    held = Some(lease);
                    break;
                }
                Err(error) if error.is_not_found() => registration.doubt.notify_one(),
                Err(error) => tracing::warn!(error = %stdx::chain(&error), "lease not renewed"),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

async fn renew(node: &NodeContext, node_uid: &str, held: Option<Lease>) -> Result<Lease, Error> {
    let name = &node.config.node_name;
    let seconds = i32::try_from(node.config.lease_duration.as_secs()).unwrap_or(i32::MAX);
    let current = match held {
        Some(lease) => Some(lease),
        None => match node.client.get::<Lease>(Some(LEASE_NAMESPACE), name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        },
    };
    let is_new = current.is_none();
    let mut lease = current.unwrap_or_default();
    lease.metadata.name.clone_from(name);
    LEASE_NAMESPACE.clone_into(&mut lease.metadata.namespace);
    own(&mut lease, node_uid);
    lease.spec.holder_identity = Some(name.clone());
    lease.spec.lease_duration_seconds = Some(seconds);
    lease.spec.renew_time = Some(MicroTime::from_unix_micros(clock::now() / 1000));
    if is_new { node.client.create(&lease).await } else { node.client.update(&lease).await }
}

/// Makes the node of this uid the owner of its lease, which outlives a node that is registered anew.
fn own(lease: &mut Lease, node_uid: &str) {
    let (name, owners) = (&lease.metadata.name, &mut lease.metadata.owner_references);
    let is_node = |owner: &&mut OwnerReference| owner.kind == "Node" && owner.name == *name;
    if let Some(known) = owners.iter_mut().find(is_node) {
        node_uid.clone_into(&mut known.uid);
    } else if owners.is_empty() {
        owners.push(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: node_uid.to_owned(),
            ..OwnerReference::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_belongs_to_the_node_as_it_is_registered_now() {
        let mut lease = Lease::default();
        lease.metadata.name = "a".to_owned();
        for uid in ["one", "two"] {
            own(&mut lease, uid);
            let owners = &lease.metadata.owner_references;
            let told: Vec<_> = owners.iter().map(|o| (&*o.kind, &*o.name, &*o.uid)).collect();
            assert_eq!(told, [("Node", "a", uid)]);
        }
        // What somebody else made of it stays.
        lease.metadata.owner_references[0].kind = "Pod".to_owned();
        own(&mut lease, "three");
        assert_eq!(lease.metadata.owner_references.len(), 1);
        assert_eq!(lease.metadata.owner_references[0].uid, "two");
    }
}
