//! What expressions cost: counted while they are evaluated, and estimated before.

mod estimate;

use crate::ast::{Expr, Kind};
use crate::value::{List, Value};

pub use estimate::Estimate;
pub(crate) use estimate::estimate;

pub(crate) const LIST_COST: u64 = 10;
pub(crate) const MAP_COST: u64 = 30;
pub(crate) const STRUCT_COST: u64 = 40;
/// An authorizer's check: two of them fit one evaluation.
pub(crate) const CHECK_COST: u64 = 350_000;

/// How the cost of a call is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The same for all arguments.
    Fixed(u64),
    /// The first argument's text is read once, or so many times.
    Reads(u64),
    /// Every element of the list is looked at.
    Traverses,
    /// The shorter of both is compared.
    Compares,
    /// Both are copied.
    Joins,
    /// Every element of the second argument is compared.
    Searches,
    /// A pattern is run.
    Matches,
    /// Text is searched for other text.
    Contains,
    /// The result's text is made.
    Makes,
    /// A selector is parsed.
    Selects,
    /// A network is compared with an address, or (true) another network.
    Covers(bool),
    /// A named format's pattern is run.
    Validates,
    /// Every element of an argument is compared with every other.
    Sorts(usize),
    /// A list is made.
    Lists,
    /// Each element of one list is compared with each of the other.
    Products,
}

impl Rule {
    pub(crate) fn of(function: &str, is_member: bool) -> Self {
        match function {
            "check" => Self::Fixed(CHECK_COST),
            "fieldSelector" | "labelSelector" => Self::Selects,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Self::Traverses,
            "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver"
            | "startsWith"
            | "endsWith"
            | "bytes"
            | "strings.quote" => Self::Reads(1),
            "ip" if !is_member => Self::Reads(1),
            "format" if is_member => Self::Reads(1),
            "replace" | "split" | "ip.isCanonical" => Self::Reads(2),
            "join" => Self::Makes,
            "find" | "findAll" | "matches" => Self::Matches,
            "contains" => Self::Contains,
            "containsIP" => Self::Covers(false),
            "containsCIDR" => Self::Covers(true),
            "validate" => Self::Validates,
            "@in" => Self::Searches,
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => Self::Compares,
            "_+_" => Self::Joins,
            "sets.contains" | "sets.equivalent" | "sets.intersects" => Self::Products,
            "sort" | "distinct" => Self::Sorts(0),
            "@sortByAssociatedKeys" => Self::Sorts(1),
            "lists.range" | "slice" | "flatten" | "reverse" => Self::Lists,
            _ => Self::Fixed(1),
        }
    }

    /// What is charged before the call.
    pub(crate) fn before(self, args: &[Value<'_>]) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::size);
        match self {
            Self::Fixed(cost) => cost,
            Self::Reads(times) => tenth(size(0).saturating_mul(times)),
            Self::Traverses => args.first().map_or(1, traversal),
            Self::Compares => match (&args[0], &args[1]) {
                (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_), _) => tenth(size(0).min(size(1))),
                _ => 1,
            },
            Self::Joins => match &args[0] {
                Value::String(_) | Value::Bytes(_) => tenth(size(0) + size(1)),
                _ => 1,
            },
            Self::Searches => match &args[1] {
                Value::List(_) => size(1),
                _ => 1,
            },
            Self::Matches => tenth(1 + size(0)) * size(1).div_ceil(4),
            Self::Contains => tenth(size(0)) * tenth(size(1)),
            Self::Selects => LIST_COST + tenth(size(1)) + (size(1).saturating_mul(LIST_COST + STRUCT_COST)).div_ceil(2),
            Self::Covers(is_network) => {
                let text = if matches!(args[1], Value::String(_)) { tenth(size(1)) } else { 0 };
                let more = if is_network { tenth(size(0)) + 1 } else { 0 };
                tenth(size(0) * 2) + more + text
            }
            Self::Validates => match &args[0] {
                Value::Format(format) => tenth(1 + size(1)) * format.pattern_length.div_ceil(4),
                _ => 1,
            },
            Self::Products => size(0).saturating_mul(size(1)),
            Self::Sorts(at) => 1 + LIST_COST + size(at).saturating_mul(size(at)).saturating_mul(2),
            Self::Lists => 1 + LIST_COST,
            Self::Makes => 0,
        }
    }

    /// What is charged when the result is there.
    pub(crate) fn after(self, result: &Value<'_>) -> u64 {
        match self {
            Self::Makes => tenth(result.size() * 2),
            Self::Lists => result.size(),
            _ => 0,
        }
    }
}

/// A tenth, rounded up: what it costs to read so much text.
fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => text.len() as u64 / 10,
        Value::Bytes(bytes) => bytes.len() as u64 / 10,
        Value::List(List::Shared(list)) => list.iter().map(traversal).sum(),
        Value::List(list) => list.iter().map(|v| v.as_ref().map_or(1, traversal)).sum(),
        Value::Map(map) => map.len() as u64 * 2,
        _ => 1,
    }
}

/// Whether an expression refers to a variable.
pub(crate) fn uses(expr: &Expr, variable: &str) -> bool {
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(name) => name == variable || name.strip_prefix(variable).is_some_and(|rest| rest.starts_with('.')),
        Kind::Select(select) => uses(&select.operand, variable),
        Kind::Call(call) => call.target.iter().chain(&call.args).any(|e| uses(e, variable)),
        Kind::List(elements) => elements.iter().any(|e| uses(&e.value, variable)),
        Kind::Map(entries) => entries.iter().any(|e| uses(&e.key, variable) || uses(&e.value, variable)),
        Kind::Struct(object) => object.fields.iter().any(|f| uses(&f.value, variable)),
        Kind::Fold(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].iter().any(|e| uses(e, variable))
        }
    }
}
