//! Operators, sizes and membership. Logic and equality are the evaluator's own.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};

use super::{Row, time};
use crate::error::{EvalError, Result};
use crate::value::{Key, List, Map, Value, compare, equal, shown};

pub(crate) const ROWS: &[Row] = &[
    ("_?_:_", "(bool, A, A) -> A", own),
    ("_&&_", "(bool, bool) -> bool", own),
    ("_||_", "(bool, bool) -> bool", own),
    ("!_", "(bool) -> bool", not),
    ("@not_strictly_false", "(bool) -> bool", own),
    ("_==_", "(A, A) -> bool", equals),
    ("_!=_", "(A, A) -> bool", not_equals),
    ("_+_", "(bytes, bytes) -> bytes", add),
    ("_+_", "(double, double) -> double", add),
    ("_+_", "(duration, duration) -> duration", add),
    ("_+_", "(duration, timestamp) -> timestamp", add),
    ("_+_", "(timestamp, duration) -> timestamp", add),
    ("_+_", "(int, int) -> int", add),
    ("_+_", "(list(A), list(A)) -> list(A)", add),
    ("_+_", "(string, string) -> string", add),
    ("_+_", "(uint, uint) -> uint", add),
    ("_-_", "(double, double) -> double", subtract),
    ("_-_", "(duration, duration) -> duration", subtract),
    ("_-_", "(int, int) -> int", subtract),
    ("_-_", "(timestamp, duration) -> timestamp", subtract),
    ("_-_", "(timestamp, timestamp) -> duration", subtract),
    ("_-_", "(uint, uint) -> uint", subtract),
    ("_*_", "(double, double) -> double", multiply),
    ("_*_", "(int, int) -> int", multiply),
    ("_*_", "(uint, uint) -> uint", multiply),
    ("_/_", "(double, double) -> double", divide),
    ("_/_", "(int, int) -> int", divide),
    ("_/_", "(uint, uint) -> uint", divide),
    ("_%_", "(int, int) -> int", modulo),
    ("_%_", "(uint, uint) -> uint", modulo),
    ("-_", "(double) -> double", negate),
    ("-_", "(int) -> int", negate),
    ("_[_]", "(list(A), int) -> A", index),
    ("_[_]", "(map(A, B), A) -> B", index),
    ("_[_]", "(optional(list(A)), int) -> optional(A)", opt_index),
    ("_[_]", "(optional(map(A, B)), A) -> optional(B)", opt_index),
    ("_[?_]", "(list(A), int) -> optional(A)", opt_index),
    ("_[?_]", "(optional(list(A)), int) -> optional(A)", opt_index),
    ("_[?_]", "(map(A, B), A) -> optional(B)", opt_index),
    ("_[?_]", "(optional(map(A, B)), A) -> optional(B)", opt_index),
    ("@in", "(A, list(A)) -> bool", contains),
    ("@in", "(A, map(A, B)) -> bool", contains),
    ("size", "(bytes) -> int", size),
    ("size", "bytes.() -> int", size),
    ("size", "(list(A)) -> int", size),
    ("size", "list(A).() -> int", size),
    ("size", "(map(A, B)) -> int", size),
    ("size", "map(A, B).() -> int", size),
    ("size", "(string) -> int", size),
    ("size", "string.() -> int", size),
    ("cel.@mapInsert", "(map(K, V), K, V) -> map(K, V)", insert),
    ("cel.@mapInsert", "(map(K, V), map(K, V)) -> map(K, V)", insert_all),
    ("_<_", "(bool, bool) -> bool", less),
    ("_<_", "(int, int) -> bool", less),
    ("_<_", "(int, double) -> bool", less),
    ("_<_", "(int, uint) -> bool", less),
    ("_<_", "(uint, uint) -> bool", less),
    ("_<_", "(uint, double) -> bool", less),
    ("_<_", "(uint, int) -> bool", less),
    ("_<_", "(double, double) -> bool", less),
    ("_<_", "(double, int) -> bool", less),
    ("_<_", "(double, uint) -> bool", less),
    ("_<_", "(string, string) -> bool", less),
    ("_<_", "(bytes, bytes) -> bool", less),
    ("_<_", "(timestamp, timestamp) -> bool", less),
    ("_<_", "(duration, duration) -> bool", less),
    ("_<=_", "(bool, bool) -> bool", less_equals),
    ("_<=_", "(int, int) -> bool", less_equals),
    ("_<=_", "(int, double) -> bool", less_equals),
    ("_<=_", "(int, uint) -> bool", less_equals),
    ("_<=_", "(uint, uint) -> bool", less_equals),
    ("_<=_", "(uint, double) -> bool", less_equals),
    ("_<=_", "(uint, int) -> bool", less_equals),
    ("_<=_", "(double, double) -> bool", less_equals),
    ("_<=_", "(double, int) -> bool", less_equals),
    ("_<=_", "(double, uint) -> bool", less_equals),
    ("_<=_", "(string, string) -> bool", less_equals),
    ("_<=_", "(bytes, bytes) -> bool", less_equals),
    ("_<=_", "(timestamp, timestamp) -> bool", less_equals),
    ("_<=_", "(duration, duration) -> bool", less_equals),
    ("_>_", "(bool, bool) -> bool", greater),
    ("_>_", "(int, int) -> bool", greater),
    ("_>_", "(int, double) -> bool", greater),
    ("_>_", "(int, uint) -> bool", greater),
    ("_>_", "(uint, uint) -> bool", greater),
    ("_>_", "(uint, double) -> bool", greater),
    ("_>_", "(uint, int) -> bool", greater),
    ("_>_", "(double, double) -> bool", greater),
    ("_>_", "(double, int) -> bool", greater),
    ("_>_", "(double, uint) -> bool", greater),
    ("_>_", "(string, string) -> bool", greater),
    ("_>_", "(bytes, bytes) -> bool", greater),
    ("_>_", "(timestamp, timestamp) -> bool", greater),
    ("_>_", "(duration, duration) -> bool", greater),
    ("_>=_", "(bool, bool) -> bool", greater_equals),
    ("_>=_", "(int, int) -> bool", greater_equals),
    ("_>=_", "(int, double) -> bool", greater_equals),
    ("_>=_", "(int, uint) -> bool", greater_equals),
    ("_>=_", "(uint, uint) -> bool", greater_equals),
    ("_>=_", "(uint, double) -> bool", greater_equals),
    ("_>=_", "(uint, int) -> bool", greater_equals),
    ("_>=_", "(double, double) -> bool", greater_equals),
    ("_>=_", "(double, int) -> bool", greater_equals),
    ("_>=_", "(double, uint) -> bool", greater_equals),
    ("_>=_", "(string, string) -> bool", greater_equals),
    ("_>=_", "(bytes, bytes) -> bool", greater_equals),
    ("_>=_", "(timestamp, timestamp) -> bool", greater_equals),
    ("_>=_", "(duration, duration) -> bool", greater_equals),
];

