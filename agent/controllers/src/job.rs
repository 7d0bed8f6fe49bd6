//! `job-controller`, `ttl-after-finished-controller` and the pods that jobs leave behind.
//!
//! ```text
//!   observe (View: job, pods, counts) ─▶ plan::judge_end ──ends──▶ delete active pods ─┐
//!                                              │ goes on                               ├─▶ track ─▶ status
//!                                              └──▶ plan::manage ─▶ create / delete ───┘
//! ```
//!
//! Every pod carries a finalizer until its end is counted in the status; [`track`] draws how.

mod backoff;
mod condition;
mod indexes;
mod orphans;
mod plan;
mod policy;
mod track;
mod ttl;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::batch::v1::Job;
use api::core::v1::Pod;
use api::labels::Selector;
use api::meta::v1::Time;
use client::Patch;
use futures::future::join_all;
use reconcile::{Action, Event, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};
use crate::expectations::Writes;
use crate::owned_pods::OwnedPods;
use crate::owner::controller_of;
use crate::pods::is_ready;
use backoff::Record;
use plan::Manage;
use view::View;

use condition::COMPLETE;
pub(crate) use condition::{finished_at as job_finished_at, is_complete as is_job_complete};
pub(crate) use orphans::Orphans;
pub(crate) use ttl::Expiry;

/// Keeps a pod until its end is counted.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotations that hand the number of an index's failures from pod to pod.
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Who manages a job that names nobody else.
const MANAGER: &str = "kubernetes.io/job-controller";

pub(crate) struct Jobs {
    context: Context,
    pods: OwnedPods<Job>,
    writes: Writes,
    released: Arc<Released>,
    records: Mutex<HashMap<Key, Record>>,
}

/// Uids of pods whose finalizer was removed although the cache may not show it.
#[derive(Default)]
struct Released {
    uids: Mutex<HashSet<String>>,
}

impl Released {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, event: &Event<Pod>) {
        let gone = match event {
            Event::Applied { new, .. } if !has_finalizer(new) => &new.metadata.uid,
            Event::Deleted(last) => &last.metadata.uid,
            Event::Applied { .. } | Event::Synced | Event::Resync => return,
        };
        self.lock().remove(gone);
    }
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

fn selector(job: &Job) -> Result<Selector, Error> {
    Ok(Selector::from_object(job.spec.selector.as_ref())?)
}

impl Controller for Jobs {
    const NAME: &'static str = "job-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::jobs, need::pods];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.jobs.handle(enqueue(queue));
        let released = self.released.clone();
        reflectors.pods.handle(move |event| released.observe(event));
        self.pods.watch(queue, reflectors, &self.context.caches.jobs);
    }

    fn new(context: Context) -> Self {
        Self {
            pods: OwnedPods::new(context.clone(), selector).with_finalizer(FINALIZER),
            writes: Writes::default(),
            released: Arc::default(),
            records: Mutex::default(),
            context,
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(job) = self.context.caches.jobs.get(&key.namespace, &key.name) else {
            self.pods.expectations.forget(&key);
            self.writes.forget(&key);
            self.records().remove(&key);
            return Ok(Action::Done);
        };
        let foreign = job.spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER);
        if foreign || condition::is_finished(&job) {
            self.records().remove(&key);
            return Ok(Action::Done);
        }
        if !self.writes.are_shown(&job.metadata) {
            return Err(Error::Behind);
        }
        let settled = self.pods.expectations.are_met(&key);
        let pods = self.pods.claim(&job).await?;
        let record = self.records().get(&key).copied().unwrap_or_default();
        let released = self.released.lock().clone();
        let mut view = View::observe(&job, pods, released, record, now());
        if view.job.status.start_time.is_none() && !view.is_suspended() {
            view.job.status.start_time = Some(Time::from_unix(view.now));
        }
        self.attend(&key, &mut view, settled).await
    }
}

/// What became of the job's pods in a run.
struct Managed {
    active: i32,
    /// Seconds until failed pods may be replaced.
    pause: Option<i64>,
    failure: Option<Error>,
}

