//! `deployment-controller`: moves pods from old ReplicaSets to the one of the current template.
//!
//! ```text
//!   observe (ReplicaSets of the deployment) ─▶ sync::plan ─▶ create / scale / delete ReplicaSets ─▶ status
//! ```

mod plan;
mod status;
mod template;

use std::sync::Arc;
use std::time::Duration;

use api::apps::v1::{Deployment, ReplicaSet};
use api::labels::Selector;
use client::{DeleteOptions, Patch};
use reconcile::{Action, Event, EventType, Queue};

use crate::caches::{BY_CONTROLLER, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};
use crate::owner::{adoption, controller_of};
use crate::pods::is_finished;
use plan::Step;

pub(crate) struct Deployments {
    context: Context,
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::deployments, need::replica_sets, need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.deployments.handle(enqueue(queue));
        let (own, deployments) = (queue.clone(), self.context.caches.deployments.clone());
        reflectors.replica_sets.handle(move |event| {
            let Some(set) = subject(event) else { return };
            match controller_of(&set.metadata).filter(|o| o.kind == "Deployment") {
                Some(owner) => own.add(Key::new(&set.metadata.namespace, &owner.name)),
                None => deployments
                    .list_namespace(&set.metadata.namespace)
                    .iter()
                    .filter(|d| selector(d).is_ok_and(|s| s.matches(&set.metadata.labels)))
                    .for_each(|d| own.add(Key::of(&d.metadata))),
            }
        });
        // A deployment that recreates waits for the last old pod to go.
        let (own, sets) = (queue.clone(), self.context.caches.replica_sets.clone());
        reflectors.pods.handle(move |event| {
            let gone = match event {
                Event::Deleted(pod) => pod,
                Event::Applied { new, .. } if is_finished(new) => new,
                Event::Applied { .. } | Event::Synced | Event::Resync => return,
            };
            let set = controller_of(&gone.metadata).and_then(|o| sets.get(&gone.metadata.namespace, &o.name));
            if let Some(owner) = set.as_ref().and_then(|s| controller_of(&s.metadata)) {
                own.add(Key::new(&gone.metadata.namespace, &owner.name));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(deployment) = self.context.caches.deployments.get(&key.namespace, &key.name) else {
            return Ok(Action::Done);
        };
        let sets = self.claim(&deployment).await?;
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&deployment, &sets).await;
        }
        let old_pods_run = || self.old_pods_run(&deployment, &sets);
        for step in plan::plan(&deployment, &sets, &old_pods_run, now()) {
            self.apply(&deployment, step).await?;
        }
        self.write_status(&deployment, &sets).await
    }
}

fn selector(deployment: &Deployment) -> Result<Selector, Error> {
    Ok(Selector::from_object(deployment.spec.selector.as_ref())?)
}

impl Deployments {
    /// The deployment's ReplicaSets; adopts matching orphans.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let (meta, selector) = (&deployment.metadata, selector(deployment)?);
        let caches = &self.context.caches;
        let mut sets = caches.replica_sets.by_index(BY_CONTROLLER, &meta.uid);
        sets.retain(|set| selector.matches(&set.metadata.labels));
        if meta.deletion_timestamp.is_none() && !selector.is_empty() {
            for set in caches.replica_sets.list_namespace(&meta.namespace) {
                let orphan = controller_of(&set.metadata).is_none() && set.metadata.deletion_timestamp.is_none();
                if orphan && selector.matches(&set.metadata.labels) {
                    let patch = Patch::Strategic(adoption(deployment, &set.metadata));
                    let name = &set.metadata.name;
                    let adopted = self.context.client.patch::<ReplicaSet>(Some(&meta.namespace), name, None, &patch);
                    sets.push(Arc::new(adopted.await.during("adopting a ReplicaSet")?));
                }
            }
        }
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.unix(), set.metadata.name.clone()));
        Ok(sets)
    }

    /// Whether pods of former templates still run.
    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let current = template::find_current(deployment, sets).map(|set| set.metadata.uid.clone());
        sets.iter().filter(|set| Some(&set.metadata.uid) != current.as_ref()).any(|set| {
            let pods = self.context.caches.pods.by_index(BY_CONTROLLER, &set.metadata.uid);
            pods.iter().any(|pod| !is_finished(pod))
        })
    }

    async fn apply(&self, deployment: &Deployment, step: Step) -> Result<(), Error> {
        let client = &self.context.client;
        match step {
            Step::Create(set) => self.create(deployment, *set).await,
            Step::Update { set, scaled_from } => {
                client.update(&*set).await.during("updating a ReplicaSet")?;
                if let Some(from) = scaled_from {
                    self.tell_scaling(deployment, &set, from);
                }
                Ok(())
            }
            Step::Delete(set) => {
                let options = DeleteOptions { uid: Some(set.metadata.uid.clone()), ..DeleteOptions::default() };
                let (namespace, name) = (Some(set.metadata.namespace.as_str()), set.metadata.name.as_str());
                match client.delete::<ReplicaSet>(namespace, name, &options).await {
                    Err(error) if !error.is_not_found() => Err(error).during("deleting an old ReplicaSet"),
                    _ => Ok(()),
                }
            }
            Step::Annotate(revision) => {
                let annotations = serde_json::json!({ template::REVISION: revision.to_string() });
                let patch = Patch::Merge(serde_json::json!({"metadata": {"annotations": annotations}}));
                let meta = &deployment.metadata;
                let done = client.patch::<Deployment>(Some(&meta.namespace), &meta.name, None, &patch).await;
                done.during("writing the revision").map(|_| ())
            }
        }
    }

    async fn create(&self, deployment: &Deployment, set: ReplicaSet) -> Result<(), Error> {
        match self.context.client.create(&set).await {
            Ok(made) => {
                if made.spec.replicas.unwrap_or(0) > 0 {
                    self.tell_scaling(deployment, &made, 0);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.resolve_collision(deployment, &set).await,
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.metadata.name);
                self.context.recorder.event(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error).during("creating a ReplicaSet")
            }
        }
    }

    /// A ReplicaSet of this name is there. Ours that the cache does not show yet, or another one: then the hash gets
    /// another salt.
    async fn resolve_collision(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
        let client = &self.context.client;
        let namespace = Some(set.metadata.namespace.as_str());
        let found: ReplicaSet =
            client.get(namespace, &set.metadata.name).await.during("reading a ReplicaSet of the same name")?;
        let ours = controller_of(&found.metadata).is_some_and(|o| o.uid == deployment.metadata.uid);
        if ours && template::is_same(&deployment.spec.template, &found.spec.template) {
            return Err(Error::Behind);
        }
        let mut changed = deployment.clone();
        changed.status.collision_count = Some(changed.status.collision_count.unwrap_or(0) + 1);
        client.update_status(&changed).await.during("counting a name collision")?;
        Err(Error::Behind)
    }

    fn tell_scaling(&self, deployment: &Deployment, set: &ReplicaSet, from: i32) {
        let to = set.spec.replicas.unwrap_or(0);
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.metadata.name);
        self.context.recorder.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn write_status(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Result<Action, Error> {
        let now = now();
        let status = status::plan(deployment, sets, now);
        let check_again = status::next_check(deployment, &status, now);
        if status != deployment.status {
            let changed = Deployment { status, ..deployment.clone() };
            self.context.client.update_status(&changed).await.during("writing the status")?;
        }
        Ok(check_again.map_or(Action::Done, |seconds| Action::RequeueAfter(Duration::from_secs(seconds))))
    }
}
