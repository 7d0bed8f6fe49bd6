//! What calls may cost.

use crate::ast::{Call, Expr, Kind, Literal, op};
use crate::library::Overload;
use crate::types::Type;

use super::super::{CHECK_COST, LIST_COST, STRUCT_COST};
use super::size::{Estimate, Range};
use super::{Estimator, Info, type_size};

/// Reading a character of text.
const READ: f64 = 0.1;
/// A character of a pattern.
const PATTERN: f64 = 0.25;
/// The longest pattern of a named format.
const FORMAT_PATTERN: f64 = 128.0;

/// A call's own cost and the size of its result.
type Outcome = (Estimate, Option<Range>);

struct Args<'i> {
    function: &'i str,
    target: Option<(&'i Expr, &'i Info)>,
    args: Vec<(&'i Expr, &'i Info)>,
}

impl Args<'_> {
    fn size(&self, at: usize) -> Range {
        self.args.get(at).map_or(Range::UNKNOWN, |(_, info)| info.size_or_unknown())
    }

    fn target_size(&self) -> Option<Range> {
        self.target.map(|(_, info)| info.size_or_unknown())
    }
}

impl Estimator<'_> {
    pub(super) fn call(&mut self, expr: &Expr, call: &Call) -> Info {
        let infos: Vec<Info> = call.args.iter().map(|arg| self.visit(arg)).collect();
        if call.function == "dyn" && infos.len() == 1 {
            let cost = infos[0].cost.add(Estimate::fixed(1));
            return Info { cost, path: Vec::new(), ..infos[0].clone() };
        }
        if let Some(info) = logic(call, &infos) {
            return info;
        }
        let target = call.target.as_ref().map(|target| (target, self.visit(target)));
        let args = Args {
            function: &call.function,
            target: target.as_ref().map(|(expr, info)| (*expr, info)),
            args: call.args.iter().zip(&infos).collect(),
        };
        let mut cost: Option<Estimate> = None;
        let mut size: Option<Range> = None;
        let mut path = Vec::new();
        for overload in &call.overloads {
            let (own, made) = self.overload(overload, &args);
            cost = Some(cost.map_or(own, |known| known.union(own)));
            size = match (size, made) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if call.function == op::INDEX && call.target.is_none() {
                let step = if matches!(overload.params[0], Type::List(_)) { "@items" } else { "@values" };
                path = infos[0].path.clone();
                path.push(step.to_owned());
                size = infos[0].entry.map(|e| e.value);
            }
            size = size.or_else(|| self.size_at(&path)).or_else(|| type_size(&expr.ty));
        }
        let default = Estimate::fixed(u64::from(call.function == op::OPT_SELECT));
        let paid = infos.iter().map(|i| i.cost).chain(target.iter().map(|(_, i)| i.cost));
        let cost = paid.fold(cost.unwrap_or(default), Estimate::add);
        let entry = if call.function == op::ADD { joined(&infos) } else { None };
        Info { cost, path, size, entry }
    }

    fn overload(&self, overload: &Overload, args: &Args<'_>) -> Outcome {
        text(args).or_else(|| self.list(args)).or_else(|| network(overload, args)).unwrap_or_else(|| {
            let cost = operator(overload, args).or_else(|| small(args)).unwrap_or(Estimate::fixed(1));
            let size = match (args.function, &overload.params[..]) {
                (op::ADD, [Type::String | Type::Bytes | Type::List(_), _]) => Some(args.size(0).add(args.size(1))),
                _ => None,
            };
            (cost, size)
        })
    }

    fn list(&self, args: &Args<'_>) -> Option<Outcome> {
        let (target, info) = args.target?;
        let sized = info.size_or_unknown();
        match args.function {
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let Type::List(element) = &target.ty else { return Some((sized.part(READ), None)) };
                let mut each = Estimate::fixed(1);
                if matches!(**element, Type::String | Type::Bytes) {
                    each = each.add(self.element_size(info).part(READ));
                }
                Some((sized.times_cost(each), None))
            }
            "join" => {
                let mut size = match &target.ty {
                    Type::List(_) => sized.times(self.element_size(info)),
                    _ => Range { min: 0, max: 0 },
                };
                if !args.args.is_empty() {
                    let between = Range { min: sized.min.saturating_sub(1), max: sized.max.saturating_sub(1) };
                    size = size.add(args.size(0).times(between));
                }
                Some((size.part(READ), Some(size)))
            }
            "reverse" => Some((made(sized, 1.0), Some(sized))),
            "flatten" => {
                let depth = literal(args, 0).unwrap_or(1);
                Some((made(sized.times(Range::fixed(depth)), 1.0), Some(sized)))
            }
            "slice" => {
                let most = match (literal(args, 0), literal(args, 1)) {
                    (Some(start), Some(end)) => Range::fixed(end.saturating_sub(start)),
                    _ => sized,
                };
                Some((made(most, 1.0), Some(most)))
            }
            "sort" | "distinct" | "@sortByAssociatedKeys" => {
                let keys =
                    args.args.first().map_or((&target.ty, sized), |(arg, info)| (&arg.ty, info.size_or_unknown()));
                let is_text = matches!(keys.0, Type::List(e) if matches!(**e, Type::String | Type::Bytes));
                let factor = if is_text { 2.0 + READ } else { 2.0 };
                Some((made(keys.1.times(keys.1), factor), Some(sized)))
            }
            _ => None,
        }
    }

    fn element_size(&self, list: &Info) -> Range {
        let mut path = list.path.clone();
        if path.is_empty() {
            return Range::UNKNOWN;
        }
        path.push("@items".to_owned());
        self.size_at(&path).unwrap_or(Range::UNKNOWN)
    }
}

