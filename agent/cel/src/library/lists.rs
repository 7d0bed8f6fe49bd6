//! Lists and sets.

use std::cmp::Ordering;

use super::{Row, operators};
use crate::error::{EvalError, Result};
use crate::value::{List, Value, compare, equal};

pub(crate) const ROWS: &[Row] = &[
    ("isSorted", "list(int).() -> bool", is_sorted),
    ("isSorted", "list(uint).() -> bool", is_sorted),
    ("isSorted", "list(double).() -> bool", is_sorted),
    ("isSorted", "list(bool).() -> bool", is_sorted),
    ("isSorted", "list(duration).() -> bool", is_sorted),
    ("isSorted", "list(timestamp).() -> bool", is_sorted),
    ("isSorted", "list(string).() -> bool", is_sorted),
    ("isSorted", "list(bytes).() -> bool", is_sorted),
    ("sum", "list(int).() -> int", sum_int),
    ("sum", "list(uint).() -> uint", sum_uint),
    ("sum", "list(double).() -> double", sum_double),
    ("sum", "list(duration).() -> duration", sum_duration),
    ("max", "list(int).() -> int", max),
    ("max", "list(uint).() -> uint", max),
    ("max", "list(double).() -> double", max),
    ("max", "list(bool).() -> bool", max),
    ("max", "list(duration).() -> duration", max),
    ("max", "list(timestamp).() -> timestamp", max),
    ("max", "list(string).() -> string", max),
    ("max", "list(bytes).() -> bytes", max),
    ("min", "list(int).() -> int", min),
    ("min", "list(uint).() -> uint", min),
    ("min", "list(double).() -> double", min),
    ("min", "list(bool).() -> bool", min),
    ("min", "list(duration).() -> duration", min),
    ("min", "list(timestamp).() -> timestamp", min),
    ("min", "list(string).() -> string", min),
    ("min", "list(bytes).() -> bytes", min),
    ("indexOf", "list(A).(A) -> int", index_of),
    ("lastIndexOf", "list(A).(A) -> int", last_index_of),
    ("slice", "list(T).(int, int) -> list(T)", slice),
    ("flatten", "list(list(T)).() -> list(T)", flatten),
    ("flatten", "list(dyn).(int) -> list(dyn)", flatten),
    ("sort", "list(int).() -> list(int)", sort),
    ("sort", "list(uint).() -> list(uint)", sort),
    ("sort", "list(double).() -> list(double)", sort),
    ("sort", "list(bool).() -> list(bool)", sort),
    ("sort", "list(duration).() -> list(duration)", sort),
    ("sort", "list(timestamp).() -> list(timestamp)", sort),
    ("sort", "list(string).() -> list(string)", sort),
    ("sort", "list(bytes).() -> list(bytes)", sort),
    ("@sortByAssociatedKeys", "list(T).(list(int)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(uint)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(double)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(bool)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(duration)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(timestamp)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(string)) -> list(T)", sort_by),
    ("@sortByAssociatedKeys", "list(T).(list(bytes)) -> list(T)", sort_by),
    ("lists.range", "(int) -> list(int)", range),
    ("reverse", "list(T).() -> list(T)", reverse),
    ("distinct", "list(T).() -> list(T)", distinct),
    ("sets.contains", "(list(T), list(T)) -> bool", set_contains),
    ("sets.equivalent", "(list(T), list(T)) -> bool", set_equivalent),
    ("sets.intersects", "(list(T), list(T)) -> bool", set_intersects),
];

/// The longest list that `lists.range` makes.
const MAX_RANGE: i64 = 1_000_000;

fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::no_overload()),
    }
}

fn values<'a>(list: &List<'a>) -> Result<Vec<Value<'a>>> {
    list.iter().collect()
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    for pair in values(list(args)?)?.windows(2) {
        if compare(&pair[0], &pair[1])?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>> {
    list(args)?.iter().try_fold(zero, |sum, value| operators::add(&[sum, value?]))
}

fn sum_int<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    sum(args, Value::Int(0))
}

fn sum_uint<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    sum(args, Value::Uint(0))
}

