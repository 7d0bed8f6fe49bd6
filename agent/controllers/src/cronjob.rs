//! `cronjob-controller`: makes jobs at the times of a schedule.
//!
//! ```text
//!   observe (jobs of the CronJob) ─▶ active list, last success ─▶ due time? ─▶ make / replace / skip ─▶ history, status
//! ```

mod due;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::batch::v1::{CronJob, Job};
use api::core::v1::ObjectReference;
use api::meta::v1::Time;
use client::{DeleteOptions, Propagation};
use reconcile::{Action, EventType, Queue};

use crate::caches::{BY_CONTROLLER, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};
use crate::expectations::Writes;
use crate::job::{is_job_complete, job_finished_at};
use crate::owner::{controller_of, controller_reference};
use due::Due;
use schedule::Schedule;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub(crate) struct CronJobs {
    context: Context,
    writes: Writes,
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::cron_jobs, need::jobs];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.cron_jobs.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.jobs.handle(move |event| {
            let Some(job) = subject(event) else { return };
            if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
                queue.add(Key::new(&job.metadata.namespace, &owner.name));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context, writes: Writes::default() }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(cron) = self.context.caches.cron_jobs.get(&key.namespace, &key.name) else {
            self.writes.forget(&key);
            return Ok(Action::Done);
        };
        if !self.writes.are_shown(&cron.metadata) {
            return Err(Error::Behind);
        }
        let mut changed = (*cron).clone();
        let jobs = self.context.caches.jobs.by_index(BY_CONTROLLER, &cron.metadata.uid);
        self.note_jobs(&mut changed, &jobs).await?;
        let outcome = match cron.metadata.deletion_timestamp {
            Some(_) => Ok(Action::Done),
            None => self.start_due(&mut changed).await,
        };
        let cleaned = self.clean_up(&mut changed, &jobs).await;
        if changed.status != cron.status {
            let written = self.context.client.update_status(&changed).await.during("writing the status")?;
            self.writes.wrote(&written.metadata);
        }
        cleaned.and(outcome)
    }
}

impl CronJobs {
    fn tell(&self, cron: &CronJob, kind: EventType, reason: &'static str, message: String) {
        self.context.recorder.event(cron, kind, reason, message);
    }

