//! From one type to another.

use std::rc::Rc;

use super::{Row, time};
use crate::error::{EvalError, Result};
use crate::value::{Value, double_text};

pub(crate) const ROWS: &[Row] = &[
    ("type", "(A) -> type(A)", type_of),
    ("dyn", "(A) -> dyn", same),
    ("bool", "(bool) -> bool", same),
    ("bool", "(string) -> bool", to_bool),
    ("bytes", "(bytes) -> bytes", same),
    ("bytes", "(string) -> bytes", to_bytes),
    ("double", "(double) -> double", same),
    ("double", "(int) -> double", to_double),
    ("double", "(string) -> double", to_double),
    ("double", "(uint) -> double", to_double),
    ("duration", "(duration) -> duration", same),
    ("duration", "(int) -> duration", to_duration),
    ("duration", "(string) -> duration", to_duration),
    ("int", "(int) -> int", same),
    ("int", "(double) -> int", to_int),
    ("int", "(duration) -> int", to_int),
    ("int", "(string) -> int", to_int),
    ("int", "(timestamp) -> int", to_int),
    ("int", "(uint) -> int", to_int),
    ("string", "(string) -> string", same),
    ("string", "(bool) -> string", to_string),
    ("string", "(bytes) -> string", to_string),
    ("string", "(double) -> string", to_string),
    ("string", "(duration) -> string", to_string),
    ("string", "(int) -> string", to_string),
    ("string", "(timestamp) -> string", to_string),
    ("string", "(uint) -> string", to_string),
    ("timestamp", "(timestamp) -> timestamp", same),
    ("timestamp", "(int) -> timestamp", to_timestamp),
    ("timestamp", "(string) -> timestamp", to_timestamp),
    ("uint", "(uint) -> uint", same),
    ("uint", "(double) -> uint", to_uint),
    ("uint", "(int) -> uint", to_uint),
    ("uint", "(string) -> uint", to_uint),
];

fn same<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    args.first().cloned().ok_or_else(EvalError::no_overload)
}

fn type_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let value = args.first().ok_or_else(EvalError::no_overload)?;
    Ok(Value::Type(Rc::new(value.type_of())))
}

fn cannot(from: &str, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args[0].as_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Value::Bool(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Value::Bool(false)),
        _ => Err(cannot("string", "bool")),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

#[expect(clippy::cast_precision_loss, reason = "the conversion is defined so")]
pub(crate) fn to_double<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Int(i) => Ok(Value::Double(*i as f64)),
        Value::Uint(u) => Ok(Value::Double(*u as f64)),
        Value::String(text) => text.parse().map(Value::Double).map_err(|_| cannot("string", "double")),
        _ => Err(EvalError::no_overload()),
    }
}

fn to_duration<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Int(i) => Ok(Value::Duration(*i)),
        Value::String(text) => {
            let nanos = time::parse_duration(text);
            nanos.map(Value::Duration).ok_or_else(|| cannot("string", "google.protobuf.Duration"))
        }
        _ => Err(EvalError::no_overload()),
    }
}

fn to_int<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let overflow = || EvalError::new("integer overflow");
    match &args[0] {
        #[expect(clippy::cast_possible_truncation, reason = "the range was looked at")]
        Value::Double(d) => {
            let fits = *d > -9.223_372_036_854_775e18 && *d < 9.223_372_036_854_775e18;
            if fits { Ok(Value::Int(*d as i64)) } else { Err(overflow()) }
        }
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        Value::String(text) => text.parse().map(Value::Int).map_err(|_| cannot("string", "int")),
        Value::Timestamp(moment) => Ok(Value::Int(moment.as_second())),
        Value::Uint(u) => i64::try_from(*u).map(Value::Int).map_err(|_| overflow()),
        _ => Err(EvalError::no_overload()),
    }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let overflow = || EvalError::new("unsigned integer overflow");
    match &args[0] {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was looked at")]
        Value::Double(d) => {
            let fits = *d >= 0.0 && *d < 1.844_674_407_370_955e19;
            if fits { Ok(Value::Uint(*d as u64)) } else { Err(overflow()) }
        }
        Value::Int(i) => u64::try_from(*i).map(Value::Uint).map_err(|_| overflow()),
        Value::String(text) => text.parse().map(Value::Uint).map_err(|_| cannot("string", "uint")),
        _ => Err(EvalError::no_overload()),
    }
}

/// A value as `string(value)` gives it.
pub(crate) fn text(value: &Value<'_>) -> Result<String> {
    Ok(match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => double_text(*d),
        Value::String(text) => text.as_str().to_owned(),
        Value::Duration(nanos) => time::duration_text(*nanos),
        Value::Timestamp(moment) => moment.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?,
        Value::Type(ty) => ty.name().to_owned(),
        _ => return Err(EvalError::no_overload()),
    })
}

fn to_string<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    text(&args[0]).map(Value::from)
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let moment = match &args[0] {
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds).ok().filter(|t| time::is_in_range(*t)),
        Value::String(text) => time::parse_timestamp(text),
        _ => return Err(EvalError::no_overload()),
    };
    moment.map(Value::Timestamp).ok_or_else(|| match &args[0] {
        Value::Int(_) => EvalError::new("timestamp overflow"),
        _ => cannot("string", "google.protobuf.Timestamp"),
    })
}
