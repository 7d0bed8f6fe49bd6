//! Arguments that are written out are looked at when the expression is read, not when it is evaluated.

use crate::ast::{Call, Expr, Kind, Literal};
use crate::library::{formatting, time};
use crate::types::Type;
use crate::value::Value;

/// Looks at every duration, timestamp, pattern and template that is written out.
pub(super) fn validate(expr: &mut Expr, problems: &mut Vec<(u32, String)>) {
    if let Kind::Call(call) = &expr.kind {
        let is_wrong = |arg: &Expr, function: &str| match (&arg.kind, function) {
            (Kind::Literal(Literal::String(text)), "duration") => time::parse_duration(text).is_none(),
            (Kind::Literal(Literal::Int(_)), "duration") => true,
            (Kind::Literal(Literal::String(text)), "timestamp") => time::parse_timestamp(text).is_none(),
            (Kind::Literal(Literal::String(text)), "matches") => crate::regexp::compile(text).is_err(),
            _ => false,
        };
        let arg = match call.function.as_str() {
            "duration" | "timestamp" if call.args.len() == 1 => call.args.first(),
            "matches" => call.args.last(),
            _ => None,
        };
        if let Some(arg) = arg.filter(|arg| is_wrong(arg, &call.function)) {
            problems.push((arg.at, format!("invalid {} argument", call.function)));
        }
        problems.extend(template(expr.at, call));
    }
    for child in super::children_mut(expr) {
        validate(child, problems);
    }
}

/// Looks whether all members of each list and map that is written out are of one type, as far as nobody asked for a
/// mixture: templates do.
pub(super) fn alike(expr: &mut Expr, problems: &mut Vec<(u32, String)>) {
    match &expr.kind {
        Kind::Call(call) if call.function == "format" => return,
        Kind::List(elements) => {
            let members = elements.iter().map(|e| (&e.value, e.is_optional));
            problems.extend(strangers(members).into_iter().take(1));
        }
        Kind::Map(entries) => {
            problems.extend(strangers(entries.iter().map(|e| (&e.key, false))));
            problems.extend(strangers(entries.iter().map(|e| (&e.value, e.is_optional))));
        }
        Kind::Literal(_) | Kind::Ident(_) | Kind::Select(_) | Kind::Call(_) | Kind::Struct(_) | Kind::Fold(_) => {}
    }
    for child in super::children_mut(expr) {
        alike(child, problems);
    }
}

/// Those that are of another type than the first.
fn strangers<'e>(members: impl Iterator<Item = (&'e Expr, bool)>) -> Vec<(u32, String)> {
    let inner = |(member, is_optional): (&'e Expr, bool)| match &member.ty {
        Type::Optional(inner) if is_optional => (member.at, &**inner),
        ty => (member.at, ty),
    };
    let mut members = members.map(inner);
    let Some((_, first)) = members.next() else { return Vec::new() };
    let others = members.filter(|(_, ty)| *ty != first);
    others.map(|(at, ty)| (at, format!("expected type '{first}' but found '{ty}'"))).collect()
}

fn template(call_at: u32, call: &Call) -> Option<(u32, String)> {
    let target = call.target.as_ref().filter(|_| call.function == "format")?;
    let Kind::Literal(Literal::String(text)) = &target.kind else { return None };
    let list = call.args.first()?;
    let Kind::List(elements) = &list.kind else { return None };
    let types: Vec<Type> = elements.iter().map(|e| e.value.ty.clone()).collect();
    let (place, problem) = formatting::check(text, &types).err()?;
    let at = place.and_then(|i| elements.get(i)).map_or(call_at, |e| e.value.at);
    Some((at, problem))
}

/// Conversions of what is written out are done, and its patterns read, when the program is made; the first that fails
/// is what is wrong.
pub(super) fn convert(expr: &mut Expr) -> Option<String> {
    const CONVERSIONS: [&str; 9] =
        ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "type", "uint"];
    if let Kind::Call(call) = &expr.kind
        && CONVERSIONS.contains(&call.function.as_str())
        && let [arg] = &call.args[..]
        && let Some(value) = constant(arg)
    {
        let result = match call.overloads.iter().find(|o| o.accepts(std::slice::from_ref(&value))) {
            Some(overload) => (overload.run)(&[value]).err().map(|e| e.to_string()),
            None => Some(format!("no such overload: {}({})", call.function, value.type_of().name())),
        };
        if result.is_some() {
            return result;
        }
    }
    if let Kind::Call(call) = &expr.kind
        && let ("find" | "findAll", Some(pattern)) = (call.function.as_str(), call.args.first())
        && let Kind::Literal(Literal::String(text)) = &pattern.kind
        && let Err(why) = crate::regexp::compile(text)
    {
        return Some(why);
    }
    super::children_mut(expr).into_iter().find_map(convert)
}

fn constant(expr: &Expr) -> Option<Value<'_>> {
    let Kind::Literal(literal) = &expr.kind else { return None };
    Some(match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(i) => Value::Int(*i),
        Literal::Uint(u) => Value::Uint(*u),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(text) => Value::from(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    })
}
