//! Values. Objects, lists and maps of JSON are read where they lie, never converted as a whole.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::error::{EvalError, Result};
use crate::library::authorizer::Authorization;
use crate::library::format::Format;
use crate::library::quantity::Quantity;
use crate::library::semver::Semver;
use crate::library::url::Url;
use crate::schema::Schema;
use crate::types::Type;

/// A value of an expression.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map, or an object with fields.
    Map(Map<'a>),
    /// Something that may be absent.
    Optional(Option<Rc<Value<'a>>>),
    /// A type.
    Type(Rc<Type>),
    /// An object that an expression made: `Object{…}`.
    Struct(Rc<StructValue<'a>>),
    /// An object whose fields are made when they are asked for.
    Fields(Rc<dyn Fields<'a> + 'a>),
    /// A resource quantity.
    Quantity(Quantity),
    /// A URL.
    Url(Rc<Url>),
    /// An address.
    Ip(IpAddr),
    /// A network.
    Cidr(IpNet),
    /// A semantic version.
    Semver(Rc<Semver>),
    /// A named format of text.
    Format(&'static Format),
    /// The authorizer, a check that is being built, or its outcome.
    Authorization(Rc<Authorization<'a>>),
}

/// An object whose fields are made when they are asked for.
pub trait Fields<'a> {
    /// A field's value; `None` if there is no such field.
    fn field(&self, name: &str) -> Option<Result<Value<'a>>>;
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// From the input or the program.
    Borrowed(&'a str),
    /// Made by the expression.
    Shared(Rc<str>),
}

/// A list.
#[derive(Clone)]
pub enum List<'a> {
    /// Made by the expression.
    Shared(Rc<Vec<Value<'a>>>),
    /// Of the input, and what its elements are, if that is known.
    Json(&'a [Json], Option<&'a Schema>),
}

/// A map.
#[derive(Clone)]
pub enum Map<'a> {
    /// Made by the expression: keys as they were given, and values.
    Shared(Rc<BTreeMap<Key, (Value<'a>, Value<'a>)>>),
    /// Of the input, and what it is, if that is known.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Schema>),
}

/// A key of a map, such that equal numbers are equal keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(i128),
    /// Text.
    Text(Box<str>),
}

/// An object that an expression made.
pub struct StructValue<'a> {
    /// Its type.
    pub name: &'a str,
    /// Its fields, in the order they were written.
    pub fields: Vec<(&'a str, Value<'a>)>,
}

impl Text<'_> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> Value<'a> {
    /// A piece of JSON of unknown form.
    #[must_use]
    pub fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(u)) => Self::Uint(u),
                (None, None) => Self::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::String(Text::Borrowed(text)),
            Json::Array(list) => Self::List(List::Json(list, None)),
            Json::Object(map) => Self::Map(Map::Json(map, None)),
        }
    }

    /// A list of values.
    #[must_use]
    pub fn list(values: Vec<Value<'a>>) -> Self {
        Self::List(List::Shared(Rc::new(values)))
    }

    /// A value that is there.
    #[must_use]
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The type at run time.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Json(_, Some(schema))) if schema.is_object() => schema.ty().clone(),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Struct(object) => Type::handle(object.name),
            Self::Fields(_) => Type::handle("kubernetes.variables"),
            Self::Quantity(_) => Type::handle("kubernetes.Quantity"),
            Self::Url(_) => Type::handle("kubernetes.URL"),
            Self::Ip(_) => Type::Opaque("net.IP"),
            Self::Cidr(_) => Type::Opaque("net.CIDR"),
            Self::Semver(_) => Type::handle("kubernetes.Semver"),
            Self::Format(_) => Type::handle("kubernetes.NamedFormat"),
            Self::Authorization(a) => Type::handle(a.type_name()),
        }
    }

    /// What the cost model counts of it.
    pub(crate) fn size(&self) -> u64 {
        let count = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(inner)) => return inner.size(),
            Self::Ip(ip) => return if ip.is_ipv4() { 4 } else { 16 },
            Self::Cidr(net) => return if net.addr().is_ipv4() { 4 } else { 16 },
            _ => return 1,
        };
        count as u64
    }

    /// A field of an object or a map's value under a text key. `None` if it is not there.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Value<'a>>> {
        match self {
            Self::Map(map) => map.field(name),
            Self::Struct(object) => Ok(object.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())),
            Self::Fields(fields) => fields.field(name).transpose(),
            Self::Optional(Some(inner)) => inner.field(name),
            _ => Ok(None),
        }
    }
}

impl<'a> List<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Shared(values) => values.len(),
            Self::Json(values, _) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    ///
    /// # Errors
    /// When the input is not of its declared form.
    pub fn get(&self, at: usize) -> Option<Result<Value<'a>>> {
        match self {
            Self::Shared(values) => values.get(at).cloned().map(Ok),
            Self::Json(values, None) => values.get(at).map(|v| Ok(Value::json(v))),
            Self::Json(values, Some(schema)) => values.get(at).map(|v| schema.value(v)),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    pub(crate) fn contains(&self, wanted: &Value<'_>) -> Result<bool> {
        for value in self.iter() {
            if equal(&value?, wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Shared(entries) => entries.len(),
            Self::Json(entries, _) => entries.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a text key.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Value<'a>>> {
        match self {
            Self::Shared(entries) => Ok(entries.get(&Key::Text(name.into())).map(|(_, v)| v.clone())),
            Self::Json(entries, None) => Ok(entries.get(name).map(Value::json)),
            Self::Json(entries, Some(schema)) => schema.field(entries, name).transpose(),
        }
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Value<'_>) -> Result<Option<Value<'a>>> {
        match (self, key) {
            (_, Value::String(name)) => self.field(name),
            (Self::Shared(entries), key) => {
                let Some(key) = Key::of(key) else { return Ok(None) };
                Ok(entries.get(&key).map(|(_, v)| v.clone()))
            }
            (Self::Json(..), _) => Ok(None),
        }
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Shared(entries) => entries.values().map(|(key, _)| key.clone()).collect(),
            Self::Json(entries, None) => entries.keys().map(|k| Value::from(k.as_str())).collect(),
            Self::Json(entries, Some(schema)) => schema.keys(entries),
        }
    }
}

impl Key {
    /// A value as a key, if it may be one.
    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Bool(*b)),
            Value::Int(i) => Some(Self::Number(i128::from(*i))),
            Value::Uint(u) => Some(Self::Number(i128::from(*u))),
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and fits")]
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e19 => Some(Self::Number(*d as i128)),
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            _ => None,
        }
    }
}

