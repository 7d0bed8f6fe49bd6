//! `resourcequota-controller`: how much of its quotas a namespace uses.
//!
//! Admission adds to the used amounts when objects are made; this brings them down again when objects go, and right
//! whatever happened in between. New objects are no reason to count: here they are seen after they were charged, so that
//! counting in between would take the charge back.

mod usage;

use std::time::Duration;

use api::core::v1::{Pod, ResourceQuota};
use reconcile::{Action, Event, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key};
use crate::error::{During, Error};
use crate::pods::is_finished;
use usage::Holdings;

/// Several changes in a row are counted together.
const BATCH: Duration = Duration::from_millis(200);
/// Pause until all kinds have been listed once.
const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// Everything is counted anew so often, as upstream.
const PERIOD: Duration = Duration::from_secs(300);

pub(crate) struct Quotas {
    context: Context,
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::quotas, need::pods, need::services, need::claims];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        let changed = queue.clone();
        reflectors.quotas.handle(move |event| {
            if let Event::Applied { old, new } = event
                && old.as_ref().is_none_or(|old| old.spec != new.spec)
            {
                changed.add(Key::of(&new.metadata));
            }
        });
        let (own, quotas) = (queue.clone(), self.context.caches.quotas.clone());
        let recount = move |namespace: &str| {
            quotas.list_namespace(namespace).iter().for_each(|quota| own.add_after(Key::of(&quota.metadata), BATCH));
        };
        let of_pods = recount.clone();
        reflectors.pods.handle(move |event| {
            if let Some(pod) = lessened(event, takes_less) {
                of_pods(&pod.metadata.namespace);
            }
        });
        let of_services = recount.clone();
        reflectors.services.handle(move |event| {
            if let Some(service) = lessened(event, |old, new| old.spec != new.spec) {
                of_services(&service.metadata.namespace);
            }
        });
        let of_claims = recount.clone();
        reflectors.claims.handle(move |event| {
            if let Some(claim) = lessened(event, |old, new| (&old.spec, &old.status) != (&new.spec, &new.status)) {
                of_claims(&claim.metadata.namespace);
            }
        });
        self.context.objects.on_removal(recount);
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let Some(quota) = caches.quotas.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        if !self.context.objects.are_known() {
            return Ok(Action::RequeueAfter(SYNC_PAUSE));
        }
        let (objects, quotas, namespace) = (self.context.objects.clone(), caches.quotas.clone(), key.namespace.clone());
        let holdings = Holdings {
            pods: caches.pods.list_namespace(&key.namespace),
            services: caches.services.list_namespace(&key.namespace),
            claims: caches.claims.list_namespace(&key.namespace),
            count: Box::new(move |group, plural| match (group, plural) {
                // The other watch may not have brought the very quota that is new.
                ("", "resourcequotas") => quotas.list_namespace(&namespace).len(),
                _ => objects.count(group, plural, &namespace),
            }),
        };
        let used = usage::plan(&quota, &holdings);
        if used == quota.status.used && quota.spec.hard == quota.status.hard {
            return Ok(Action::RequeueAfter(PERIOD));
        }
        let mut changed: ResourceQuota = (*quota).clone();
        changed.status.hard.clone_from(&quota.spec.hard);
        changed.status.used = used;
        match self.context.client.update_status(&changed).await {
            Err(error) if !error.is_not_found() => return Err(error).during("writing the status"),
            _ => {}
        }
        // What was made just before a quota may come to be known just after it; and an object that was charged just
        // before the count, just after it, so that its charge is taken back for now.
        Ok(Action::RequeueAfter(BATCH))
    }
}

/// The object of an event that can give back some of a quota.
fn lessened<K>(event: &Event<K>, by_change: impl Fn(&K, &K) -> bool) -> Option<&K> {
    match event {
        Event::Deleted(last) => Some(last),
        Event::Applied { old: Some(old), new } if by_change(old, new) => Some(new),
        Event::Applied { .. } | Event::Synced | Event::Resync => None,
    }
}

/// Whether a change of a pod can give back some of a quota.
fn takes_less(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| (is_finished(pod), pod.metadata.deletion_timestamp, pod.spec.active_deadline_seconds);
    facts(old) != facts(new) || old.metadata.generation != new.metadata.generation
}
