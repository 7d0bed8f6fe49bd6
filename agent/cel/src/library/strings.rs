//! Text.

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::{List, Value};

pub(crate) const ROWS: &[Row] = &[
    ("contains", "string.(string) -> bool", contains),
    ("endsWith", "string.(string) -> bool", ends_with),
    ("startsWith", "string.(string) -> bool", starts_with),
    ("charAt", "string.(int) -> string", char_at),
    ("indexOf", "string.(string) -> int", index_of),
    ("indexOf", "string.(string, int) -> int", index_of),
    ("lastIndexOf", "string.(string) -> int", last_index_of),
    ("lastIndexOf", "string.(string, int) -> int", last_index_of),
    ("lowerAscii", "string.() -> string", lower),
    ("upperAscii", "string.() -> string", upper),
    ("replace", "string.(string, string) -> string", replace),
    ("replace", "string.(string, string, int) -> string", replace),
    ("split", "string.(string) -> list(string)", split),
    ("split", "string.(string, int) -> list(string)", split),
    ("substring", "string.(int) -> string", substring),
    ("substring", "string.(int, int) -> string", substring),
    ("trim", "string.() -> string", trim),
    ("strings.quote", "(string) -> string", quote),
    ("join", "list(string).() -> string", join),
    ("join", "list(string).(string) -> string", join),
    ("jsonpatch.escapeKey", "(string) -> string", escape_key),
];

fn text<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v str> {
    args.get(at).and_then(Value::as_str).ok_or_else(EvalError::no_overload)
}

fn number(args: &[Value<'_>], at: usize) -> Result<Option<i64>> {
    match args.get(at) {
        None => Ok(None),
        Some(Value::Int(i)) => Ok(Some(*i)),
        Some(_) => Err(EvalError::no_overload()),
    }
}

fn out_of_range(at: i64) -> EvalError {
    EvalError::new(format!("index out of range: {at}"))
}

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(text(args, 0)?.contains(text(args, 1)?)))
}

fn ends_with<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
}

fn starts_with<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
}

/// A place in text, at most its length.
fn place(at: i64, length: usize) -> Result<usize> {
    usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(at))
}

fn char_at<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let at = place(number(args, 1)?.unwrap_or(0), chars.len())?;
    Ok(Value::from(chars.get(at).map(char::to_string).unwrap_or_default()))
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    let offset = number(args, 2)?.unwrap_or(0);
    if wanted.is_empty() {
        return Ok(Value::Int(offset));
    }
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    let chars: Vec<char> = whole.chars().collect();
    let wanted: Vec<char> = wanted.chars().collect();
    let found = (from..chars.len()).find(|at| chars[*at..].starts_with(&wanted));
    Ok(position(found))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, wanted) = (text(args, 0)?, text(args, 1)?);
    let chars: Vec<char> = whole.chars().collect();
    let last = i64::try_from(chars.len()).unwrap_or(i64::MAX);
    let offset = number(args, 2)?;
    if wanted.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(last)));
    }
    if offset.is_none() && whole.len() < wanted.len() {
        return Ok(Value::Int(-1));
    }
    let offset = offset.unwrap_or(last - 1);
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    if from >= chars.len() {
        return Ok(Value::Int(-1));
    }
    let wanted: Vec<char> = wanted.chars().collect();
    let found = (0..=from).rev().find(|at| chars[*at..].starts_with(&wanted));
    Ok(position(found))
}

fn position<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn lower<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(text(args, 0)?.to_ascii_lowercase()))
}

fn upper<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(text(args, 0)?.to_ascii_uppercase()))
}

fn replace<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let count = number(args, 3)?.and_then(|n| usize::try_from(n).ok());
    Ok(Value::from(match count {
        Some(count) => whole.replacen(old, new, count),
        None => whole.replace(old, new),
    }))
}

fn split<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = number(args, 2)?.unwrap_or(-1);
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let parts: Vec<String> = if separator.is_empty() {
        let chars: Vec<char> = whole.chars().collect();
        let single = chars.len().min(most - 1);
        let mut parts: Vec<String> = chars[..single].iter().map(char::to_string).collect();
        if single < chars.len() {
            parts.push(chars[single..].iter().collect());
        }
        parts
    } else {
        whole.splitn(most, separator).map(str::to_owned).collect()
    };
    Ok(Value::list(parts.into_iter().map(Value::from).collect()))
}

fn substring<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let chars: Vec<char> = text(args, 0)?.chars().collect();
    let start = number(args, 1)?.unwrap_or(0);
    let end = number(args, 2)?;
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let from = place(start, chars.len())?;
    let to = end.map_or(Ok(chars.len()), |end| place(end, chars.len()))?;
    Ok(Value::from(chars[from..to].iter().collect::<String>()))
}

fn trim<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(text(args, 0)?.trim().to_owned()))
}

/// Text in double quotes, such that an expression could hold it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn quote<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(quoted(text(args, 0)?)))
}

fn strings(list: &List<'_>) -> Result<Vec<String>> {
    let one = |value: Result<Value<'_>>| {
        let value = value?;
        let invalid = || EvalError::new(format!("join: invalid input: {}", crate::value::shown(&value)));
        value.as_str().map(str::to_owned).ok_or_else(invalid)
    };
    list.iter().map(one).collect()
}

fn join<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(Value::List(list)) = args.first() else { return Err(EvalError::no_overload()) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    Ok(Value::from(strings(list)?.join(separator)))
}

fn escape_key<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
}
