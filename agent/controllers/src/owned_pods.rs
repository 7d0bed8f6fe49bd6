//! The pods of an owner: adopting, releasing, creating and deleting them, with expectations.

use std::sync::Arc;

use api::Resource;
use api::core::v1::Pod;
use api::labels::Selector;
use client::{DeleteOptions, Patch};
use futures::future::join_all;
use reconcile::{Cache, Event, EventType, Queue};

use crate::caches::{BY_CONTROLLER, Reflectors};
use crate::controller::{Context, Key, subject};
use crate::error::{During, Error};
use crate::expectations::Expectations;
use crate::owner::{adoption, controller_of, controller_reference, release};
use crate::pods::is_active;

/// Gives the selector of an owner's pods.
pub(crate) type SelectorOf<K> = fn(&K) -> Result<Selector, Error>;

/// What controllers that own pods share.
pub(crate) struct OwnedPods<K> {
    context: Context,
    selector_of: SelectorOf<K>,
    /// Put on adopted pods and taken off released ones.
    finalizer: Option<&'static str>,
    /// Whether orphans that ended are adopted too.
    adopts_finished: bool,
    /// Whether an orphan can be the owner's at all.
    is_member: fn(&K, &Pod) -> bool,
    pub(crate) expectations: Arc<Expectations>,
}

impl<K: Resource> OwnedPods<K> {
    pub(crate) fn new(context: Context, selector_of: SelectorOf<K>) -> Self {
        Self {
            context,
            selector_of,
            finalizer: None,
            adopts_finished: true,
            is_member: |_, _| true,
            expectations: Arc::default(),
        }
    }

    /// Pods carry this finalizer as long as they are the owner's.
    pub(crate) fn with_finalizer(self, finalizer: &'static str) -> Self {
        Self { finalizer: Some(finalizer), ..self }
    }

    /// Orphans that ended stay orphans.
    pub(crate) fn adopting_active(self) -> Self {
        Self { adopts_finished: false, ..self }
    }

    /// Only such pods are adopted.
    pub(crate) fn of_members(self, is_member: fn(&K, &Pod) -> bool) -> Self {
        Self { is_member, ..self }
    }

    /// Queues the owners of pods that change, and those an orphan could belong to.
    pub(crate) fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors, owners: &Cache<K>) {
        let (queue, owners, selector_of) = (queue.clone(), owners.clone(), self.selector_of);
        let expectations = self.expectations.clone();
        reflectors.pods.handle(move |event| pod_changed(event, &queue, (&owners, selector_of), &expectations));
    }

    /// The pods that are the owner's: adopts matching orphans, lets go of what does not match any more.
    pub(crate) async fn claim(&self, owner: &K) -> Result<Vec<Arc<Pod>>, Error> {
        let (meta, selector) = (owner.metadata(), (self.selector_of)(owner)?);
        let mut claimed = Vec::new();
        for pod in self.context.caches.pods.by_index(BY_CONTROLLER, &meta.uid) {
            if selector.matches(&pod.metadata.labels) {
                claimed.push(pod);
            } else if meta.deletion_timestamp.is_none() {
                let mut body = release(&meta.uid, &pod.metadata);
                if let Some(finalizer) = self.finalizer {
                    body["metadata"]["$deleteFromPrimitiveList/finalizers"] = serde_json::json!([finalizer]);
                }
                self.patch(&pod, Patch::Strategic(body)).await?;
            }
        }
        claimed.extend(self.adopt(owner, &selector).await?);
        Ok(claimed)
    }

    async fn adopt(&self, owner: &K, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let meta = owner.metadata();
        if meta.deletion_timestamp.is_some() {
            return Ok(Vec::new());
        }
        let wanted = |pod: &Arc<Pod>| {
            let alive = if self.adopts_finished { pod.metadata.deletion_timestamp.is_none() } else { is_active(pod) };
            controller_of(&pod.metadata).is_none()
                && alive
                && selector.matches(&pod.metadata.labels)
                && (self.is_member)(owner, pod)
        };
        let orphans: Vec<_> =
            self.context.caches.pods.list_namespace(&meta.namespace).into_iter().filter(wanted).collect();
        if orphans.is_empty() {
            return Ok(orphans);
        }
        // The cache may not know yet that the owner is going, and these are what it leaves behind.
        match self.context.client.get::<K>(Some(&meta.namespace), &meta.name).await {
            Ok(fresh) if fresh.metadata().uid == meta.uid && fresh.metadata().deletion_timestamp.is_none() => {}
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error).during("looking whether an owner is there"),
        }
        let mut adopted = Vec::new();
        for orphan in orphans {
            let mut body = adoption(owner, &orphan.metadata);
            let mut pod = (*orphan).clone();
            if let Some(finalizer) = self.finalizer {
                body["metadata"]["finalizers"] = serde_json::json!([finalizer]);
                pod.metadata.finalizers.push(finalizer.to_owned());
            }
            self.patch(&orphan, Patch::Strategic(body)).await?;
            pod.metadata.owner_references.push(controller_reference(owner));
            adopted.push(Arc::new(pod));
        }
        Ok(adopted)
    }

    /// Changes a pod; one that is gone or another one by now is no failure, its own event follows.
    pub(crate) async fn patch(&self, pod: &Pod, patch: Patch) -> Result<(), Error> {
        let meta = &pod.metadata;
        match self.context.client.patch::<Pod>(Some(&meta.namespace), &meta.name, None, &patch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(()),
            Err(error) => Err(error).during("changing a pod of an owner"),
        }
    }

    /// Creates pods in batches that double, so that a template that is refused costs one request and not hundreds.
    pub(crate) async fn create(&self, key: &Key, owner: &K, pods: &[Pod]) -> Result<(), Error> {
        self.expectations.expect_creations(key, pods.len());
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(|pod| self.context.client.create(pod))).await;
            left = later;
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
                left.iter().for_each(|_| self.expectations.created(key));
                if self.is_closing(&key.namespace) {
                    return Ok(());
                }
                let message = format!("Error creating: {error}");
                self.context.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                return Err(error).during("creating a pod");
            }
        }
        Ok(())
    }

    /// Whether the namespace takes no new objects any more: then there is nothing to repeat.
    fn is_closing(&self, namespace: &str) -> bool {
        let namespace = self.context.caches.namespaces.get("", namespace);
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    /// Deletes pods, all of them before the first failure is told.
    pub(crate) async fn delete(&self, key: &Key, owner: &K, victims: &[Arc<Pod>]) -> Result<(), Error> {
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

fn pod_changed<K: Resource>(
    event: &Event<Pod>,
    queue: &Queue<Key>,
    (owners, selector_of): (&Cache<K>, SelectorOf<K>),
    expectations: &Expectations,
) {
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
            .filter(|owner| selector_of(owner).is_ok_and(|s| !s.is_empty() && s.matches(&pod.metadata.labels)));
        matching.for_each(|owner| queue.add(Key::of(owner.metadata())));
    }
    if let Event::Applied { old: Some(old), .. } = event
        && let Some(key) = owner_key(old)
        && controller_of(&old.metadata) != controller_of(&pod.metadata)
    {
        queue.add(key);
    }
}
