//! `"%s is %d".format([...])`.

use super::strings::quoted;
use super::{Row, conversions};
use crate::error::{EvalError, Result};
use crate::types::Type;
use crate::value::{List, Map, Value};

pub(crate) const ROWS: &[Row] = &[("format", "string.(list(dyn)) -> string", format)];

const PRECISION: usize = 6;

fn format<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::String(template), Value::List(list)] = args else { return Err(EvalError::no_overload()) };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template.as_str();
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let Some(verb) = after.chars().next() else { return Err(EvalError::new("unexpected end of string")) };
        rest = &after[verb.len_utf8()..];
        let value = list.get(next).ok_or_else(|| EvalError::new(format!("index {next} out of range")))??;
        next += 1;
        out.push_str(&formatted(verb, precision, &value)?);
    }
    out.push_str(rest);
    Ok(Value::from(out))
}

/// What is wrong with a template that is written out, given the types of what it shows: the place among the arguments,
/// if it is about one of them.
pub(crate) fn check(template: &str, types: &[Type]) -> std::result::Result<(), (Option<usize>, String)> {
    let mut next = 0;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let unparsed = |error: &str| (None, format!("could not parse formatting clause: {error}"));
        if rest.is_empty() {
            return Err((None, "unexpected end of string".to_owned()));
        }
        let (_, after) = precision(rest).map_err(|e| unparsed(&e.to_string()))?;
        let verb = after.chars().next().ok_or_else(|| unparsed("unexpected end of string"))?;
        rest = &after[verb.len_utf8()..];
        let (refusal, kinds) =
            clause(verb).ok_or_else(|| unparsed(&format!("unrecognized formatting clause \"{verb}\"")))?;
        let Some(ty) = types.get(next) else { return Err((None, format!("index {next} out of range"))) };
        if !ty.is_dyn_or_error() && !kinds.contains(&ty.name()) {
            return Err((Some(next), format!("error during formatting: {refusal}, was given {}", ty.name())));
        }
        next += 1;
    }
    if next < types.len() {
        let text = format!("too many arguments supplied to string.format (expected {next}, got {})", types.len());
        return Err((None, text));
    }
    Ok(())
}

/// What is said of types that a clause does not take, and those that it takes.
fn clause(verb: char) -> Option<(&'static str, &'static [&'static str])> {
    Some(match verb {
        's' => (STRINGS, TEXTS),
        'd' => ("decimal clause can only be used on integers", &["int", "uint"]),
        'f' => ("fixed-point clause can only be used on doubles", &["double", "string"]),
        'e' => ("scientific clause can only be used on doubles", &["double", "string"]),
        'b' => ("only integers and bools can be formatted as binary", &["int", "uint", "bool"]),
        'o' => ("octal clause can only be used on integers", &["int", "uint"]),
        'x' | 'X' => {
            ("only integers, byte buffers, and strings can be formatted as hex", &["int", "uint", "string", "bytes"])
        }
        _ => return None,
    })
}

const STRINGS: &str = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                       durations, and timestamps";

/// Types that can be written as they are.
const TEXTS: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "google.protobuf.Duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "google.protobuf.Timestamp",
    "type",
    "uint",
];

fn precision(text: &str) -> Result<(Option<usize>, &str)> {
    let Some(after) = text.strip_prefix('.') else { return Ok((None, text)) };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    if end == after.len() {
        let text = "error while parsing precision: could not find end of precision specifier";
        return Err(EvalError::new(text));
    }
    let digits = &after[..end];
    let number = digits.parse::<usize>().ok().filter(|n| *n <= 100);
    let number = number.ok_or_else(|| {
        EvalError::new(format!(
            "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing \
             {digits:?}: invalid syntax"
        ))
    })?;
    Ok((Some(number), &after[end..]))
}

fn formatted(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String> {
    let wrong = || {
        let refusal = clause(verb).map_or("", |(refusal, _)| refusal);
        EvalError::new(format!("{refusal}, was given {}", value.type_of().name()))
    };
    match verb {
        's' => string(value),
        'd' => match value {
            Value::Int(i) => Ok(i.to_string()),
            Value::Uint(u) => Ok(u.to_string()),
            _ => Err(wrong()),
        },
        'f' => match value {
            Value::Double(d) => Ok(format!("{d:.*}", precision.unwrap_or(PRECISION))),
            _ => Err(wrong()),
        },
        'e' => match value {
            Value::Double(d) => Ok(scientific(*d, precision.unwrap_or(PRECISION))),
            _ => Err(wrong()),
        },
        'b' => match value {
            Value::Int(i) => Ok(signed(*i, |n| format!("{n:b}"))),
            Value::Uint(u) => Ok(format!("{u:b}")),
            Value::Bool(b) => Ok(u8::from(*b).to_string()),
            _ => Err(wrong()),
        },
        'o' => match value {
            Value::Int(i) => Ok(signed(*i, |n| format!("{n:o}"))),
            Value::Uint(u) => Ok(format!("{u:o}")),
            _ => Err(wrong()),
        },
        'x' | 'X' => hexadecimal(verb, value).ok_or_else(wrong),
        other => Err(EvalError::new(format!("unrecognized formatting clause \"{other}\""))),
    }
}

fn hexadecimal(verb: char, value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text = match value {
        Value::Int(i) => signed(*i, |n| format!("{n:x}")),
        Value::Uint(u) => format!("{u:x}"),
        Value::String(text) => bytes(text.as_bytes()),
        Value::Bytes(b) => bytes(b),
        _ => return None,
    };
    Some(if verb == 'X' { text.to_uppercase() } else { text })
}

fn signed(number: i64, show: impl Fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", show(number.unsigned_abs()))
}

fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { "\u{207b}" } else { "" };
    let raised: String = format!("{:02}", exponent.abs()).chars().map(raised).collect();
    format!("{digits}\u{d7}10{sign}{raised}")
}

fn raised(digit: char) -> char {
    const DIGITS: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    digit.to_digit(10).map_or(digit, |d| DIGITS[d as usize])
}

fn string(value: &Value<'_>) -> Result<String> {
    match value {
        Value::List(list) => list_text(list),
        Value::Map(map) => map_text(map),
        Value::Null => Ok("null".to_owned()),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Duration(_)
        | Value::Type(_) => conversions::text(value),
        other => Err(EvalError::new(format!("{STRINGS}, was given {}", other.type_of().name()))),
    }
}

/// A value inside a list or map.
fn inner(value: &Value<'_>) -> Result<String> {
    Ok(match value {
        Value::String(text) => quoted(text),
        Value::Bytes(bytes) => format!("b{}", quoted(&String::from_utf8_lossy(bytes))),
        Value::Double(d) => format!("{d:.PRECISION$}"),
        Value::Timestamp(t) => format!("timestamp({})", quoted(&t.to_string())),
        Value::Duration(nanos) => format!("duration({})", quoted(&super::time::duration_text(*nanos))),
        Value::Type(ty) => format!("type({})", ty.name()),
        other => string(other)?,
    })
}

fn list_text(list: &List<'_>) -> Result<String> {
    let parts = list.iter().map(|v| inner(&v?)).collect::<Result<Vec<_>>>()?;
    Ok(format!("[{}]", parts.join(", ")))
}

fn map_text(map: &Map<'_>) -> Result<String> {
    let mut parts = Vec::with_capacity(map.len());
    for key in map.keys() {
        let value = map.get(&key)?.unwrap_or(Value::Null);
        parts.push((inner(&key)?, inner(&value)?));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(k, v)| format!("{k}:{v}")).collect();
    Ok(format!("{{{}}}", parts.join(", ")))
}
