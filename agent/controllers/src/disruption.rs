//! `disruption-controller`: how many pods of a PodDisruptionBudget may be evicted.
//!
//! Evictions take from `status.disruptionsAllowed`; this keeps it up to date and, where it cannot be known, at zero.

mod plan;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use api::core::v1::Pod;
use api::labels::Selector;
use api::policy::v1::PodDisruptionBudget;
use reconcile::{Action, Event, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};
use crate::expectations::Writes;
use crate::owner::controller_of;
use plan::{Scale, Unknown};

pub(crate) use stale::StaleDisruptions;

pub(crate) struct Budgets {
    context: Context,
    writes: Writes,
}

impl Controller for Budgets {
    const NAME: &'static str = "disruption-controller";
    const NEEDS: &'static [Need] = &[
        need::disruption_budgets,
        need::pods,
        need::replica_sets,
        need::replication_controllers,
        need::deployments,
        need::stateful_sets,
    ];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.disruption_budgets.handle(enqueue(queue));
        let (queue, budgets) = (queue.clone(), self.context.caches.disruption_budgets.clone());
        reflectors.pods.handle(move |event| {
            let pods: &[&Arc<Pod>] = match event {
                Event::Applied { old: Some(old), new } => &[old, new],
                Event::Applied { old: None, new } => &[new],
                Event::Deleted(last) => &[last],
                Event::Synced | Event::Resync => return,
            };
            for budget in budgets.list_namespace(&pods[0].metadata.namespace) {
                let selects = |s: Selector| pods.iter().any(|pod| s.matches(&pod.metadata.labels));
                if selector(&budget).is_ok_and(selects) {
                    queue.add(Key::of(&budget.metadata));
                }
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context, writes: Writes::default() }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(budget) = self.context.caches.disruption_budgets.get(&key.namespace, &key.name) else {
            self.writes.forget(&key);
            return Ok(Action::Done);
        };
        if !self.writes.are_shown(&budget.metadata) {
            return Err(Error::Behind);
        }
        let selector = selector(&budget)?;
        let mut pods = self.context.caches.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(&pod.metadata.labels));
        if pods.is_empty() {
            self.context.recorder.event(&*budget, EventType::Normal, "NoPods", "No matching pods found".to_owned());
        }
        let now = now();
        let (status, recheck) = match plan::expect(&budget, &pods, &|pod| self.scale_of(pod)) {
            Ok(expected) => plan::status(&budget, &pods, expected, now),
            Err(unknown) => {
                let message = format!("Failed to calculate the number of expected pods: {unknown}");
                let reason = "CalculateExpectedPodCountFailed";
                self.context.recorder.event(&*budget, EventType::Warning, reason, message);
                (plan::blocked(&budget, &unknown, now), None)
            }
        };
        if status != budget.status {
            let changed = PodDisruptionBudget { status, ..(*budget).clone() };
            let written = self.context.client.update_status(&changed).await.during("writing the status")?;
            self.writes.wrote(&written.metadata);
        }
        Ok(recheck.map_or(Action::Done, |seconds| Action::RequeueAfter(Duration::from_secs(seconds.max(1)))))
    }
}

fn selector(budget: &PodDisruptionBudget) -> Result<Selector, Error> {
    Ok(Selector::from_object(budget.spec.selector.as_ref())?)
}

impl Budgets {
    /// How many pods whoever controls this one wants; `None` for a pod that nobody controls.
    fn scale_of(&self, pod: &Pod) -> Result<Option<Scale>, Unknown> {
        let Some(owner) = controller_of(&pod.metadata) else { return Ok(None) };
        let (namespace, name, caches) = (&pod.metadata.namespace, &owner.name, &self.context.caches);
        let unknown = || Unknown { kind: owner.kind.clone(), name: owner.name.clone(), pod: pod.metadata.name.clone() };
        let scale =
            |uid: &str, replicas: Option<i32>| Some(Scale { uid: uid.to_owned(), replicas: replicas.unwrap_or(1) });
        let found = match owner.kind.as_str() {
            "ReplicaSet" => {
                caches.replica_sets.get(namespace, name).filter(|s| s.metadata.uid == owner.uid).and_then(|set| {
                    let deployment = controller_of(&set.metadata).filter(|o| o.kind == "Deployment");
                    match deployment.and_then(|o| caches.deployments.get(namespace, &o.name)) {
                        Some(deployment) => scale(&deployment.metadata.uid, deployment.spec.replicas),
                        None => scale(&set.metadata.uid, set.spec.replicas),
                    }
                })
            }
            "StatefulSet" => {
                let set = caches.stateful_sets.get(namespace, name).filter(|s| s.metadata.uid == owner.uid);
                set.and_then(|set| scale(&set.metadata.uid, set.spec.replicas))
            }
            "ReplicationController" => {
                let cache = &caches.replication_controllers;
                let found = cache.get(namespace, name).filter(|c| c.metadata.uid == owner.uid);
                found.and_then(|found| scale(&found.metadata.uid, found.spec.replicas))
            }
            _ => None,
        };
        found.map(Some).ok_or_else(unknown)
    }
}
