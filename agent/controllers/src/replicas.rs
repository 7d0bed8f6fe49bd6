//! `replicaset-controller` and `replicationcontroller-controller`: as many pods of a template as asked for.
//!
//! Both kinds are the same thing with different selectors; [`Replicated`] is what they have in common.

mod plan;
mod status;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::apps::v1::ReplicaSet;
use api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use api::labels::Selector;
use client::{DeleteOptions, Patch};
use futures::future::join_all;
use reconcile::{Action, Cache, Event, EventType, Queue, Reflector};

use crate::caches::{BY_CONTROLLER, Caches, Reflectors};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};
use crate::expectations::Expectations;
use crate::owner::{adoption, controller_of, release};
use crate::pods::is_active;

pub(crate) use status::Counts;

/// Pods created or deleted in one run at most.
const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub(crate) trait Replicated: Resource {
    const CONTROLLER: &'static str;
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
    expectations: Arc<Expectations>,
    kind: PhantomData<K>,
}

impl<K: Replicated> Controller for Replicas<K> {
    const NAME: &'static str = K::CONTROLLER;
    const WORKERS: usize = 5;

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        K::reflector(reflectors).handle(enqueue(queue));
        let (queue, owners) = (queue.clone(), K::cache(&self.context.caches).clone());
        let expectations = self.expectations.clone();
        reflectors.pods.handle(move |event| pod_changed::<K>(event, &queue, &owners, &expectations));
    }

    fn new(context: Context) -> Self {
        Self { context, expectations: Arc::default(), kind: PhantomData }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(owner) = K::cache(&self.context.caches).get(&key.namespace, &key.name) else {
            self.expectations.forget(&key);
            return Ok(Action::Done);
        };
        let settled = self.expectations.are_met(&key);
        let selector = owner.selector()?;
        let pods = self.claim(&*owner, &selector).await?;
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

fn pod_changed<K: Replicated>(event: &Event<Pod>, queue: &Queue<Key>, owners: &Cache<K>, expectations: &Expectations) {
    let Some(pod) = subject(event) else { return };
    let owner_key = |pod: &Pod| {
        let owner = controller_of(&pod.metadata).filter(|o| o.kind == K::KIND.kind)?;
        Some(Key::new(&pod.metadata.namespace, &owner.name))
    };
    if let Some(key) = owner_key(pod) {
        match event {
            Event::Applied { old: None, .. } => expectations.created(&key),
            Event::Applied { new, .. } if new.metadata.deletion_timestamp.is_some() => {
                expectations.deleted(&key, &new.metadata.uid);
            }
            Event::Deleted(last) => expectations.deleted(&key, &last.metadata.uid),
            Event::Applied { .. } | Event::Synced | Event::Resync => {}
        }
        queue.add(key);
    } else if controller_of(&pod.metadata).is_none() {
        let matching = owners
            .list_namespace(&pod.metadata.namespace)
            .into_iter()
            .filter(|owner| owner.selector().is_ok_and(|s| !s.is_empty() && s.matches(&pod.metadata.labels)));
        matching.for_each(|owner| queue.add(Key::of(owner.metadata())));
    }
    if let Event::Applied { old: Some(old), .. } = event
        && let Some(key) = owner_key(old)
        && controller_of(&old.metadata) != controller_of(&pod.metadata)
    {
        queue.add(key);
    }
}

impl<K: Replicated> Replicas<K> {
    /// The active pods that are the owner's: adopts matching orphans, lets go of what does not match any more.
    async fn claim(&self, owner: &K, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let meta = owner.metadata();
        let mut claimed = Vec::new();
        for pod in self.context.caches.pods.by_index(BY_CONTROLLER, &meta.uid) {
            if selector.matches(&pod.metadata.labels) {
                claimed.push(pod);
            } else if meta.deletion_timestamp.is_none() {
                self.patch(&pod, Patch::Strategic(release(&meta.uid, &pod.metadata))).await?;
            }
        }
        if meta.deletion_timestamp.is_none() {
            let orphans = self.context.caches.pods.list_namespace(&meta.namespace).into_iter().filter(|pod| {
                controller_of(&pod.metadata).is_none() && is_active(pod) && selector.matches(&pod.metadata.labels)
            });
            for orphan in orphans {
                self.patch(&orphan, Patch::Strategic(adoption(owner, &orphan.metadata))).await?;
                claimed.push(orphan);
            }
        }
        Ok(claimed)
    }

    async fn patch(&self, pod: &Pod, patch: Patch) -> Result<(), Error> {
        let meta = &pod.metadata;
        match self.context.client.patch::<Pod>(Some(&meta.namespace), &meta.name, None, &patch).await {
            Ok(_) => Ok(()),
            // The pod is gone or is another one by now: its own event follows.
            Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(()),
            Err(error) => Err(error).during("changing a pod's owner"),
        }
    }

    async fn scale(&self, key: &Key, owner: &K, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        match plan::scale(owner.replicas(), active, BURST) {
            plan::Scale::Keep => Ok(()),
            plan::Scale::Create(count) => self.create(key, owner, count).await,
            plan::Scale::Delete(victims) => self.delete(key, owner, &victims).await,
        }
    }

    /// Creates pods in batches that double, so that a template that is refused costs one request and not hundreds.
    async fn create(&self, key: &Key, owner: &K, count: usize) -> Result<(), Error> {
        let Some(template) = owner.template() else { return Ok(()) };
        let pod = plan::pod_from_template(owner, template);
        self.expectations.expect_creations(key, count);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.context.client.create(&pod))).await;
            left -= size;
            batch *= 2;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(made) => {
                        let message = format!("Created pod: {}", made.metadata.name);
                        self.context.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        self.expectations.created(key);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                (0..left).for_each(|_| self.expectations.created(key));
                self.context.recorder.event(
                    owner,
                    EventType::Warning,
                    "FailedCreate",
                    format!("Error creating: {error}"),
                );
                return Err(error).during("creating a pod");
            }
        }
        Ok(())
    }

    async fn delete(&self, key: &Key, owner: &K, victims: &[Arc<Pod>]) -> Result<(), Error> {
        victims.iter().for_each(|pod| self.expectations.expect_deletion(key, &pod.metadata.uid));
        let results = join_all(victims.iter().map(|pod| async move {
            let options = DeleteOptions { uid: Some(pod.metadata.uid.clone()), ..DeleteOptions::default() };
            let (namespace, name) = (Some(pod.metadata.namespace.as_str()), pod.metadata.name.as_str());
            (pod, self.context.client.delete::<Pod>(namespace, name, &options).await)
        }))
        .await;
        let mut failed = None;
        for (pod, result) in results {
            match result {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.metadata.name);
                    self.context.recorder.event(owner, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    self.expectations.deleted(key, &pod.metadata.uid);
                    failed = failed.or((!error.is_not_found()).then_some(error));
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error).during("deleting a pod"))
    }
}