/// What the evaluator does by itself, since not all arguments are always evaluated.
fn own<'a>(_: &[Value<'a>]) -> Result<Value<'a>> {
    Err(EvalError::no_overload())
}

fn not<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(equal(&args[0], &args[1])))
}

fn not_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(!equal(&args[0], &args[1])))
}

fn ordered<'a>(args: &[Value<'a>], wanted: fn(Ordering) -> bool) -> Result<Value<'a>> {
    compare(&args[0], &args[1]).map(|order| Value::Bool(wanted(order)))
}

fn less<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    ordered(args, Ordering::is_ge)
}

fn int_overflow() -> EvalError {
    EvalError::new("integer overflow")
}

fn uint_overflow() -> EvalError {
    EvalError::new("unsigned integer overflow")
}

fn duration_overflow() -> EvalError {
    EvalError::new("duration overflow")
}

fn shifted<'a>(moment: Timestamp, nanos: i64) -> Result<Value<'a>> {
    let moved = moment.checked_add(SignedDuration::from_nanos(nanos)).ok();
    let moved = moved.filter(|t| time::is_in_range(*t));
    moved.map(Value::Timestamp).ok_or_else(|| EvalError::new("timestamp overflow"))
}

pub(crate) fn add<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_add(*b).map(Value::Int).ok_or_else(int_overflow),
        [Value::Uint(a), Value::Uint(b)] => a.checked_add(*b).map(Value::Uint).ok_or_else(uint_overflow),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => Ok(Value::from(format!("{}{}", a.as_str(), b.as_str()))),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        [Value::Duration(a), Value::Duration(b)] => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(duration_overflow)
        }
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => shifted(*t, *d),
        [Value::List(a), Value::List(b)] => {
            if let List::Json(_, Some(schema)) = a
                && let Some(joined) = schema.join(a, b)
            {
                return joined.map(Value::list);
            }
            Ok(Value::list(a.iter().chain(b.iter()).collect::<Result<_>>()?))
        }
        _ => Err(EvalError::no_overload()),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_sub(*b).map(Value::Int).ok_or_else(int_overflow),
        [Value::Uint(a), Value::Uint(b)] => a.checked_sub(*b).map(Value::Uint).ok_or_else(uint_overflow),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(duration_overflow)
        }
        [Value::Timestamp(t), Value::Duration(d)] => shifted(*t, d.checked_neg().ok_or_else(duration_overflow)?),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map(Value::Duration).map_err(|_| duration_overflow())
        }
        _ => Err(EvalError::no_overload()),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_mul(*b).map(Value::Int).ok_or_else(int_overflow),
        [Value::Uint(a), Value::Uint(b)] => a.checked_mul(*b).map(Value::Uint).ok_or_else(uint_overflow),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => a.checked_div(*b).map(Value::Int).ok_or_else(int_overflow),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => a.checked_rem(*b).map(Value::Int).ok_or_else(int_overflow),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::Int(a)] => a.checked_neg().map(Value::Int).ok_or_else(int_overflow),
        [Value::Double(a)] => Ok(Value::Double(-a)),
        _ => Err(EvalError::no_overload()),
    }
}

