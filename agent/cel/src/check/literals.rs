//! Arguments that are written out are looked at when the expression is read, not when it is evaluated.

use crate::ast::{Expr, Kind, Literal};
use crate::library::time;

/// Looks at every duration, timestamp and pattern that is written out.
pub(super) fn validate(expr: &mut Expr, problems: &mut Vec<(u32, String)>) {
    if let Kind::Call(call) = &expr.kind {
        let is_wrong = |arg: &Expr, function: &str| {
            let Kind::Literal(Literal::String(text)) = &arg.kind else { return false };
            match function {
                "duration" => time::parse_duration(text).is_none(),
                "timestamp" => time::parse_timestamp(text).is_none(),
                _ => regex::Regex::new(text).is_err(),
            }
        };
        let arg = match call.function.as_str() {
            "duration" | "timestamp" if call.args.len() == 1 => call.args.first(),
            "matches" => call.args.last(),
            _ => None,
        };
        if let Some(arg) = arg.filter(|arg| is_wrong(arg, &call.function)) {
            problems.push((arg.at, format!("invalid {} argument", call.function)));
        }
    }
    for child in super::children_mut(expr) {
        validate(child, problems);
    }
}
