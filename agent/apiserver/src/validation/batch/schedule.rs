//! Times that come again: five fields, or a word for them.

use crate::status::FieldError;
use crate::validation::{Errors, Path, shown};
use stdx::quoted;

/// The numbers that a field can have, and names of some.
struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
    first: u64,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[], first: 0 },
    Bounds { min: 0, max: 23, names: &[], first: 0 },
    Bounds { min: 1, max: 31, names: &[], first: 0 },
    Bounds { min: 1, max: 12, names: &MONTHS, first: 1 },
    Bounds { min: 0, max: 6, names: &DAYS, first: 0 },
];

const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// A schedule; `had_zone` if it had a time zone before, `has_field` if there is a field for that now.
pub(super) fn schedule(path: &Path<'_>, text: &str, (had_zone, has_field): (bool, bool), errors: &mut Errors) {
    if let Err(why) = parse(text) {
        errors.push(FieldError::invalid(path, text, why));
    }
    if text.contains("TZ") {
        let why = match (had_zone, has_field) {
            (true, true) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            (true, false) => return,
            (false, _) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        };
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn parse(text: &str) -> Result<(), String> {
    let mut text = text;
    if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        let Some((zone, rest)) = rest.split_once(' ') else {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
        };
        if !is_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        text = rest.trim();
    }
    if text.starts_with('@') {
        return word(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let list = fields.join(" ");
        return Err(format!("expected exactly {} fields, found {}: [{list}]", FIELDS.len(), fields.len()));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn word(text: &str) -> Result<(), String> {
    if WORDS.contains(&text) {
        return Ok(());
    }
    let Some(duration) = text.strip_prefix("@every ") else {
        return Err(format!("unrecognized descriptor: {text}"));
    };
    match is_duration(duration) {
        true => Ok(()),
        false => Err(format!("failed to parse duration {text}: time: invalid duration {}", quoted(duration))),
    }
}

/// Numbers, each with a unit, such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let any = !rest.is_empty();
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - digits.len()];
        let after = digits.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        let unit = &digits[..digits.len() - after.len()];
        let is_number = number.bytes().any(|c| c.is_ascii_digit()) && number.matches('.').count() < 2;
        if !is_number || !matches!(unit, "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = after;
    }
    any
}

fn number(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_lowercase();
    if let Some(index) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(bounds.first + index as u64);
    }
    plain_number(text)
}

fn plain_number(text: &str) -> Result<u64, String> {
    let number = text.parse::<i64>().map_err(|e| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = if matches!(e.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {why}", quoted(text))
    })?;
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let mut halves = text.split('/');
    let (ends, step, more) = (halves.next().unwrap_or_default(), halves.next(), halves.next());
    let mut limits = ends.split('-');
    let (low, high, extra) = (limits.next().unwrap_or_default(), limits.next(), limits.next());
    let (mut start, mut end) = (bounds.min, bounds.max);
    if !matches!(low, "*" | "?") {
        start = number(low, bounds)?;
        end = match (high, extra) {
            (None, _) => start,
            (Some(high), None) => number(high, bounds)?,
            (Some(_), Some(_)) => return Err(format!("too many hyphens: {text}")),
        };
    }
    let mut by = 1;
    if let Some(step) = step {
        if more.is_some() {
            return Err(format!("too many slashes: {text}"));
        }
        by = plain_number(step)?;
        if high.is_none() {
            end = bounds.max;
        }
    }
    let Bounds { min, max, .. } = bounds;
    if start < *min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > *max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if by == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

/// The name of a time zone.
pub(super) fn time_zone(path: &Path<'_>, zone: &str, errors: &mut Errors) {
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+');
    let is_part = |part: &str| {
        (1..=14).contains(&part.len())
            && part.bytes().all(word)
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(is_part) {
        errors.push(FieldError::invalid(path, shown::word(zone), unknown));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, shown::word(zone), why));
    }
    if !is_zone(zone) {
        errors.push(FieldError::invalid(path, shown::word(zone), unknown));
    }
}

/// Whether there is such a time zone; without a list of them every one is believed.
fn is_zone(name: &str) -> bool {
    matches!(name, "" | "UTC" | "Local")
        || jiff::tz::db().is_definitively_empty()
        || jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_have_five_fields() {
        for text in ["* * * * *", "0 0 1 JAN sun", "*/5 1-3,7 ? * 1-5/2", "@daily", "@every 1h30m"] {
            assert_eq!(parse(text), Ok(()), "{text}");
        }
        let bad = [
            ("a", "expected exactly 5 fields, found 1: [a]"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
        ];
        for (text, why) in bad {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
