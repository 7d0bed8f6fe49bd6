//! `persistentvolumeclaim-protection-controller`, `persistentvolume-protection-controller` and
//! `volumeattributesclass-protection-controller`: what is in use stays.

use api::Resource;
use api::core::v1::{PersistentVolume, Pod};
use api::quota::attributes_classes;
use client::{ListParams, Patch};
use reconcile::{Action, Event, Queue};

use crate::caches::{BY_CLASS, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue};
use crate::error::{During, Error};
use crate::pods::is_finished;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

/// Keeps claims that pods use.
pub(crate) struct Claims {
    context: Context,
}

impl Controller for Claims {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";
    const NEEDS: &'static [Need] = &[need::claims, need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.claims.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.pods.handle(move |event| {
            let over = match event {
                Event::Deleted(pod) => pod,
                Event::Applied { new, .. } if is_finished(new) => new,
                Event::Applied { .. } | Event::Synced | Event::Resync => return,
            };
            claims_of(over).for_each(|claim| queue.add(Key::new(&over.metadata.namespace, &claim)));
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(claim) = self.context.caches.claims.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let used = |pod: &Pod| uses(pod, &key.name);
        let free = || async {
            if self.context.caches.pods.list_namespace(&key.namespace).iter().any(|pod| used(pod)) {
                return Ok(false);
            }
            // The cache may lack the pod that was scheduled just now.
            let fresh = self.context.client.list::<Pod>(Some(&key.namespace), &ListParams::default()).await;
            Ok::<_, Error>(!fresh.during("looking for pods that use a claim")?.items.iter().any(used))
        };
        let deleting = claim.metadata.deletion_timestamp.is_some();
        let may_go = deleting && has(&*claim, CLAIM_FINALIZER) && free().await?;
        protect(&self.context, &*claim, CLAIM_FINALIZER, may_go).await
    }
}

/// Keeps volumes that claims are bound to.
pub(crate) struct Volumes {
    context: Context,
}

impl Controller for Volumes {
    const NAME: &'static str = "persistentvolume-protection-controller";
    const NEEDS: &'static [Need] = &[need::volumes];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.volumes.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(volume) = self.context.caches.volumes.get("", &key.name) else { return Ok(Action::Done) };
        let may_go = volume.metadata.deletion_timestamp.is_some() && !is_bound(&volume);
        protect(&self.context, &*volume, VOLUME_FINALIZER, may_go).await
    }
}

/// Keeps volume attributes classes that claims or volumes name.
pub(crate) struct Classes {
    context: Context,
}

impl Controller for Classes {
    const NAME: &'static str = "volumeattributesclass-protection-controller";
    const NEEDS: &'static [Need] = &[need::volume_classes, need::claims, need::volumes];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.volume_classes.handle(enqueue(queue));
        let of_claims = queue.clone();
        reflectors.claims.handle(move |event| {
            if let Event::Deleted(claim) | Event::Applied { old: Some(claim), .. } = event {
                attributes_classes(claim).for_each(|class| of_claims.add(Key::new("", class)));
            }
        });
        let of_volumes = queue.clone();
        reflectors.volumes.handle(move |event| {
            if let Event::Deleted(volume) | Event::Applied { old: Some(volume), .. } = event {
                let class = volume.spec.volume_attributes_class_name.iter();
                class.for_each(|class| of_volumes.add(Key::new("", class)));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let Some(class) = caches.volume_classes.get("", &key.name) else { return Ok(Action::Done) };
        let is_used = || {
            !caches.claims.by_index(BY_CLASS, &key.name).is_empty()
                || !caches.volumes.by_index(BY_CLASS, &key.name).is_empty()
        };
        let may_go = class.metadata.deletion_timestamp.is_some() && !is_used();
        protect(&self.context, &*class, CLASS_FINALIZER, may_go).await
    }
}

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.phase == "Bound"
}

fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.metadata().finalizers.iter().any(|f| f == finalizer)
}

/// Takes the finalizer off what may go, and puts it on what nobody deletes and lacks it.
async fn protect<K: Resource>(context: &Context, object: &K, finalizer: &str, may_go: bool) -> Result<Action, Error> {
    let meta = object.metadata();
    let body = match has(object, finalizer) {
        true if may_go => serde_json::json!({"metadata": {"uid": meta.uid,
            "$deleteFromPrimitiveList/finalizers": [finalizer]}}),
        false if meta.deletion_timestamp.is_none() => {
            serde_json::json!({"metadata": {"uid": meta.uid, "finalizers": [finalizer]}})
        }
        _ => return Ok(Action::Done),
    };
    let namespace = K::KIND.namespaced.then_some(meta.namespace.as_str());
    match context.client.patch::<K>(namespace, &meta.name, None, &Patch::Strategic(body)).await {
        Err(error) if !error.is_not_found() => Err(error).during("changing what keeps storage"),
        _ => Ok(Action::Done),
    }
}

/// The claims that a pod's volumes name.
fn claims_of(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    pod.spec.volumes.iter().filter_map(|volume| {
        let source = &volume.volume_source;
        let named = source.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let own = || source.ephemeral.as_ref().map(|_| format!("{}-{}", pod.metadata.name, volume.name));
        named.or_else(own)
    })
}

/// Whether the pod is on a node and uses the claim.
fn uses(pod: &Pod, claim: &str) -> bool {
    !pod.spec.node_name.is_empty() && !is_finished(pod) && claims_of(pod).any(|name| name == claim)
}

#[cfg(test)]
mod tests {
    use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Volume};

    use super::*;

    #[test]
    fn a_claim_is_used_by_pods_on_nodes_only() {
        let mut volume = Volume::default();
        volume.volume_source.persistent_volume_claim =
            Some(PersistentVolumeClaimVolumeSource { claim_name: "c".to_owned(), ..Default::default() });
        let mut pod = Pod::default();
        pod.spec.volumes = vec![volume];
        assert!(!uses(&pod, "c"));
        pod.spec.node_name = "n".to_owned();
        assert!(uses(&pod, "c") && !uses(&pod, "d"));
        pod.status.phase = "Succeeded".to_owned();
        assert!(!uses(&pod, "c"));
        assert!(!has(&PersistentVolumeClaim::default(), CLAIM_FINALIZER));
    }
}
