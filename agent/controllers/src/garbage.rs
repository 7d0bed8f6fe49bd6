//! `garbage-collector-controller`: dependents go with their owners.
//!
//! ```text
//!   one metadata watch per kind ──▶ Graph (who owns whom) ──▶ queue of uids ──▶ graph::plan ──▶ delete / patch
//! ```
//!
//! An object whose owners are all gone is deleted; one that is being deleted in the foreground waits for the
//! dependents that block it; one that is being deleted with `orphan` lets its dependents go first.

mod graph;
mod source;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Kind;
use api::meta::v1::{ObjectMeta, OwnerReference};
use client::{Client, DeleteOptions, Patch, Propagation};
use lifecycle::{Shutdown, Tasks};
use reconcile::{Action, Queue, run_workers};
use serde_json::{Value, json};

use crate::error::{During, Error};
use crate::kinds::Kinds;
use graph::{Graph, Node, Step};

/// Uids worked on at a time.
const WORKERS: usize = 20;
/// Pause before an owner that the graph does not know is asked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Called with a namespace that lost an object.
type RemovalHandler = Box<dyn Fn(&str) + Send + Sync>;

/// All objects of the cluster, by their metadata.
#[derive(Clone)]
pub(crate) struct Objects {
    collector: Arc<Collector>,
}

impl Objects {
    /// Nothing is known before [`Objects::collect`].
    pub(crate) fn new(client: &Client) -> Self {
        let collector = Collector {
            client: client.clone(),
            kinds: Kinds::new(client),
            graph: Mutex::default(),
            known: AtomicBool::new(false),
            on_removal: Mutex::default(),
        };
        Self { collector: Arc::new(collector) }
    }

    /// The kinds that come and go.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.collector.kinds
    }

    /// Whether every kind was listed.
    pub(crate) fn are_known(&self) -> bool {
        self.collector.known.load(Ordering::Acquire)
    }

    /// How many objects of a kind a namespace holds.
    pub(crate) fn count(&self, group: &str, plural: &str, namespace: &str) -> usize {
        self.collector.lock().count(group, plural, namespace)
    }

    /// Calls `handler` with the namespace of every object that is gone. It must not block.
    pub(crate) fn on_removal(&self, handler: impl Fn(&str) + Send + Sync + 'static) {
        self.collector.handlers().push(Box::new(handler));
    }

    /// Starts the watches and the workers.
    pub(crate) fn collect(&self, tasks: &Tasks, shutdown: &Shutdown) {
        let collector = self.collector.clone();
        let queue: Queue<String> = Queue::with_backoff(Duration::from_millis(50), Duration::from_secs(60));
        let synced = source::start(&collector, &queue, &collector.client, tasks, shutdown);
        let shutdown = shutdown.clone();
        tasks.spawn("garbage-collector-controller", async move {
            tokio::select! {
                () = shutdown.wait() => return,
                () = synced => {}
            }
            collector.known.store(true, Ordering::Release);
            // What was there before the graph was whole is judged now.
            collector.lock().uids().for_each(|uid| queue.add(uid.to_owned()));
            let work = move |uid: String| {
                let collector = collector.clone();
                async move { collector.attend(&uid).await }
            };
            run_workers(queue, WORKERS, shutdown, work).await;
        });
    }
}

struct Collector {
    client: Client,
    kinds: Kinds,
    graph: Mutex<Graph>,
    known: AtomicBool,
    on_removal: Mutex<Vec<RemovalHandler>>,
}

impl Collector {
    fn lock(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> std::sync::MutexGuard<'_, Vec<RemovalHandler>> {
        self.on_removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an object's state into the graph; whom to look at.
    fn apply_state(&self, kind: &'static Kind, meta: &ObjectMeta) -> Vec<String> {
        self.lock().apply(kind, meta)
    }

    /// Takes an object out of the graph; whom to look at.
    fn remove_state(&self, uid: &str) -> Vec<String> {
        let namespace = self.lock().node(uid).map(|node| node.namespace.clone());
        let attend = self.lock().remove(uid);
        if let Some(namespace) = namespace.filter(|_| self.are_counted()) {
            self.handlers().iter().for_each(|handler| handler(&namespace));
        }
        attend
    }

    /// While kinds are still being listed, nobody can count.
    fn are_counted(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    async fn attend(&self, uid: &str) -> Result<Action, Error> {
        let Some(node) = self.lock().node(uid).cloned() else { return Ok(Action::Done) };
        let mut absent = Vec::new();
        let unknown = self.lock().unknown_owners(&node);
        for owner in unknown {
            if !self.is_there(&owner, &node.namespace).await? {
                absent.push(owner.uid);
            } else {
                // Its watch has not brought it yet.
                return Ok(Action::RequeueAfter(LOOK_AGAIN));
            }
        }
        let steps = self.lock().plan(&node, &absent);
        for step in steps {
            self.apply(&node, step).await?;
        }
        Ok(Action::Done)
    }

    /// Whether an owner exists with this very uid.
    async fn is_there(&self, owner: &graph::Owner, namespace: &str) -> Result<bool, Error> {
        let known = api::kind_by_name(&owner.api_version, &owner.kind);
        let Some(kind) = known.or_else(|| self.kinds.find(&owner.api_version, &owner.kind)) else {
            // A kind that is not served can be anything: dependents stay.
            return Ok(true);
        };
        let namespace = kind.namespaced.then_some(namespace);
        match self.client.get_metadata(kind, namespace, &owner.name).await {
            Ok(found) => Ok(found.metadata.uid == owner.uid),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error).during("looking for an owner"),
        }
    }

    async fn apply(&self, node: &Node, step: Step) -> Result<(), Error> {
        match step {
            Step::Delete(propagation) => self.delete(node, propagation).await,
            Step::DropOwners(gone) => self.let_go(node, &gone).await,
            Step::Orphan(dependents) => {
                for dependent in dependents {
                    self.let_go(&dependent, std::slice::from_ref(&node.uid)).await?;
                }
                Ok(())
            }
            Step::DropFinalizer(finalizer) => {
                let lists = Lists { finalizer: Some(finalizer), owners: &[] };
                self.take_off(node, lists).await
            }
        }
    }

    /// Takes owners off an object's references.
    async fn let_go(&self, node: &Node, owners: &[String]) -> Result<(), Error> {
        self.take_off(node, Lists { finalizer: None, owners }).await
    }

    /// Takes members off an object's lists: by a strategic merge patch where the kind has one, else by writing the
    /// lists anew, and only if nobody else wrote in between.
    async fn take_off(&self, node: &Node, lists: Lists<'_>) -> Result<(), Error> {
        if api::kind_by_resource(node.kind.group, node.kind.version, node.kind.plural).is_some() {
            return self.patch(node, Patch::Strategic(lists.strategic(&node.uid))).await;
        }
        match self.client.get_metadata(node.kind, namespace(node), &node.name).await {
            Ok(found) if found.metadata.uid == node.uid => {
                self.patch(node, Patch::Merge(lists.merge(&found.metadata))).await
            }
            Ok(_another) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error).during("reading a dependent"),
        }
    }