/// Whether two values are equal; values of different kinds never are, but numbers compare by value.
#[must_use]
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a.as_str() == b.as_str(),
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b),
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Struct(a), Value::Struct(b)) => {
            let field = |(name, value): &(&str, Value<'_>)| {
                b.fields.iter().any(|(other, with)| name == other && equal(value, with))
            };
            a.name == b.name && a.fields.len() == b.fields.len() && a.fields.iter().all(field)
        }
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a.compare(b) == Ordering::Equal,
        (Value::Format(a), Value::Format(b)) => std::ptr::eq(*a, *b),
        (a, b) => compare_numbers(a, b) == Some(Ordering::Equal),
    }
}

fn equal_lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let unordered = |list: &List<'_>| matches!(list, List::Json(_, Some(schema)) if schema.is_unordered());
    if unordered(a) || unordered(b) {
        return a.iter().all(|v| v.is_ok_and(|v| b.contains(&v).unwrap_or(false)));
    }
    a.iter().zip(b.iter()).all(|(a, b)| matches!((a, b), (Ok(a), Ok(b)) if equal(&a, &b)))
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    let same = |key: &Value<'_>| match (a.get(key), b.get(key)) {
        (Ok(Some(a)), Ok(Some(b))) => equal(&a, &b),
        _ => false,
    };
    a.len() == b.len() && a.keys().iter().all(same)
}

/// The order of two numbers of any kind.
pub(crate) fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(i) => Some(i128::from(*i)),
        Value::Uint(u) => Some(i128::from(*u)),
        _ => None,
    };
    let with_double = |number: i128, double: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and both sides are far smaller")]
        let truncated = double.trunc() as i128;
        if double.is_nan() {
            return None;
        }
        Some(number.cmp(&truncated).then(if double.fract() > 0.0 {
            Ordering::Less
        } else if double.fract() < 0.0 {
            Ordering::Greater
        } else {
            Ordering::Equal
        }))
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => with_double(whole(b)?, *a).map(Ordering::reverse),
        (a, Value::Double(b)) => with_double(whole(a)?, *b),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

/// The order of two values that have one.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Ok(a.as_str().cmp(b.as_str())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Double(d), Value::Int(_) | Value::Uint(_) | Value::Double(_))
        | (Value::Int(_) | Value::Uint(_), Value::Double(d))
            if d.is_nan() =>
        {
            Err(EvalError::new("NaN values cannot be ordered"))
        }
        (Value::Double(_), Value::Double(d)) if d.is_nan() => Err(EvalError::new("NaN values cannot be ordered")),
        (a, b) => compare_numbers(a, b).ok_or_else(EvalError::no_overload),
    }
}

/// A floating-point number as text, in the shortest form that reads back the same.
pub(crate) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The JSON that a value stands for.
///
/// # Errors
/// When there is none, as for types and quantities.
pub fn to_json(value: &Value<'_>) -> Result<Json> {
    Ok(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(i) => (*i).into(),
        Value::Uint(u) => (*u).into(),
        Value::Double(d) => serde_json::Number::from_f64(*d).map_or(Json::Null, Json::Number),
        Value::String(text) => Json::String(text.as_str().to_owned()),
        Value::Bytes(bytes) => {
            use base64::Engine as _;
            Json::String(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        Value::Timestamp(time) => Json::String(time.to_string()),
        Value::Duration(nanos) => Json::String(crate::library::time::duration_text(*nanos)),
        Value::List(List::Json(list, _)) => Json::Array(list.to_vec()),
        Value::List(list) => Json::Array(list.iter().map(|v| to_json(&v?)).collect::<Result<_>>()?),
        Value::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
        Value::Map(Map::Shared(map)) => {
            let entry = |(key, (_, value)): (&Key, &(Value<'_>, Value<'_>))| {
                let Key::Text(key) = key else { return Err(EvalError::new("map keys must be strings")) };
                Ok((key.to_string(), to_json(value)?))
            };
            Json::Object(map.iter().map(entry).collect::<Result<_>>()?)
        }
        Value::Optional(Some(inner)) => to_json(inner)?,
        Value::Struct(object) => {
            let field = |(name, value): &(&str, Value<'_>)| Ok(((*name).to_owned(), to_json(value)?));
            Json::Object(object.fields.iter().map(field).collect::<Result<_>>()?)
        }
        other => {
            let name = other.type_of().name().to_owned();
            return Err(EvalError::new(format!("a value of type {name} is no JSON")));
        }
    })
}

/// Text for a message.
pub(crate) fn shown(value: &Value<'_>) -> Cow<'static, str> {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string().into(),
        Value::Int(i) => i.to_string().into(),
        Value::Uint(u) => u.to_string().into(),
        Value::Double(d) => double_text(*d).into(),
        Value::String(text) => text.as_str().to_owned().into(),
        other => other.type_of().name().to_owned().into(),
    }
}