fn sum_double<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    sum(args, Value::Double(0.0))
}

fn sum_duration<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    sum(args, Value::Duration(0))
}

fn best<'a>(args: &[Value<'a>], name: &str, replaces: Ordering) -> Result<Value<'a>> {
    let mut best: Option<Value<'a>> = None;
    for value in list(args)?.iter() {
        let value = value?;
        best = match best {
            Some(known) if compare(&known, &value)? != replaces => Some(known),
            _ => Some(value),
        };
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn max<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    best(args, "max", Ordering::Less)
}

fn min<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    best(args, "min", Ordering::Greater)
}

fn position<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let found = values(list(args)?)?.iter().position(|v| equal(v, &args[1]));
    Ok(position(found))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let found = values(list(args)?)?.iter().rposition(|v| equal(v, &args[1]));
    Ok(position(found))
}

fn slice<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return Err(EvalError::no_overload()) };
    let refuse = |text: &str| EvalError::new(format!("cannot slice({start}, {end}), {text}"));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return Err(refuse("negative indexes not supported"));
    };
    if from > to {
        return Err(refuse("start index must be less than or equal to end index"));
    }
    if to > list.len() {
        return Err(refuse(&format!("list is length {}", list.len())));
    }
    Ok(Value::list((from..to).filter_map(|i| list.get(i)).collect::<Result<_>>()?))
}

fn flatten<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let depth = match args.get(1) {
        None => 1,
        Some(Value::Int(depth)) => *depth,
        Some(_) => return Err(EvalError::no_overload()),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut flat = Vec::new();
    flatten_into(&mut flat, list(args)?, depth)?;
    Ok(Value::list(flat))
}

fn flatten_into<'a>(flat: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<()> {
    for value in list.iter() {
        match value? {
            Value::List(inner) if depth > 0 => flatten_into(flat, &inner, depth - 1)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn sort<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let keys = values(list(args)?)?;
    sorted(keys.clone(), &keys)
}

fn sort_by<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::List(list), Value::List(keys)] = args else { return Err(EvalError::no_overload()) };
    sorted(values(list)?, &values(keys)?)
}

fn sorted<'a>(values: Vec<Value<'a>>, keys: &[Value<'a>]) -> Result<Value<'a>> {
    let mut order: Vec<usize> = (0..values.len().min(keys.len())).collect();
    let mut failure = None;
    order.sort_by(|a, b| {
        compare(&keys[*a], &keys[*b]).unwrap_or_else(|error| {
            failure = Some(error);
            Ordering::Equal
        })
    });
    match failure {
        Some(_) => Err(EvalError::new("list elements must have the same type")),
        None => Ok(Value::list(order.into_iter().map(|i| values[i].clone()).collect())),
    }
}

fn range<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::Int(end)] = args else { return Err(EvalError::no_overload()) };
    if *end < 0 {
        return Err(EvalError::new(format!("lists.range: size must be non-negative: {end}")));
    }
    if *end > MAX_RANGE {
        return Err(EvalError::call_limit());
    }
    Ok(Value::list((0..*end).map(Value::Int).collect()))
}

fn reverse<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let mut values = values(list(args)?)?;
    values.reverse();
    Ok(Value::list(values))
}

fn distinct<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let mut kept: Vec<Value<'a>> = Vec::new();
    for value in list(args)?.iter() {
        let value = value?;
        if !kept.iter().any(|known| equal(known, &value)) {
            kept.push(value);
        }
    }
    Ok(Value::list(kept))
}

fn two<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v List<'a>, &'v List<'a>)> {
    match args {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn covers(list: &List<'_>, wanted: &List<'_>) -> Result<bool> {
    for value in wanted.iter() {
        if !list.contains(&value?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn set_contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (a, b) = two(args)?;
    covers(a, b).map(Value::Bool)
}

fn set_equivalent<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (a, b) = two(args)?;
    Ok(Value::Bool(covers(a, b)? && covers(b, a)?))
}

fn set_intersects<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (a, b) = two(args)?;
    for value in a.iter() {
        if b.contains(&value?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
