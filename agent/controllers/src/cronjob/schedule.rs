//! Cron schedules: five fields or a name such as `@hourly`, in a time zone.

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// A schedule without a time in so many days has none at all.
const HORIZON_DAYS: i32 = 5 * 366;

/// When something happens.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    zone: TimeZone,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    /// Every so many seconds.
    Every(i64),
    Fields(Box<Fields>),
}

/// Sets of values, as bits.
#[derive(Clone, Debug)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days and weekdays both restrict; where both are given, either is enough.
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("unknown time zone {0}")]
    TimeZone(String),
    #[error("failed to parse {0:?}")]
    Field(String),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule; without a zone it is in UTC, or in what a prefix `TZ=ZONE` names.
    pub(super) fn parse(text: &str, zone: Option<&str>) -> Result<Self, Unreadable> {
        let text = text.trim();
        let prefixed = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let (zone, text) = match (prefixed.and_then(|rest| rest.split_once(' ')), zone) {
            (_, Some(zone)) => (zone, text),
            (Some((zone, rest)), None) => (zone, rest.trim()),
            (None, None) => ("UTC", text),
        };
        let zone = match zone {
            "" | "UTC" | "Etc/UTC" => TimeZone::UTC,
            named => TimeZone::get(named).map_err(|_| Unreadable::TimeZone(named.to_owned()))?,
        };
        Ok(Self { zone, times: Times::parse(text)? })
    }

    /// The first time after `after`, in seconds since 1970.
    pub(super) fn next(&self, after: i64) -> Option<i64> {
        let fields = match &self.times {
            Times::Every(seconds) => return Some(after + seconds),
            Times::Fields(fields) => fields,
        };
        let start = Timestamp::from_second(after).ok()?.to_zoned(self.zone.clone()).date();
        // The day before: its last times can come later than the first of this one where clocks are put back.
        let mut day = start.checked_sub(1.day()).ok()?;
        for _ in 0..HORIZON_DAYS {
            if fields.has_day(day)
                && let Some(time) = self.first_in(fields, day, after)
            {
                return Some(time);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The first time of a day after `after`. Times that clocks skip do not exist; times that they repeat come twice.
    fn first_in(&self, fields: &Fields, day: Date, after: i64) -> Option<i64> {
        let mut first: Option<i64> = None;
        for hour in bits(fields.hours) {
            let mut repeated = false;
            for minute in bits(fields.minutes) {
                let civil = day.at(hour, minute, 0, 0);
                let both = match self.zone.to_ambiguous_timestamp(civil).offset() {
                    AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
                    AmbiguousOffset::Gap { .. } => [None, None],
                    AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
                };
                repeated |= both[1].is_some();
                for offset in both.into_iter().flatten() {
                    let time = offset.to_timestamp(civil).ok().map(Timestamp::as_second);
                    let later = time.filter(|time| *time > after);
                    first = first.into_iter().chain(later).min();
                }
            }
            if first.is_some() && !repeated {
                return first;
            }
        }
        first
    }

    /// A time as this schedule's zone has it.
    pub(super) fn format(&self, time: i64) -> String {
        let Ok(stamp) = Timestamp::from_second(time) else { return String::new() };
        if self.zone == TimeZone::UTC {
            return stamp.to_string();
        }
        stamp.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

impl Times {
    fn parse(text: &str) -> Result<Self, Unreadable> {
        let bad = || Unreadable::Field(text.to_owned());
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(pause) = text.strip_prefix("@every ") {
            let nanos = api::time::parse_duration(pause.trim()).ok_or_else(bad)?;
            return Ok(Self::Every((nanos / 1_000_000_000).max(1)));
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else { return Err(bad()) };
        let (days, every_day) = parse_field(days, (1, 31), &[])?;
        let (weekdays, every_weekday) = parse_field(weekdays, (0, 6), &WEEKDAYS)?;
        Ok(Self::Fields(Box::new(Fields {
            minutes: parse_field(minutes, (0, 59), &[])?.0,
            hours: parse_field(hours, (0, 23), &[])?.0,
            days,
            months: parse_field(months, (1, 12), &MONTHS)?.0,
            weekdays,
            either_day: !every_day && !every_weekday,
        })))
    }
}

impl Fields {
    fn has_day(&self, date: Date) -> bool {
        let has = |set: u64, value: i8| u32::try_from(value).is_ok_and(|value| set & (1 << value) != 0);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }
}

/// The values of a set, ascending.
fn bits(set: u64) -> impl Iterator<Item = i8> {
    (0_i8..60).filter(move |value| set & (1 << value) != 0)
}

/// Reads a list of ranges; whether it is a mere `*`.
fn parse_field(text: &str, (min, max): (u32, u32), names: &[&str]) -> Result<(u64, bool), Unreadable> {
    let bad = || Unreadable::Field(text.to_owned());
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name)).and_then(|i| u32::try_from(i).ok());
        named.map(|i| i + min).or_else(|| text.parse().ok()).ok_or_else(bad)
    };
    let (mut set, mut every) = (0_u64, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| bad())?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if matches!(range, "*" | "?") => {
                every |= step.is_none_or(|step| step == 1);
                (min, max)
            }
            None => (number(range)?, if step.is_some() { max } else { number(range)? }),
        };
        let step = step.unwrap_or(1);
        if first < min || last > max || first > last || step == 0 {
            return Err(bad());
        }
        (first..=last).step_by(step as usize).for_each(|value| set |= 1 << value);
    }
    Ok((set, every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> String {
        let next = Schedule::parse(schedule, zone).unwrap().next(at(after)).unwrap();
        Timestamp::from_second(next).unwrap().to_string()
    }

    #[test]
    fn times_follow_the_fields() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * ?", "2026-01-01T00:16:10Z", "2026-01-01T00:30:00Z"),
            ("5/20 * * * *", "2026-01-01T00:26:00Z", "2026-01-01T00:45:00Z"),
            ("0 9-17/4 * * *", "2026-01-01T10:00:00Z", "2026-01-01T13:00:00Z"),
            ("30 4 1,15 * *", "2026-01-02T00:00:00Z", "2026-01-15T04:30:00Z"),
            // Both kinds of day: either will do. 2026-01-02 is a Friday.
            ("0 0 15 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */2 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(next(schedule, None, after), expected, "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * * *", "60 * * * *", "* * 0 * *", "* * * * 7", "5-1 * * * *", "*/0 * * * *", "a * * * *"] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
        assert!(Schedule::parse("* * * * *", Some("No/Where")).is_err());
        assert_eq!(Schedule::parse("0 0 31 feb *", None).unwrap().next(0), None);
    }

    #[test]
    fn zones_move_times_and_clocks_that_change_skip_or_repeat_them() {
        let zone = Some("Europe/Berlin");
        if TimeZone::get("Europe/Berlin").is_err() {
            return; // No time zones on this machine.
        }
        assert_eq!(next("0 12 * * *", zone, "2026-01-01T00:00:00Z"), "2026-01-01T11:00:00Z");
        assert_eq!(next("0 12 * * *", zone, "2026-07-01T00:00:00Z"), "2026-07-01T10:00:00Z");
        assert_eq!(next("30 2 * * *", zone, "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", zone, "2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        let schedule = Schedule::parse("0 12 * * *", zone).unwrap();
        assert_eq!(schedule.format(at("2026-07-01T10:00:00Z")), "2026-07-01T12:00:00+02:00");
        assert_eq!(Schedule::parse("0 0 * * *", None).unwrap().format(0), "1970-01-01T00:00:00Z");
    }
}