/// The place in a list that a number names.
fn place(index: &Value<'_>) -> Result<i64> {
    match index {
        Value::Int(i) => Ok(*i),
        Value::Uint(u) => i64::try_from(*u).map_err(|_| int_overflow()),
        #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and saturates")]
        Value::Double(d) if d.fract() == 0.0 => Ok(*d as i64),
        Value::Double(d) => Err(EvalError::new(format!("unsupported index value {d} in list"))),
        other => Err(EvalError::new(format!("unsupported index type '{}' in list", other.type_of().name()))),
    }
}

fn find<'a>(target: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>> {
    match target {
        Value::List(list) => usize::try_from(place(key)?).ok().and_then(|i| list.get(i)).transpose(),
        Value::Map(map) => map.get(key),
        Value::Optional(Some(inner)) => find(inner, key),
        other => match key {
            Value::String(name) => other.field(name),
            _ => Ok(None),
        },
    }
}

pub(crate) fn index<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [target, key] = args else { return Err(EvalError::no_overload()) };
    if matches!(target, Value::Optional(_)) {
        return opt_index(args);
    }
    find(target, key)?.ok_or_else(|| match target {
        Value::List(_) => EvalError::new(format!("index out of bounds: {}", shown(key))),
        _ => EvalError::new(format!("no such key: {}", shown(key))),
    })
}

pub(crate) fn opt_index<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [target, key] = args else { return Err(EvalError::no_overload()) };
    Ok(Value::Optional(find(target, key)?.map(Rc::new)))
}

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [item, Value::List(list)] => list.contains(item).map(Value::Bool),
        [item, Value::Map(map)] => Ok(Value::Bool(map.get(item)?.is_some())),
        _ => Err(EvalError::no_overload()),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    match args {
        [Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)] => {
            Ok(Value::Int(i64::try_from(args[0].size()).unwrap_or(i64::MAX)))
        }
        _ => Err(EvalError::no_overload()),
    }
}

type Entries<'a> = BTreeMap<Key, (Value<'a>, Value<'a>)>;

fn entries<'a>(map: &Map<'a>) -> Result<Entries<'a>> {
    match map {
        Map::Shared(entries) => Ok((**entries).clone()),
        Map::Json(..) => {
            let mut entries = Entries::new();
            for key in map.keys() {
                let value = map.get(&key)?.unwrap_or(Value::Null);
                put(&mut entries, key, value)?;
            }
            Ok(entries)
        }
    }
}

pub(crate) fn put<'a>(entries: &mut Entries<'a>, key: Value<'a>, value: Value<'a>) -> Result<()> {
    let Some(name) = Key::of(&key) else { return Err(EvalError::new("unsupported key type")) };
    if entries.contains_key(&name) {
        return Err(EvalError::new(format!("insert failed: key {} already exists", shown(&key))));
    }
    entries.insert(name, (key, value));
    Ok(())
}

fn insert<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::Map(map), key, value] = args else { return Err(EvalError::no_overload()) };
    let mut entries = entries(map)?;
    put(&mut entries, key.clone(), value.clone())?;
    Ok(Value::Map(Map::Shared(Rc::new(entries))))
}

fn insert_all<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::Map(map), Value::Map(more)] = args else { return Err(EvalError::no_overload()) };
    let mut all = entries(map)?;
    for key in more.keys() {
        let value = more.get(&key)?.unwrap_or(Value::Null);
        put(&mut all, key, value)?;
    }
    Ok(Value::Map(Map::Shared(Rc::new(all))))
}
