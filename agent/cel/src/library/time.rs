//! Points and spans of time.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("getFullYear", "timestamp.() -> int", year),
    ("getFullYear", "timestamp.(string) -> int", year),
    ("getMonth", "timestamp.() -> int", month),
    ("getMonth", "timestamp.(string) -> int", month),
    ("getDayOfYear", "timestamp.() -> int", day_of_year),
    ("getDayOfYear", "timestamp.(string) -> int", day_of_year),
    ("getDayOfMonth", "timestamp.() -> int", day_of_month),
    ("getDayOfMonth", "timestamp.(string) -> int", day_of_month),
    ("getDate", "timestamp.() -> int", date),
    ("getDate", "timestamp.(string) -> int", date),
    ("getDayOfWeek", "timestamp.() -> int", day_of_week),
    ("getDayOfWeek", "timestamp.(string) -> int", day_of_week),
    ("getHours", "timestamp.() -> int", hours),
    ("getHours", "timestamp.(string) -> int", hours),
    ("getHours", "duration.() -> int", hours),
    ("getMinutes", "timestamp.() -> int", minutes),
    ("getMinutes", "timestamp.(string) -> int", minutes),
    ("getMinutes", "duration.() -> int", minutes),
    ("getSeconds", "timestamp.() -> int", seconds),
    ("getSeconds", "timestamp.(string) -> int", seconds),
    ("getSeconds", "duration.() -> int", seconds),
    ("getMilliseconds", "timestamp.() -> int", milliseconds),
    ("getMilliseconds", "timestamp.(string) -> int", milliseconds),
    ("getMilliseconds", "duration.() -> int", milliseconds),
];

const SECOND: i64 = 1_000_000_000;

/// Seconds of year 1 and year 9999, between which points in time lie.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

pub(crate) fn is_in_range(moment: Timestamp) -> bool {
    RANGE.contains(&moment.as_second())
}

/// Reads a point in time in RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20 && bytes[10] == b'T' && bytes[13] == b':' && bytes[16] == b':';
    let zone = text.ends_with('Z') || (bytes.len() >= 25 && bytes[bytes.len() - 3] == b':');
    if !shape || !zone || text.contains('[') {
        return None;
    }
    text.parse().ok().filter(|t| is_in_range(*t))
}

/// Reads a span of time such as `1h30m` or `1.5s`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, nanos)?)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn scaled(number: &str, nanos: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    let mut sum = whole.parse::<i128>().unwrap_or(0).checked_mul(nanos)?;
    let mut unit = nanos;
    let mut rest: i128 = 0;
    for digit in fraction.chars().take(15) {
        // Kept exactly until the last digit, then cut.
        rest = rest * 10 + i128::from(digit.to_digit(10)?);
        unit *= 10;
    }
    if unit > nanos {
        sum += rest * nanos / (unit / nanos);
    }
    Some(sum)
}

/// A span of time as text: seconds.
pub(crate) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (whole, rest) = (nanos / SECOND.unsigned_abs(), nanos % SECOND.unsigned_abs());
    if rest == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

fn zone(name: &str) -> Result<TimeZone> {
    let unknown = || EvalError::new(format!("unknown time zone {name}"));
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).map_err(|_| unknown()) };
    let (sign, hours) = match hours.strip_prefix('-') {
        Some(hours) => (-1, hours),
        None => (1, hours.strip_prefix('+').unwrap_or(hours)),
    };
    let hours: i32 = hours.parse().map_err(|_| unknown())?;
    let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
    let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| unknown())?;
    Ok(TimeZone::fixed(offset))
}

/// A part of a point in time where the clock is set to a zone, or of a span.
fn part<'a>(
    args: &[Value<'a>],
    of_moment: fn(&jiff::Zoned) -> i64,
    of_span: Option<fn(i64) -> i64>,
) -> Result<Value<'a>> {
    let number = match args {
        [Value::Timestamp(moment)] => of_moment(&moment.to_zoned(TimeZone::UTC)),
        [Value::Timestamp(moment), Value::String(name)] => of_moment(&moment.to_zoned(zone(name)?)),
        [Value::Duration(nanos)] => of_span.map(|of| of(*nanos)).ok_or_else(EvalError::no_overload)?,
        _ => return Err(EvalError::no_overload()),
    };
    Ok(Value::Int(number))
}

fn year<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.year()), None)
}

fn month<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.month()) - 1, None)
}

fn day_of_year<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.day_of_year()) - 1, None)
}

fn day_of_month<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.day()) - 1, None)
}

fn date<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.day()), None)
}

fn day_of_week<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.weekday().to_sunday_zero_offset()), None)
}

fn hours<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.hour()), Some(|nanos| nanos / (3600 * SECOND)))
}

fn minutes<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.minute()), Some(|nanos| nanos / (60 * SECOND)))
}

fn seconds<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.second()), Some(|nanos| nanos / SECOND))
}

fn milliseconds<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, |t| i64::from(t.millisecond()), Some(|nanos| nanos / 1_000_000))
}
