//! Resource quantities.

use api::quantity::{Amount, Format};

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("quantity", "(string) -> quantity", parse),
    ("isQuantity", "(string) -> bool", is_quantity),
    ("sign", "(quantity) -> int", sign),
    ("isGreaterThan", "quantity.(quantity) -> bool", is_greater),
    ("isLessThan", "quantity.(quantity) -> bool", is_less),
    ("compareTo", "quantity.(quantity) -> int", compare_to),
    ("asApproximateFloat", "quantity.() -> double", as_float),
    ("asInteger", "quantity.() -> int", as_integer),
    ("isInteger", "quantity.() -> bool", is_integer),
    ("add", "quantity.(quantity) -> quantity", add),
    ("add", "quantity.(int) -> quantity", add),
    ("sub", "quantity.(quantity) -> quantity", subtract),
    ("sub", "quantity.(int) -> quantity", subtract),
];

const NANO: i128 = 1_000_000_000;

/// A quantity, in 10^-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

fn read(text: &str) -> Result<Quantity> {
    let amount = Amount::parse(text).map_err(|e| EvalError::new(e.to_string()))?;
    Ok(Quantity(amount.nanos()))
}

fn parse<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    read(text).map(Value::Quantity)
}

fn is_quantity<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    Ok(Value::Bool(read(text).is_ok()))
}

fn one(args: &[Value<'_>], at: usize) -> Result<i128> {
    match args.get(at) {
        Some(Value::Quantity(quantity)) => Ok(quantity.0),
        Some(Value::Int(units)) => Ok(Amount::from_units(*units, Format::Decimal).nanos()),
        _ => Err(EvalError::no_overload()),
    }
}

fn sign<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(i64::try_from(one(args, 0)?.signum()).unwrap_or(0)))
}

fn is_greater<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(one(args, 0)? > one(args, 1)?))
}

fn is_less<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(one(args, 0)? < one(args, 1)?))
}

fn compare_to<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(one(args, 0)?.cmp(&one(args, 1)?) as i64))
}

#[expect(clippy::cast_precision_loss, reason = "the function's name says so")]
fn as_float<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Double(one(args, 0)? as f64 / NANO as f64))
}

fn whole(nanos: i128) -> Option<i64> {
    if nanos % NANO == 0 { i64::try_from(nanos / NANO).ok() } else { None }
}

fn as_integer<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let number = whole(one(args, 0)?).ok_or_else(|| EvalError::new("cannot convert value to integer"))?;
    Ok(Value::Int(number))
}

fn is_integer<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(whole(one(args, 0)?).is_some()))
}

fn add<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Quantity(Quantity(one(args, 0)?.saturating_add(one(args, 1)?))))
}

fn subtract<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Quantity(Quantity(one(args, 0)?.saturating_sub(one(args, 1)?))))
}
