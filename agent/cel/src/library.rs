//! The functions, as tables of signatures. A signature reads `(int, int) -> int`, or `string.(int) -> string` for a
//! function that is called on a value; single capitals stand for any type.

pub(crate) mod authorizer;
pub(crate) mod conversions;
pub(crate) mod format;
pub(crate) mod formatting;
pub(crate) mod lists;
pub(crate) mod network;
pub(crate) mod operators;
pub(crate) mod optionals;
pub(crate) mod patterns;
pub(crate) mod quantity;
pub(crate) mod semver;
pub(crate) mod strings;
pub(crate) mod time;
pub(crate) mod url;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::error::Result;
use crate::types::Type;
use crate::value::Value;

/// What a function does.
pub(crate) type Implementation = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>>;

/// A row of a library: name, signature, implementation.
pub(crate) type Row = (&'static str, &'static str, Implementation);

/// All overloads of one name.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
}

/// One signature of a function.
pub(crate) struct Overload {
    pub(crate) signature: &'static str,
    pub(crate) is_member: bool,
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) type_params: Vec<Arc<str>>,
    pub(crate) run: Implementation,
}

impl fmt::Debug for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.signature)
    }
}

impl Overload {
    /// Whether values are of the kinds that the signature says. Elements of lists and maps are not looked at.
    pub(crate) fn accepts(&self, args: &[Value<'_>]) -> bool {
        args.len() == self.params.len() && args.iter().zip(&self.params).all(|(arg, param)| accepts(param, arg))
    }
}

fn accepts(param: &Type, value: &Value<'_>) -> bool {
    match param {
        Type::Dyn | Type::Any | Type::Param(_) => true,
        Type::Bool => matches!(value, Value::Bool(_)),
        Type::Int => matches!(value, Value::Int(_)),
        Type::Uint => matches!(value, Value::Uint(_)),
        Type::Double => matches!(value, Value::Double(_)),
        Type::String => matches!(value, Value::String(_)),
        Type::Bytes => matches!(value, Value::Bytes(_)),
        Type::Timestamp => matches!(value, Value::Timestamp(_)),
        Type::Duration => matches!(value, Value::Duration(_)),
        Type::List(element) => match value {
            // The first element tells apart overloads on lists of different things.
            Value::List(list) => match list.get(0) {
                Some(Ok(first)) => accepts(element, &first),
                _ => true,
            },
            _ => false,
        },
        Type::Map(..) => matches!(value, Value::Map(_)),
        Type::Optional(_) => matches!(value, Value::Optional(_)),
        Type::Type(_) => matches!(value, Value::Type(_)),
        other => value.type_of() == *other,
    }
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let tables: [&[Row]; 14] = [
        operators::ROWS,
        conversions::ROWS,
        strings::ROWS,
        formatting::ROWS,
        lists::ROWS,
        patterns::ROWS,
        time::ROWS,
        optionals::ROWS,
        quantity::ROWS,
        semver::ROWS,
        network::ROWS,
        url::ROWS,
        format::ROWS,
        authorizer::ROWS,
    ];
    let mut functions = HashMap::new();
    for (name, signature, run) in tables.into_iter().flatten() {
        let function = functions.entry(*name).or_insert_with(|| Function { name, overloads: Vec::new() });
        function.overloads.push(Overload::parse(signature, *run));
    }
    functions
});

/// All functions by name.
pub(crate) fn functions() -> &'static HashMap<&'static str, Function> {
    &FUNCTIONS
}

impl Overload {
    fn parse(signature: &'static str, run: Implementation) -> Self {
        let (call, result) = signature.split_once(" -> ").unwrap_or((signature, "dyn"));
        let open = if call.starts_with('(') { 0 } else { call.find(".(").map_or(0, |at| at + 1) };
        let target = call[..open].strip_suffix('.');
        let inner = &call[open + 1..call.len() - 1];
        let mut type_params = Vec::new();
        let mut params = Vec::new();
        params.extend(target.map(|t| parse_type(t, &mut type_params)));
        params.extend(split(inner).into_iter().map(|t| parse_type(t, &mut type_params)));
        let result = parse_type(result, &mut type_params);
        Self { signature, is_member: target.is_some(), params, result, type_params, run }
    }
}

/// The parts of a list, at its commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

fn parse_type(text: &str, params: &mut Vec<Arc<str>>) -> Type {
    if let Some((name, inner)) = text.split_once('(') {
        let inner = split(inner.strip_suffix(')').unwrap_or(inner));
        let mut types = inner.into_iter().map(|t| parse_type(t, params));
        let mut next = || types.next().unwrap_or(Type::Dyn);
        return match name {
            "list" => Type::list(next()),
            "map" => Type::map(next(), next()),
            "optional" => Type::optional(next()),
            _ => Type::Type(Some(Arc::new(next()))),
        };
    }
    if text.len() == 1 {
        let name: Arc<str> = Arc::from(text);
        if !params.contains(&name) {
            params.push(name.clone());
        }
        return Type::Param(name);
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null" => Type::Null,
        "type" => Type::Type(None),
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "ip" => Type::Opaque("net.IP"),
        "cidr" => Type::Opaque("net.CIDR"),
        "url" => Type::handle("kubernetes.URL"),
        "quantity" => Type::handle("kubernetes.Quantity"),
        "semver" => Type::handle("kubernetes.Semver"),
        "format" => Type::handle("kubernetes.NamedFormat"),
        "authorizer" => Type::handle(authorizer::AUTHORIZER),
        "path" => Type::handle(authorizer::PATH_CHECK),
        "group" => Type::handle(authorizer::GROUP_CHECK),
        "resource" => Type::handle(authorizer::RESOURCE_CHECK),
        "decision" => Type::handle(authorizer::DECISION),
        _ => Type::Dyn,
    }
}
