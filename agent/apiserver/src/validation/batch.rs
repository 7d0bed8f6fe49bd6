//! Kinds of the group `batch`.

mod cron_job;
mod indexes;
mod job;
mod job_status;
mod policies;
mod schedule;

pub(super) use cron_job::{cron_job, cron_job_warnings};
pub(super) use job::{job, job_warnings};