impl Jobs {
    fn records(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attend(&self, key: &Key, view: &mut View, settled: bool) -> Result<Action, Error> {
        view.finished = plan::judge_end(view);
        let mut changed = false;
        let managed = if view.finished.is_some() {
            let managed = self.stop(key, view).await;
            if managed.failure.is_some() || !settled {
                // Pods may be left that the cache does not show, with finalizers.
                view.finished = None;
            }
            managed
        } else {
            let manages = settled && view.job.metadata.deletion_timestamp.is_none();
            let managed = if manages { self.manage(key, view).await } else { self.idle(view) };
            view.finished = plan::judge_success(view, managed.active);
            if view.finished.is_none() && manages {
                changed = self.tell_suspension(view);
            }
            managed
        };
        let status = &mut view.job.status;
        let (ready, terminating) = (Some(view.ready.min(managed.active)), Some(view.terminating));
        changed |= (status.active, status.ready, status.terminating) != (managed.active, ready, terminating);
        (status.active, status.ready, status.terminating) = (managed.active, ready, terminating);
        self.track(key, view, changed).await?;
        if let Some(failure) = managed.failure {
            return Err(failure);
        }
        let waits = managed.pause.into_iter().chain(plan::deadline(view).filter(|_| view.finished.is_none()));
        let again = waits.min().map(|seconds| Duration::from_secs(seconds.max(1).unsigned_abs()));
        Ok(again.map_or(Action::Done, Action::RequeueAfter))
    }

    fn idle(&self, view: &View) -> Managed {
        Managed { active: i32::try_from(view.active.len()).unwrap_or(i32::MAX), pause: None, failure: None }
    }

    /// Deletes the active pods of a job that ends; their finalizers go when they are counted.
    async fn stop(&self, key: &Key, view: &mut View) -> Managed {
        let active = view.active.clone();
        let failure = self.pods.delete(key, &view.job, &active).await.err();
        if failure.is_some() {
            return Managed { failure, ..self.idle(view) };
        }
        self.note_deleted(view, &active);
        Managed { active: 0, pause: None, failure: None }
    }

    fn note_deleted(&self, view: &mut View, pods: &[Arc<Pod>]) {
        view.terminating += i32::try_from(pods.len()).unwrap_or(0);
        view.ready -= i32::try_from(pods.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(0);
    }

    async fn manage(&self, key: &Key, view: &mut View) -> Managed {
        let idle = self.idle(view);
        match plan::manage(view) {
            Manage::Keep => idle,
            Manage::Wait(pause) => Managed { pause: Some(pause), ..idle },
            Manage::Delete(pods) => {
                // Pods that are too many do not count, however they end.
                let failure = match self.release(&pods).await {
                    Ok(()) => self.pods.delete(key, &view.job, &pods).await.err(),
                    Err(error) => Some(error),
                };
                if failure.is_some() {
                    return Managed { failure, ..idle };
                }
                self.note_deleted(view, &pods);
                Managed { active: idle.active - i32::try_from(pods.len()).unwrap_or(0), ..idle }
            }
            Manage::Create(pods) => match self.pods.create(key, &view.job, &pods).await {
                Ok(()) => Managed { active: idle.active + i32::try_from(pods.len()).unwrap_or(0), ..idle },
                Err(error) => Managed { failure: Some(error), ..idle },
            },
        }
    }

    /// Keeps the condition on suspension and the time from which the deadline counts.
    fn tell_suspension(&self, view: &mut View) -> bool {
        let (status, reason, message) = match view.is_suspended() {
            true => ("True", "JobSuspended", "Job suspended"),
            false => ("False", "JobResumed", "Job resumed"),
        };
        let mut wanted = condition::made(condition::SUSPENDED, reason, message, view.now);
        status.clone_into(&mut wanted.status);
        if !condition::set(&mut view.job, wanted) {
            return false;
        }
        let (reason, start) = match view.is_suspended() {
            true => ("Suspended", None),
            false => ("Resumed", Some(Time::from_unix(view.now))),
        };
        view.job.status.start_time = start;
        self.context.recorder.event(&view.job, EventType::Normal, reason, message.to_owned());
        true
    }

    /// Counts what ended: status first, then finalizers, then counters.
    async fn track(&self, key: &Key, view: &mut View, changed: bool) -> Result<(), Error> {
        let mut tracked = track::enter(view);
        if changed || tracked.flush {
            self.write_status(view).await?;
            self.records().insert(key.clone(), view.record);
        }
        let released = self.release(&tracked.release).await;
        if released.is_ok() {
            tracked.release.iter().for_each(|pod| {
                tracked.tracked.remove(&pod.metadata.uid);
            });
        }
        let settled = track::settle(view, &tracked.tracked);
        if released.is_err() {
            if settled {
                self.write_status(view).await?;
            }
            return released;
        }
        let ended = !tracked.full && track::end(view);
        if settled || ended {
            self.write_status(view).await?;
        }
        if ended {
            self.tell_end(view);
        }
        Ok(())
    }

    async fn write_status(&self, view: &mut View) -> Result<(), Error> {
        let written = self.context.client.update_status(&view.job).await.during("writing the status")?;
        self.writes.wrote(&written.metadata);
        view.job.metadata = written.metadata;
        Ok(())
    }

    /// Removes the finalizers of these pods.
    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let tracked: Vec<&Arc<Pod>> = pods.iter().filter(|pod| has_finalizer(pod)).collect();
        self.released.lock().extend(tracked.iter().map(|pod| pod.metadata.uid.clone()));
        let results =
            join_all(tracked.iter().map(|pod| async move { (pod, remove_finalizer(&self.context, pod).await) }));
        let mut failed = Ok(());
        for (pod, result) in results.await {
            if result.is_err() {
                self.released.lock().remove(&pod.metadata.uid);
                failed = result;
            }
        }
        failed
    }

    fn tell_end(&self, view: &View) {
        let (job, recorder) = (&view.job, &self.context.recorder);
        let Some(end) = &view.finished else { return };
        if end.r#type != COMPLETE {
            // Reasons are the few of `plan::judge_end`; events take them as constants.
            let reasons = ["BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
            let reason = reasons.into_iter().find(|r| end.reason == *r).unwrap_or("PodFailurePolicy");
            return recorder.event(job, EventType::Warning, reason, end.message.clone());
        }
        if job.spec.completions.is_some_and(|wanted| job.status.succeeded > wanted) {
            let message = "Too many succeeded pods running after completion count reached".to_owned();
            recorder.event(job, EventType::Warning, "TooManySucceededPods", message);
        }
        recorder.event(job, EventType::Normal, "Completed", "Job completed".to_owned());
    }
}

/// Removes the finalizer; a pod that is gone needs no more.
async fn remove_finalizer(context: &Context, pod: &Pod) -> Result<(), Error> {
    let body = serde_json::json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    let (namespace, name) = (Some(pod.metadata.namespace.as_str()), pod.metadata.name.as_str());
    match context.client.patch::<Pod>(namespace, name, None, &Patch::Strategic(body)).await {
        Err(error) if !error.is_not_found() => Err(error).during("removing a pod's finalizer"),
        _ => Ok(()),
    }
}

/// The job that a pod belongs to, by name and uid.
fn job_of(context: &Context, pod: &Pod) -> Option<Arc<Job>> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job")?;
    let job = context.caches.jobs.get(&pod.metadata.namespace, &owner.name)?;
    (job.metadata.uid == owner.uid).then_some(job)
}
