//! Which time of a schedule is due.

use api::batch::v1::CronJob;

use super::schedule::Schedule;

/// More missed times than this are told.
const MANY: i64 = 100;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    At {
        time: i64,
        /// So many times were missed before that something must be wrong.
        many_missed: bool,
    },
}

/// The newest time that has come and was not attended to, unless it is too late for it.
pub(super) fn find(cron: &CronJob, schedule: &Schedule, now: i64) -> Due {
    let deadline = cron.spec.starting_deadline_seconds;
    let seen = seen(cron);
    let since = deadline.map_or(seen, |deadline| seen.max(now - deadline));
    match newest(schedule, since, now) {
        Some((time, missed)) if deadline.is_none_or(|deadline| time + deadline >= now) => {
            Due::At { time, many_missed: missed > MANY }
        }
        Some(_) | None => Due::Nothing,
    }
}

/// The first time after what has come by now.
pub(super) fn next(cron: &CronJob, schedule: &Schedule, now: i64) -> Option<i64> {
    let seen = seen(cron);
    schedule.next(newest(schedule, seen, now).map_or(seen, |(time, _)| time)).map(|next| next.max(now))
}

/// Up to when all times were attended to.
fn seen(cron: &CronJob) -> i64 {
    let last = cron.status.last_schedule_time.and_then(|t| t.unix());
    last.unwrap_or_else(|| cron.metadata.creation_timestamp.unix().unwrap_or(0))
}

/// The newest time after `since` and not after `now`, and about how many there were.
fn newest(schedule: &Schedule, since: i64, now: i64) -> Option<(i64, i64)> {
    let first = schedule.next(since).filter(|first| *first <= now)?;
    let Some(second) = schedule.next(first).filter(|second| *second <= now) else { return Some((first, 1)) };
    let step = (second - first).max(1);
    let count = (now - first) / step + 1;
    // Jump near the end by the distance of the first two; schedules need not be even, so look on from there.
    let mut time = first + (count - 2).max(0) * step;
    let mut newest = None;
    while let Some(next) = schedule.next(time).filter(|next| *next <= now) {
        newest = Some(next);
        time = next;
    }
    Some((newest.unwrap_or(second), count))
}

#[cfg(test)]
mod tests {
    use api::meta::v1::Time;

    use super::*;

    fn cron(created: i64, deadline: Option<i64>) -> CronJob {
        let mut cron = CronJob::default();
        cron.metadata.creation_timestamp = Time::from_unix(created);
        cron.spec.starting_deadline_seconds = deadline;
        cron
    }

    #[test]
    fn the_newest_missed_time_is_due() {
        let minutely = Schedule::parse("* * * * *", None).unwrap();
        assert_eq!(find(&cron(30, None), &minutely, 59), Due::Nothing);
        assert_eq!(find(&cron(30, None), &minutely, 60), Due::At { time: 60, many_missed: false });
        assert_eq!(find(&cron(30, None), &minutely, 185), Due::At { time: 180, many_missed: false });
        assert_eq!(find(&cron(30, None), &minutely, 60_005), Due::At { time: 60_000, many_missed: true });
        assert_eq!(find(&cron(30, Some(200)), &minutely, 60_005), Due::At { time: 60_000, many_missed: false });
        assert_eq!(find(&cron(30, Some(3)), &minutely, 60_005), Due::Nothing);
    }

    #[test]
    fn the_next_time_follows_the_last_one() {
        let hourly = Schedule::parse("0 * * * *", None).unwrap();
        assert_eq!(next(&cron(10, None), &hourly, 20), Some(3600));
        let mut ran = cron(10, None);
        ran.status.last_schedule_time = Some(Time::from_unix(3600));
        assert_eq!(next(&ran, &hourly, 3601), Some(7200));
    }
}
