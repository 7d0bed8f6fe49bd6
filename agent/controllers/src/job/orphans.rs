//! Pods whose job is gone or has ended: nobody counts them any more, so nothing may keep them.

use reconcile::{Action, Event, Queue};

use super::{MANAGER, condition, has_finalizer, job_of, remove_finalizer};
use crate::caches::{BY_CONTROLLER, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, subject};
use crate::error::Error;
use crate::owner::controller_of;

/// Removes finalizers that have no more use.
pub(crate) struct Orphans {
    context: Context,
}

impl Controller for Orphans {
    const NAME: &'static str = "job-orphans";
    const NEEDS: &'static [Need] = &[need::jobs, need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        let pods = queue.clone();
        reflectors.pods.handle(move |event| {
            if let Some(pod) = subject(event).filter(|pod| has_finalizer(pod)) {
                pods.add(Key::of(&pod.metadata));
            }
        });
        let (jobs, cache) = (queue.clone(), self.context.caches.pods.clone());
        reflectors.jobs.handle(move |event| {
            let over = match event {
                Event::Deleted(job) => job,
                Event::Applied { new, .. } if condition::is_finished(new) => new,
                Event::Applied { .. } | Event::Synced | Event::Resync => return,
            };
            let left = cache.by_index(BY_CONTROLLER, &over.metadata.uid);
            left.iter().filter(|pod| has_finalizer(pod)).for_each(|pod| jobs.add(Key::of(&pod.metadata)));
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(pod) = self.context.caches.pods.get(&key.namespace, &key.name).filter(|pod| has_finalizer(pod)) else {
            return Ok(Action::Done);
        };
        if controller_of(&pod.metadata).is_some_and(|owner| owner.kind != "Job") {
            return Ok(Action::Done);
        }
        let counted = job_of(&self.context, &pod).is_some_and(|job| {
            let foreign = job.spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER);
            foreign || !condition::is_finished(&job)
        });
        if !counted {
            remove_finalizer(&self.context, &pod).await?;
        }
        Ok(Action::Done)
    }
}
