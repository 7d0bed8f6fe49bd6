//! Regular expressions. The evaluator calls [`run`] with patterns that were read with the expression.

use regex::Regex;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("matches", "(string, string) -> bool", matches),
    ("matches", "string.(string) -> bool", matches),
    ("find", "string.(string) -> string", find),
    ("findAll", "string.(string) -> list(string)", find_all),
    ("findAll", "string.(string, int) -> list(string)", find_all),
];

/// Functions whose second argument is a pattern.
pub(crate) fn takes_pattern(function: &str) -> bool {
    matches!(function, "matches" | "find" | "findAll")
}

fn compiled(args: &[Value<'_>]) -> Result<Regex> {
    let pattern = args.get(1).and_then(Value::as_str).ok_or_else(EvalError::no_overload)?;
    crate::regexp::compile(pattern).map_err(EvalError::new)
}

/// Runs one of these functions with a pattern that was read before.
pub(crate) fn run<'a>(function: &str, regex: &Regex, args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args.first().and_then(Value::as_str).ok_or_else(EvalError::no_overload)?;
    match function {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::from(regex.find(text).map_or(String::new(), |m| m.as_str().to_owned()))),
        _ => {
            let most = match args.get(2) {
                Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = regex.find_iter(text).take(most).map(|m| Value::from(m.as_str().to_owned()));
            Ok(Value::list(found.collect()))
        }
    }
}

fn matches<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    run("matches", &compiled(args)?, args)
}

fn find<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    run("find", &compiled(args)?, args)
}

fn find_all<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    run("findAll", &compiled(args)?, args)
}