/// Making a list of so many elements, or going over so many to make one.
fn made(size: Range, factor: f64) -> Estimate {
    size.part(factor).add(Estimate::fixed(1 + LIST_COST))
}

fn literal(args: &Args<'_>, at: usize) -> Option<u64> {
    match &args.args.get(at)?.0.kind {
        Kind::Literal(Literal::Int(number)) => Some(u64::try_from(*number).unwrap_or(0)),
        _ => None,
    }
}

/// `&&`, `||` and `?:`: not everything is evaluated.
fn logic(call: &Call, infos: &[Info]) -> Option<Info> {
    match (call.function.as_str(), infos) {
        (op::AND | op::OR, [left, right]) => {
            let cost = Estimate { min: left.cost.min, max: left.cost.add(right.cost).max };
            Some(Info { cost, size: Some(Range::fixed(1)), ..Info::default() })
        }
        (op::CONDITIONAL, [condition, yes, no]) => {
            let cost = condition.cost.add(yes.cost.union(no.cost));
            let size = Some(yes.size_or_unknown().union(no.size_or_unknown()));
            let entry = yes.entry.zip(no.entry).map(|(a, b)| a.union(b));
            Some(Info { cost, path: Vec::new(), size, entry })
        }
        _ => None,
    }
}

fn joined(infos: &[Info]) -> Option<super::Entry> {
    let [a, b] = infos else { return None };
    a.entry.zip(b.entry).map(|(a, b)| a.union(b))
}

/// Functions of text.
fn text(args: &Args<'_>) -> Option<Outcome> {
    let target = args.target_size();
    Some(match (args.function, target) {
        ("lists.range", _) => {
            let size = literal(args, 0).map_or(Range::UNKNOWN, Range::fixed);
            (made(size, 1.0), Some(size))
        }
        ("url" | "jsonpatch.escapeKey", _) => (args.size(0).part(READ), Some(args.size(0))),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(size)) => (size.part(READ), Some(size)),
        ("replace", Some(size)) => {
            let made = replaced(size, args.size(0), args.size(1));
            (size.part(2.0 * READ), Some(made))
        }
        ("split", Some(size)) => {
            let limit = args.args.get(1).and_then(|(arg, _)| match &arg.kind {
                Kind::Literal(Literal::Int(limit)) => u64::try_from(*limit).ok(),
                _ => None,
            });
            (size.part(2.0 * READ), Some(Range { min: 0, max: limit.unwrap_or(size.max) }))
        }
        ("find" | "findAll", Some(size)) => {
            let cost = size.add(Range::fixed(1)).part(READ).times(args.size(0).part(PATTERN));
            (cost, Some(Range { min: 0, max: size.max }))
        }
        ("matches", Some(size)) => (size.add(Range::fixed(1)).part(READ).times(args.size(0).part(PATTERN)), None),
        ("contains", Some(size)) => (size.part(READ).times(args.size(0).part(READ)), None),
        ("format", Some(size)) => (size.part(READ), None),
        ("startsWith" | "endsWith", Some(_)) => (args.size(0).part(READ), None),
        ("strings.quote", _) => {
            let size = args.size(0);
            let made = Range { min: size.min + 2, max: size.max.saturating_mul(2).saturating_add(2) };
            (size.part(READ), Some(made))
        }
        ("quantity" | "isQuantity" | "semver" | "isSemver" | "cidr" | "isIP" | "isCIDR", _) => {
            (args.size(0).part(READ), None)
        }
        ("ip", None) => (args.size(0).part(READ), None),
        ("ip.isCanonical", _) => (args.size(0).part(2.0 * READ), None),
        _ => return None,
    })
}