    async fn delete(&self, node: &Node, propagation: Propagation) -> Result<(), Error> {
        let options =
            DeleteOptions { propagation: Some(propagation), uid: Some(node.uid.clone()), ..DeleteOptions::default() };
        match self.client.delete_any(node.kind, namespace(node), &node.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).during("deleting a dependent"),
            _ => Ok(()),
        }
    }

    async fn patch(&self, node: &Node, patch: Patch) -> Result<(), Error> {
        match self.client.patch_any(node.kind, namespace(node), &node.name, &patch).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).during("changing a dependent"),
            _ => Ok(()),
        }
    }
}

/// Members that are to go from an object's lists.
struct Lists<'a> {
    finalizer: Option<&'static str>,
    owners: &'a [String],
}

impl Lists<'_> {
    fn strategic(&self, uid: &str) -> Value {
        let mut metadata = json!({"uid": uid});
        if let Some(finalizer) = self.finalizer {
            metadata["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        if !self.owners.is_empty() {
            let owners = self.owners.iter().map(|uid| json!({"$patch": "delete", "uid": uid}));
            metadata["ownerReferences"] = owners.collect();
        }
        json!({"metadata": metadata})
    }

    fn merge(&self, now: &ObjectMeta) -> Value {
        let mut metadata = json!({"uid": now.uid, "resourceVersion": now.resource_version});
        if let Some(finalizer) = self.finalizer {
            metadata["finalizers"] = now.finalizers.iter().filter(|other| *other != finalizer).cloned().collect();
        }
        if !self.owners.is_empty() {
            let left = now.owner_references.iter().filter(|owner| !self.owners.contains(&owner.uid));
            metadata["ownerReferences"] = left.map(reference).collect();
        }
        json!({"metadata": metadata})
    }
}

fn reference(owner: &OwnerReference) -> Value {
    let mut value = json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid});
    let flags = [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)];
    for (key, flag) in flags {
        if let Some(flag) = flag {
            value[key] = flag.into();
        }
    }
    value
}

fn namespace(node: &Node) -> Option<&str> {
    node.kind.namespaced.then_some(node.namespace.as_str())
}

/// Kinds of the table whose objects take part, but events, which own nothing and come in masses.
fn collected() -> Vec<&'static Kind> {
    let mut kinds: Vec<&'static Kind> = api::kinds().filter(|k| takes_part(k) && k.plural != "events").collect();
    kinds.sort_by_key(|k| k.etcd_prefix);
    kinds.dedup_by_key(|k| k.etcd_prefix);
    kinds
}

/// What can be listed, watched and deleted.
fn takes_part(kind: &Kind) -> bool {
    ["list", "watch", "delete"].iter().all(|verb| kind.has_verb(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_without_what_is_to_go() {
        let owner = |uid: &str| OwnerReference { uid: uid.to_owned(), controller: Some(true), ..Default::default() };
        let now = ObjectMeta {
            uid: "u".to_owned(),
            resource_version: "7".to_owned(),
            finalizers: vec!["orphan".to_owned(), "mine".to_owned()],
            owner_references: vec![owner("a"), owner("b")],
            ..Default::default()
        };
        let merge = Lists { finalizer: Some("orphan"), owners: &[] }.merge(&now);
        assert_eq!(merge, json!({"metadata": {"uid": "u", "resourceVersion": "7", "finalizers": ["mine"]}}));
        let merge = Lists { finalizer: None, owners: &["a".to_owned()] }.merge(&now);
        let left = json!([{"apiVersion": "", "kind": "", "name": "", "uid": "b", "controller": true}]);
        assert_eq!(merge["metadata"]["ownerReferences"], left);
        let strategic = Lists { finalizer: Some("orphan"), owners: &[] }.strategic("u");
        assert_eq!(strategic, json!({"metadata": {"uid": "u", "$deleteFromPrimitiveList/finalizers": ["orphan"]}}));
    }
}
