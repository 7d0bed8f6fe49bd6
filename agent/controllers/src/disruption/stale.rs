//! Pods that were to be disrupted and were not: their condition says so no longer.

use std::time::Duration;

use api::core::v1::Pod;
use client::Patch;
use reconcile::{Action, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, now, subject};
use crate::error::{During, Error};
use crate::pods::{condition, is_finished};

const CONDITION: &str = "DisruptionTarget";
/// Seconds after which a pod should be going.
const PATIENCE: i64 = 120;

/// Takes back conditions that came to nothing.
pub(crate) struct StaleDisruptions {
    context: Context,
}

impl Controller for StaleDisruptions {
    const NAME: &'static str = "disruption-controller-stale-conditions";
    const WORKERS: usize = 1;
    const NEEDS: &'static [Need] = &[need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        let queue = queue.clone();
        reflectors.pods.handle(move |event| {
            if let Some(pod) = subject(event).filter(|pod| since(pod).is_some()) {
                queue.add(Key::of(&pod.metadata));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let pod = self.context.caches.pods.get(&key.namespace, &key.name);
        let Some(since) = pod.as_ref().and_then(|pod| since(pod)) else { return Ok(Action::Done) };
        let rest = since + PATIENCE - now();
        if rest > 0 {
            return Ok(Action::RequeueAfter(Duration::from_secs(rest.unsigned_abs())));
        }
        let uid = pod.map(|pod| pod.metadata.uid.clone());
        let time = api::time::format_seconds(now());
        let taken_back = serde_json::json!({"type": CONDITION, "status": "False", "lastTransitionTime": time});
        let body = serde_json::json!({"metadata": {"uid": uid}, "status": {"conditions": [taken_back]}});
        let patch = Patch::Strategic(body);
        match self.context.client.patch::<Pod>(Some(&key.namespace), &key.name, Some("status"), &patch).await {
            Err(error) if !error.is_not_found() => Err(error).during("taking back a disruption"),
            _ => Ok(Action::Done),
        }
    }
}

/// Since when the pod should be going, where somebody but its kubelet said so.
fn since(pod: &Pod) -> Option<i64> {
    let target = condition(pod, CONDITION)?;
    let waits = pod.metadata.deletion_timestamp.is_none() && !is_finished(pod);
    let counts = waits && target.status == "True" && target.reason != "TerminationByKubelet";
    counts.then(|| target.last_transition_time.unix().unwrap_or(0))
}
