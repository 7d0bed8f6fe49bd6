//! `replicaset-controller` and `replicationcontroller-controller`: as many pods of a template as asked for.
//!
//! Both kinds are the same thing with different selectors; [`Replicated`] is what they have in common.

mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::apps::v1::ReplicaSet;
use api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use api::labels::Selector;
use reconcile::{Action, Cache, Queue, Reflector};

use crate::caches::{Caches, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};
use crate::owned_pods::OwnedPods;
use crate::pods::{is_active, pod_from_template};

pub(crate) use status::Counts;

/// Pods created or deleted in one run at most.
const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub(crate) trait Replicated: Resource {
    const CONTROLLER: &'static str;
    const NEED: Need;
    fn cache(caches: &Caches) -> &Cache<Self>;
    fn reflector(reflectors: &mut Reflectors) -> &mut Reflector<Self>;
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn selector(&self) -> Result<Selector, Error>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// The object with its status after these counts, `None` where nothing changes.
    fn with_counts(&self, counts: &Counts) -> Option<Self>;
}

pub(crate) type ReplicaSets = Replicas<ReplicaSet>;
pub(crate) type ReplicationControllers = Replicas<ReplicationController>;

pub(crate) struct Replicas<K> {
    context: Context,
    pods: OwnedPods<K>,
}

impl<K: Replicated> Controller for Replicas<K> {
    const NAME: &'static str = K::CONTROLLER;
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[K::NEED, need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        K::reflector(reflectors).handle(enqueue(queue));
        self.pods.watch(queue, reflectors, K::cache(&self.context.caches));
    }

    fn new(context: Context) -> Self {
        let pods = OwnedPods::new(context.clone(), K::selector).adopting_active();
        Self { context, pods }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(owner) = K::cache(&self.context.caches).get(&key.namespace, &key.name) else {
            self.pods.expectations.forget(&key);
            return Ok(Action::Done);
        };
        let settled = self.pods.expectations.are_met(&key);
        let pods = self.pods.claim(&owner).await?;
        let mut failure = None;
        if settled && owner.metadata().deletion_timestamp.is_none() {
            failure = self.scale(&key, &*owner, &pods).await.err();
        }
        let counts = Counts::of(&*owner, &pods, failure.as_ref(), now());
        if let Some(changed) = owner.with_counts(&counts) {
            self.context.client.update_status(&changed).await.during("writing the status")?;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(counts.next_available.map_or(Action::Done, |s| Action::RequeueAfter(Duration::from_secs(s)))),
        }
    }
}

impl<K: Replicated> Replicas<K> {
    async fn scale(&self, key: &Key, owner: &K, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        match plan::scale(owner.replicas(), active, BURST) {
            plan::Scale::Keep => Ok(()),
            plan::Scale::Create(count) => self.create(key, owner, count).await,
            plan::Scale::Delete(victims) => self.pods.delete(key, owner, &victims).await,
        }
    }

    async fn create(&self, key: &Key, owner: &K, count: usize) -> Result<(), Error> {
        let Some(template) = owner.template() else { return Ok(()) };
        let pod = pod_from_template(owner, template);
        self.pods.create(key, owner, &vec![pod; count]).await
    }
}
