//! Semantic versions.

use std::cmp::Ordering;
use std::rc::Rc;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("semver", "(string) -> semver", parse),
    ("semver", "(string, bool) -> semver", parse),
    ("isSemver", "(string) -> bool", is_semver),
    ("isSemver", "(string, bool) -> bool", is_semver),
    ("isGreaterThan", "semver.(semver) -> bool", is_greater),
    ("isLessThan", "semver.(semver) -> bool", is_less),
    ("compareTo", "semver.(semver) -> int", compare_to),
    ("major", "semver.() -> int", major),
    ("minor", "semver.() -> int", minor),
    ("patch", "semver.() -> int", patch),
];

/// A semantic version; what follows a plus sign does not count.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<Part>,
}

/// A part of what follows a minus sign.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

fn number(text: &str, what: &str) -> std::result::Result<u64, String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number \"{text}\""));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{} number must not contain leading zeroes \"{text}\"", capital(what)));
    }
    text.parse().map_err(|_| format!("Invalid {what} number \"{text}\""))
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

fn read(text: &str) -> std::result::Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let mut parts = text.splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, before) = rest.split_once('-').map_or((rest, None), |(patch, before)| (patch, Some(before)));
    let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if build.is_some_and(|build| !build.split('.').all(is_word)) {
        return Err("Invalid character(s) found in build meta data".to_owned());
    }
    let part = |part: &str| {
        if !is_word(part) {
            return Err(format!("Invalid character(s) found in prerelease \"{part}\""));
        }
        if part.chars().all(|c| c.is_ascii_digit()) {
            return number(part, "numeric prerelease").map(Part::Number);
        }
        Ok(Part::Text(part.to_owned()))
    };
    let before = before.map_or(Ok(Vec::new()), |before| before.split('.').map(part).collect())?;
    Ok(Semver { numbers, before })
}

/// Reads a version that is written loosely: `v1.2`, `01.0`.
fn read_loosely(text: &str) -> std::result::Result<Semver, String> {
    let mut parts: Vec<String> = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|p| p.len() > 1) {
        let trimmed = part.trim_start_matches('0');
        let starts = trimmed.starts_with(|c: char| c.is_ascii_digit());
        *part = if starts { trimmed.to_owned() } else { format!("0{trimmed}") };
    }
    if parts.len() < 3 {
        if parts.last().is_some_and(|p| p.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    read(&parts.join("."))
}

impl Semver {
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.before.cmp(&other.before),
        })
    }
}

fn from_args(args: &[Value<'_>]) -> Result<std::result::Result<Semver, String>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    match args.get(1) {
        Some(Value::Bool(true)) => Ok(read_loosely(text)),
        None | Some(Value::Bool(false)) => Ok(read(text)),
        Some(_) => Err(EvalError::no_overload()),
    }
}

fn parse<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let version = from_args(args)?.map_err(EvalError::new)?;
    Ok(Value::Semver(Rc::new(version)))
}

fn is_semver<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(from_args(args)?.is_ok()))
}

fn order(args: &[Value<'_>]) -> Result<Ordering> {
    match args {
        [Value::Semver(a), Value::Semver(b)] => Ok(a.compare(b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn is_greater<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(order(args)?.is_gt()))
}

fn is_less<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(order(args)?.is_lt()))
}

fn compare_to<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(order(args)? as i64))
}

fn part<'a>(args: &[Value<'a>], at: usize) -> Result<Value<'a>> {
    let Value::Semver(version) = &args[0] else { return Err(EvalError::no_overload()) };
    Ok(Value::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX)))
}

fn major<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, 0)
}

fn minor<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, 1)
}

fn patch<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    part(args, 2)
}
