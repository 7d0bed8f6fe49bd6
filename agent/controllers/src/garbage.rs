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
use api::meta::v1::ObjectMeta;
use client::{Client, DeleteOptions, Patch, Propagation};
use lifecycle::{Shutdown, Tasks};
use reconcile::{Action, Queue, run_workers};

use crate::error::{During, Error};
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
            graph: Mutex::default(),
            known: AtomicBool::new(false),
            on_removal: Mutex::default(),
        };
        Self { collector: Arc::new(collector) }
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
        let Some(kind) = api::kind_by_name(&owner.api_version, &owner.kind) else {
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
            Step::DropOwners(gone) => {
                let owners: Vec<_> =
                    gone.iter().map(|uid| serde_json::json!({"$patch": "delete", "uid": uid})).collect();
                self.patch(node, serde_json::json!({"metadata": {"uid": node.uid, "ownerReferences": owners}})).await
            }
            Step::Orphan(dependents) => {
                for dependent in dependents {
                    let owners = [serde_json::json!({"$patch": "delete", "uid": node.uid})];
                    let body = serde_json::json!({"metadata": {"uid": dependent.uid, "ownerReferences": owners}});
                    self.patch(&dependent, body).await?;
                }
                Ok(())
            }
            Step::DropFinalizer(finalizer) => {
                let body = serde_json::json!({"metadata": {"uid": node.uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}});
                self.patch(node, body).await
            }
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

    async fn patch(&self, node: &Node, body: serde_json::Value) -> Result<(), Error> {
        match self.client.patch_any(node.kind, namespace(node), &node.name, &Patch::Strategic(body)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).during("changing a dependent"),
            _ => Ok(()),
        }
    }
}

fn namespace(node: &Node) -> Option<&str> {
    node.kind.namespaced.then_some(node.namespace.as_str())
}

/// Kinds whose objects take part: what can be watched and deleted, but events, which own nothing and come in masses.
fn collected() -> Vec<&'static Kind> {
    let takes_part = |k: &&Kind| k.has_verb("watch") && k.has_verb("delete") && k.plural != "events";
    let mut kinds: Vec<&'static Kind> = api::kinds().filter(takes_part).collect();
    kinds.sort_by_key(|k| k.etcd_prefix);
    kinds.dedup_by_key(|k| k.etcd_prefix);
    kinds
}