/// The length of text after replacing.
fn replaced(whole: Range, old: Range, new: Range) -> Range {
    let (mut count, mut kept) = (Range { min: 0, max: 0 }, Range { min: 0, max: 0 });
    if old.min == 0 {
        count.max = whole.max.saturating_add(1);
        kept.max = whole.max;
    } else if new.max <= old.min {
        kept.max = whole.max;
    } else {
        count.max = whole.max.div_ceil(old.min);
    }
    if old.max == 0 {
        count.min = whole.min.saturating_add(1);
        kept.min = whole.min;
    } else if old.max <= new.min {
        kept.min = whole.min;
    } else {
        count.min = whole.min.div_ceil(old.max);
    }
    count.times(new).add(kept)
}

fn network(overload: &Overload, args: &Args<'_>) -> Option<Outcome> {
    let address = Range { min: 4, max: 16 };
    let from_text = || match overload.params.get(1) {
        Some(Type::String) => args.size(0).part(READ),
        _ => Estimate::fixed(0),
    };
    let cost = match args.function {
        "containsIP" => address.add(address).part(READ).add(from_text()),
        "containsCIDR" => {
            let base = address.add(address).part(READ).add(address.part(READ)).add(Estimate::fixed(1));
            base.add(from_text())
        }
        _ => return None,
    };
    Some((cost, None))
}

fn operator(overload: &Overload, args: &Args<'_>) -> Option<Estimate> {
    let compared = || {
        let max = args.size(0).max.min(args.size(1).max);
        Range { min: u64::from(max > 0), max }.part(READ)
    };
    match args.function {
        op::EQUALS if is_small(args) => Some(Estimate::fixed(1)),
        op::EQUALS | op::NOT_EQUALS => Some(compared()),
        op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS
            if matches!(overload.params[0], Type::String | Type::Bytes) =>
        {
            Some(compared())
        }
        op::ADD if matches!(overload.params[0], Type::String | Type::Bytes) => {
            Some(args.size(0).add(args.size(1)).part(READ))
        }
        op::IN if matches!(overload.params[1], Type::List(_)) => Some(args.size(1).part(1.0)),
        "bytes" | "string" if matches!(overload.params[0], Type::String | Type::Bytes) => {
            (overload.params[0] != overload.result).then(|| args.size(0).part(READ))
        }
        _ => None,
    }
}

/// Values that are compared at once.
fn is_small(args: &Args<'_>) -> bool {
    let is = |at: usize| {
        args.args.get(at).is_some_and(|(arg, _)| match &arg.ty {
            Type::Opaque(_) => true,
            Type::Object(object) => object.name.starts_with("kubernetes.") && object.fields.is_empty(),
            _ => false,
        })
    };
    is(0) && is(1)
}

fn small(args: &Args<'_>) -> Option<Estimate> {
    match args.function {
        "check" => Some(Estimate::fixed(CHECK_COST)),
        "fieldSelector" | "labelSelector" => {
            let size = args.size(0);
            let requirements = size.part(0.5);
            let each = LIST_COST + STRUCT_COST;
            let listed =
                Estimate { min: requirements.min.saturating_mul(each), max: requirements.max.saturating_mul(each) };
            Some(Estimate::fixed(LIST_COST).add(size.part(READ)).add(listed))
        }
        "validate" => {
            let read = args.size(0).part(READ);
            Some(read.part(FORMAT_PATTERN * PATTERN))
        }
        "sets.contains" | "sets.intersects" => Some(args.size(0).times(args.size(1)).part(1.0).add(Estimate::fixed(1))),
        "sets.equivalent" => Some(args.size(0).times(args.size(1)).part(2.0).add(Estimate::fixed(1))),
        _ => None,
    }
}
