//! Values that may be absent.

use std::rc::Rc;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("optional.of", "(V) -> optional(V)", of),
    ("optional.ofNonZeroValue", "(V) -> optional(V)", of_non_zero),
    ("optional.none", "() -> optional(V)", none),
    ("value", "optional(V).() -> V", value),
    ("hasValue", "optional(V).() -> bool", has_value),
    ("or", "optional(V).(optional(V)) -> optional(V)", or),
    ("orValue", "optional(V).(V) -> V", or_value),
    ("first", "list(V).() -> optional(V)", first),
    ("last", "list(V).() -> optional(V)", last),
    ("optional.unwrap", "(list(optional(V))) -> list(V)", unwrap),
    ("unwrapOpt", "list(optional(V)).() -> list(V)", unwrap),
];

fn of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::some(args[0].clone()))
}

pub(crate) fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::Uint(u) => *u == 0,
        Value::Double(d) => *d == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        Value::Struct(object) => object.fields.is_empty(),
        _ => false,
    }
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    if is_zero(&args[0]) { Ok(Value::Optional(None)) } else { of(args) }
}

fn none<'a>(_: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Optional(None))
}

fn value<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Err(EvalError::new("optional.none() dereference")),
        _ => Err(EvalError::no_overload()),
    }
}

fn has_value<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_overload()),
    }
}

fn or<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Optional(Some(_)) => Ok(args[0].clone()),
        Value::Optional(None) => Ok(args[1].clone()),
        _ => Err(EvalError::no_overload()),
    }
}

fn or_value<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Ok(args[1].clone()),
        _ => Err(EvalError::no_overload()),
    }
}

fn end<'a>(args: &[Value<'a>], at: impl Fn(usize) -> usize) -> Result<Value<'a>> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_overload()) };
    let found = if list.is_empty() { None } else { list.get(at(list.len())).transpose()? };
    Ok(Value::Optional(found.map(Rc::new)))
}

fn first<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    end(args, |_| 0)
}

fn last<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    end(args, |length| length - 1)
}

fn unwrap<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_overload()) };
    let mut kept = Vec::new();
    for value in list.iter() {
        match value? {
            Value::Optional(Some(inner)) => kept.push((*inner).clone()),
            Value::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {} is not optional", crate::value::shown(&other)))),
        }
    }
    Ok(Value::list(kept))
}