    /// Takes ended and missing jobs off the active list.
    async fn note_jobs(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), Error> {
        for job in jobs {
            let (uid, name) = (&job.metadata.uid, &job.metadata.name);
            let listed = cron.status.active.iter().any(|reference| reference.uid == *uid);
            if job_finished_at(job).is_none() {
                if !listed {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.tell(cron, EventType::Warning, "UnexpectedJob", message);
                }
                continue;
            }
            if listed {
                cron.status.active.retain(|reference| reference.uid != *uid);
                let condition = if is_job_complete(job) { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {name}, condition: {condition}");
                self.tell(cron, EventType::Normal, "SawCompletedJob", message);
            }
            let done = job.status.completion_time.filter(|_| is_job_complete(job));
            let last = cron.status.last_successful_time.and_then(|t| t.unix());
            if done.is_some_and(|done| last.is_none_or(|last| done.unix() > Some(last))) {
                cron.status.last_successful_time = done;
            }
        }
        for reference in cron.status.active.clone() {
            if jobs.iter().any(|job| job.metadata.uid == reference.uid) {
                continue;
            }
            match self.context.client.get::<Job>(Some(&reference.namespace), &reference.name).await {
                Err(error) if error.is_not_found() => {
                    cron.status.active.retain(|other| other.uid != reference.uid);
                    let message = format!("Active job went missing: {}", reference.name);
                    self.tell(cron, EventType::Normal, "MissingJob", message);
                }
                Err(error) => return Err(error).during("looking for an active job"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Makes the job whose time has come; when to look again.
    async fn start_due(&self, cron: &mut CronJob) -> Result<Action, Error> {
        if cron.spec.suspend == Some(true) {
            return Ok(Action::Done);
        }
        let schedule = match Schedule::parse(&cron.spec.schedule, cron.spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let (reason, message) = match error {
                    schedule::Unreadable::TimeZone(zone) => ("UnknownTimeZone", format!("invalid timeZone: {zone:?}")),
                    schedule::Unreadable::Field(_) => {
                        ("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", cron.spec.schedule))
                    }
                };
                self.tell(cron, EventType::Warning, reason, message);
                return Ok(Action::Done);
            }
        };
        let now = now();
        if let Due::At { time, many_missed } = due::find(cron, &schedule, now) {
            if many_missed {
                let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                               clock skew";
                self.tell(cron, EventType::Warning, "TooManyMissedTimes", message.to_owned());
            }
            self.start(cron, &schedule, time).await?;
        }
        let next = due::next(cron, &schedule, now);
        Ok(next
            .map_or(Action::Done, |next| Action::RequeueAfter(Duration::from_secs((next - now).max(1).unsigned_abs()))))
    }

    /// Makes the job of this time, unless it was made before, is too late or has to wait for others.
    async fn start(&self, cron: &mut CronJob, schedule: &Schedule, time: i64) -> Result<(), Error> {
        let name = format!("{}-{}", cron.metadata.name, time.div_euclid(60));
        let made = cron.status.active.iter().any(|reference| reference.name == name);
        if made || cron.status.last_schedule_time.and_then(|t| t.unix()) == Some(time) {
            return Ok(());
        }
        if cron.spec.concurrency_policy == "Forbid" && !cron.status.active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.tell(cron, EventType::Normal, "JobAlreadyActive", message.to_owned());
            return Ok(());
        }
        if cron.spec.concurrency_policy == "Replace" {
            for reference in cron.status.active.clone() {
                self.delete(cron, &reference.name, &reference.uid).await?;
            }
        }
        let job = match self.context.client.create(&job_of(cron, &name, schedule, time)).await {
            Ok(job) => {
                self.tell(cron, EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
                job
            }
            Err(error) if error.is_already_exists() => {
                let there = self.context.client.get::<Job>(Some(&cron.metadata.namespace), &name).await;
                let there = there.during("reading a job of the same name")?;
                if controller_of(&there.metadata).is_none_or(|owner| owner.uid != cron.metadata.uid) {
                    return Ok(());
                }
                there
            }
            Err(error) => {
                self.tell(cron, EventType::Warning, "FailedCreate", format!("Error creating job: {error}"));
                return Err(error).during("creating a job");
            }
        };
        cron.status.last_schedule_time = Some(Time::from_unix(time));
        if job_finished_at(&job).is_none() {
            cron.status.active.push(ObjectReference {
                kind: Job::KIND.kind.to_owned(),
                api_version: Job::KIND.api_version(),
                namespace: job.metadata.namespace,
                name: job.metadata.name,
                uid: job.metadata.uid,
                resource_version: job.metadata.resource_version,
                ..ObjectReference::default()
            });
        }
        Ok(())
    }

    async fn delete(&self, cron: &mut CronJob, name: &str, uid: &str) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        };
        match self.context.client.delete::<Job>(Some(&cron.metadata.namespace), name, &options).await {
            Err(error) if !error.is_not_found() => {
                self.tell(cron, EventType::Warning, "FailedDelete", format!("Deleted job: {error}"));
                return Err(error).during("deleting a job");
            }
            _ => {}
        }
        cron.status.active.retain(|reference| reference.uid != uid);
        self.tell(cron, EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
        Ok(())
    }

    /// Deletes the oldest ended jobs beyond the limits.
    async fn clean_up(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), Error> {
        let limits = [(true, cron.spec.successful_jobs_history_limit), (false, cron.spec.failed_jobs_history_limit)];
        for (succeeded, limit) in limits {
            let Some(limit) = limit else { continue };
            let ended = |job: &&Arc<Job>| {
                let alive = job.metadata.deletion_timestamp.is_none();
                alive && job_finished_at(job).is_some() && is_job_complete(job) == succeeded
            };
            let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(ended).collect();
            // Those that never started come last.
            let started = |job: &Job| job.status.start_time.and_then(|t| t.unix()).unwrap_or(i64::MAX);
            ended.sort_by_key(|job| (started(job), job.metadata.name.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in ended.into_iter().take(surplus) {
                self.delete(cron, &job.metadata.name, &job.metadata.uid).await?;
            }
        }
        Ok(())
    }
}

fn job_of(cron: &CronJob, name: &str, schedule: &Schedule, time: i64) -> Job {
    let template = &cron.spec.job_template;
    let mut job = Job { spec: template.spec.clone(), ..Job::default() };
    name.clone_into(&mut job.metadata.name);
    job.metadata.namespace.clone_from(&cron.metadata.namespace);
    job.metadata.labels.clone_from(&template.metadata.labels);
    job.metadata.annotations.clone_from(&template.metadata.annotations);
    job.metadata.annotations.insert(SCHEDULED_AT.to_owned(), schedule.format(time));
    job.metadata.owner_references = vec![controller_reference(cron)];
    job
}
