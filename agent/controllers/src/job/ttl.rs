//! `ttl-after-finished-controller`: jobs that ended go after the time they ask for.

use std::time::Duration;

use api::batch::v1::Job;
use client::{DeleteOptions, Propagation};
use reconcile::{Action, Queue};

use super::condition;
use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};

/// Deletes jobs whose time after their end is over.
pub(crate) struct Expiry {
    context: Context,
}

impl Controller for Expiry {
    const NAME: &'static str = "ttl-after-finished-controller";
    const NEEDS: &'static [Need] = &[need::jobs];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.jobs.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let cached = self.context.caches.jobs.get(&key.namespace, &key.name);
        match cached.and_then(|job| rest(&job, now())) {
            None => return Ok(Action::Done),
            Some(rest) if rest > 0 => return Ok(Action::RequeueAfter(Duration::from_secs(rest.unsigned_abs()))),
            Some(_) => {}
        }
        // Its time may have been prolonged just now.
        let fresh = match self.context.client.get::<Job>(Some(&key.namespace), &key.name).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            fresh => fresh.during("reading a job that has expired")?,
        };
        if rest(&fresh, now()).is_none_or(|rest| rest > 0) {
            return Ok(Action::Done);
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            uid: Some(fresh.metadata.uid.clone()),
            ..DeleteOptions::default()
        };
        match self.context.client.delete::<Job>(Some(&key.namespace), &key.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error).during("deleting a job that has expired"),
            _ => Ok(Action::Done),
        }
    }
}

/// Seconds that the job still has; `None` where it has no end.
fn rest(job: &Job, now: i64) -> Option<i64> {
    let ttl = job.spec.ttl_seconds_after_finished.filter(|_| job.metadata.deletion_timestamp.is_none())?;
    Some(condition::finished_at(job)? + i64::from(ttl) - now)
}
