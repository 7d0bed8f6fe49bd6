//! What is known of an object from its OpenAPI schema: the types that expressions see, how its values are read, and
//! how large it can get.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::{EvalError, Result};
use crate::library::time;
use crate::types::{ObjectType, Type};
use crate::value::{List, Map, Text, Value};

/// The largest request.
const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// A schema, made ready for expressions.
#[derive(Debug)]
pub struct Schema {
    ty: Type,
    form: Form,
    is_nullable: bool,
    /// The most elements, entries or bytes there can be.
    pub(crate) max_elements: Option<u64>,
    /// The fewest bytes of JSON.
    min_bytes: u64,
}

#[derive(Debug)]
enum Form {
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    List(Arc<Schema>, ListKind),
    Map(Arc<Schema>),
    /// By the names that expressions use.
    Object(BTreeMap<String, Property>),
}

#[derive(Clone, Debug, PartialEq)]
enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

#[derive(Debug)]
struct Property {
    name: String,
    schema: Schema,
}

impl Schema {
    /// Reads a structural schema. `None` if expressions may not see such values.
    ///
    /// `is_resource` says that it is the root of a resource: kind, apiVersion and the name are there then, whatever
    /// the schema says.
    #[must_use]
    pub fn new(schema: &Json, name: &str, is_resource: bool) -> Option<Self> {
        let is_nullable = schema["nullable"] == true;
        let flag = |key: &str| schema[key] == true;
        let simple = |ty: Type, form: Form, min_bytes: u64, max_elements: Option<u64>| {
            Some(Self { ty, form, is_nullable, max_elements, min_bytes })
        };
        if flag("x-kubernetes-int-or-string") {
            let longest = max_length(schema).unwrap_or(MAX_REQUEST_BYTES - 2);
            return simple(Type::Dyn, Form::IntOrString, 1, Some(longest));
        }
        let is_resource = is_resource || flag("x-kubernetes-embedded-resource");
        match schema["type"].as_str().unwrap_or_default() {
            "array" => Self::list(schema, name, is_nullable),
            "object" => match schema.get("additionalProperties").filter(|a| a.is_object()) {
                Some(values) => Self::map(schema, values, name, is_nullable),
                None => Some(Self::object(schema, name, is_nullable, is_resource)),
            },
            "string" => {
                let (ty, form, min, max) = match schema["format"].as_str() {
                    Some("byte") => {
                        let longest = schema["maxLength"].as_i64().map(|n| u64::try_from(n).unwrap_or(0));
                        (Type::Bytes, Form::Bytes, 2, longest.unwrap_or(MAX_REQUEST_BYTES - 2))
                    }
                    Some("duration") => (Type::Duration, Form::Duration, 3, 32),
                    Some("date") => (Type::Timestamp, Form::Date, 12, 12),
                    Some("date-time") => (Type::Timestamp, Form::DateTime, 21, 32),
                    _ => (Type::String, Form::String, 2, longest_text(schema)),
                };
                simple(ty, form, min, Some(max))
            }
            "boolean" => simple(Type::Bool, Form::Bool, 4, None),
            "number" => simple(Type::Double, Form::Double, 1, None),
            "integer" => simple(Type::Int, Form::Int, 1, None),
            _ => None,
        }
    }

    fn list(schema: &Json, name: &str, is_nullable: bool) -> Option<Self> {
        let items = Self::new(schema.get("items")?, &format!("{name}.@idx"), false)?;
        let most = limit(schema, "maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (items.min_bytes + 1));
        let kind = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => ListKind::Set,
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                ListKind::Map(keys.filter_map(|k| k.as_str().map(str::to_owned)).collect())
            }
            _ => ListKind::Atomic,
        };
        let ty = Type::list(items.ty.clone());
        Some(Self { ty, form: Form::List(Arc::new(items), kind), is_nullable, max_elements: Some(most), min_bytes: 2 })
    }

    fn map(schema: &Json, values: &Json, name: &str, is_nullable: bool) -> Option<Self> {
        let values = Self::new(values, &format!("{name}.@elem"), false)?;
        let most = limit(schema, "maxProperties").unwrap_or((MAX_REQUEST_BYTES - 2) / (values.min_bytes + 6));
        let ty = Type::map(Type::String, values.ty.clone());
        Some(Self { ty, form: Form::Map(Arc::new(values)), is_nullable, max_elements: Some(most), min_bytes: 2 })
    }

    fn object(schema: &Json, name: &str, is_nullable: bool, is_resource: bool) -> Self {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let mut properties = BTreeMap::new();
        let mut min_bytes = 2;
        let resource = if is_resource { resource_properties() } else { Json::Null };
        let given = schema["properties"].as_object().into_iter().flatten();
        let given = given.filter(|(key, _)| resource.get(key.as_str()).is_none());
        for (key, property) in given.chain(resource.as_object().into_iter().flatten()) {
            let Some(escaped) = escape(key) else { continue };
            let Some(inner) = Self::new(property, &format!("{name}.{escaped}"), false) else { continue };
            if required.contains(&key.as_str()) && property.get("default").is_none() {
                min_bytes += key.len() as u64 + inner.min_bytes + 4;
            }
            properties.insert(escaped, Property { name: key.clone(), schema: inner });
        }
        let fields = properties.iter().map(|(key, p)| (key.clone(), p.schema.ty.clone())).collect();
        let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, is_open: false }));
        Self { ty, form: Form::Object(properties), is_nullable, max_elements: None, min_bytes }
    }

    /// How often values of this schema can occur in a request at most.
    #[must_use]
    pub fn max_occurrences(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_bytes + 1)
    }

    /// The type that expressions see.
    #[must_use]
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// The schema of a field, of a list's elements (`@items`) or a map's values (`@values`).
    pub(crate) fn child(&self, step: &str) -> Option<&Schema> {
        match &self.form {
            Form::List(items, _) => (step == "@items").then_some(items),
            Form::Map(values) => (step != "@keys").then_some(values),
            Form::Object(properties) => {
                let property = properties.get(step).or_else(|| properties.get(&format!("__{step}__")));
                property.map(|p| &p.schema)
            }
            _ => None,
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.form, Form::Map(_))
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.form, Form::Object(_))
    }

    /// Whether a list's elements are compared without regard to their order. Asked of the elements' list.
    pub(crate) fn is_unordered(&self) -> bool {
        matches!(&self.form, Form::List(_, kind) if *kind != ListKind::Atomic)
    }

    /// Reads a value. Of a list it is the schema of the list that is kept, not that of its elements.
    ///
    /// # Errors
    /// When the value does not have the form that the schema says.
    pub fn read<'a>(&'a self, json: &'a Json) -> Result<Value<'a>> {
        let wrong = |expected: &str| EvalError::new(format!("invalid data, expected {expected}"));
        if json.is_null() {
            let refused = "invalid data, got null for schema with nullable=false";
            return if self.is_nullable { Ok(Value::Null) } else { Err(EvalError::new(refused)) };
        }
        let text = || json.as_str().ok_or_else(|| wrong("string"));
        Ok(match &self.form {
            Form::IntOrString => match json {
                Json::String(text) => Value::from(text.as_str()),
                other => Value::Int(other.as_i64().ok_or_else(|| {
                    EvalError::new("invalid data, expected XIntOrString value to be either a string or integer")
                })?),
            },
            Form::Bool => Value::Bool(json.as_bool().ok_or_else(|| wrong("bool"))?),
            Form::Int => Value::Int(json.as_i64().ok_or_else(|| wrong("int"))?),
            Form::Double => Value::Double(json.as_f64().ok_or_else(|| wrong("float"))?),
            Form::String => Value::String(Text::Borrowed(text()?)),
            Form::Bytes => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text()?).map_err(|_| wrong("bytes"))?;
                Value::Bytes(bytes.into())
            }
            Form::Duration => Value::Duration(time::parse_duration(text()?).ok_or_else(|| wrong("duration"))?),
            Form::Date => {
                let moment = time::parse_timestamp(&format!("{}T00:00:00Z", text()?));
                Value::Timestamp(moment.ok_or_else(|| wrong("date"))?)
            }
            Form::DateTime => Value::Timestamp(time::parse_timestamp(text()?).ok_or_else(|| wrong("date-time"))?),
            Form::List(..) => {
                let list = json.as_array().ok_or_else(|| wrong("an array for the provided schema with type=array"))?;
                Value::List(List::Json(list, Some(self)))
            }
            Form::Map(_) | Form::Object(_) => {
                let map = json.as_object().ok_or_else(|| wrong("a map for the provided schema with type=object"))?;
                Value::Map(Map::Json(map, Some(self)))
            }
        })
    }

    /// An element of the list that this is the schema of.
    pub(crate) fn value<'a>(&'a self, json: &'a Json) -> Result<Value<'a>> {
        match &self.form {
            Form::List(items, _) => items.read(json),
            _ => Ok(Value::json(json)),
        }
    }

    /// A field of the object, or an entry of the map, that this is the schema of.
    pub(crate) fn field<'a>(
        &'a self,
        entries: &'a serde_json::Map<String, Json>,
        name: &str,
    ) -> Option<Result<Value<'a>>> {
        match &self.form {
            Form::Map(values) => entries.get(name).map(|v| values.read(v)),
            Form::Object(properties) => {
                let property = properties
                    .get(name)
                    .or_else(|| if is_reserved(name) { properties.get(&format!("__{name}__")) } else { None })?;
                let value = entries.get(&property.name)?;
                Some(property.schema.read(value))
            }
            _ => None,
        }
    }

    /// The keys of the map that this is the schema of, or the known fields of the object.
    pub(crate) fn keys<'a>(&'a self, entries: &'a serde_json::Map<String, Json>) -> Vec<Value<'a>> {
        match &self.form {
            Form::Object(properties) => {
                let present = properties.iter().filter(|(_, p)| entries.contains_key(&p.name));
                present.map(|(escaped, _)| Value::from(escaped.as_str())).collect()
            }
            _ => entries.keys().map(|k| Value::from(k.as_str())).collect(),
        }
    }

    /// Two lists of this schema joined: sets keep one of each element, and later elements of a map replace earlier
    /// ones of the same key. `None` if they are simply put one after another.
    pub(crate) fn join<'a>(&self, a: &List<'a>, b: &List<'a>) -> Option<Result<Vec<Value<'a>>>> {
        let Form::List(_, kind) = &self.form else { return None };
        if *kind == ListKind::Atomic {
            return None;
        }
        Some(kind.join(a, b))
    }
}

impl ListKind {
    fn join<'a>(&self, a: &List<'a>, b: &List<'a>) -> Result<Vec<Value<'a>>> {
        let mut joined: Vec<Value<'a>> = a.iter().collect::<Result<_>>()?;
        for value in b.iter() {
            let value = value?;
            let place = joined.iter().position(|known| self.is_same(known, &value));
            match place {
                Some(at) => joined[at] = value,
                None => joined.push(value),
            }
        }
        Ok(joined)
    }

    fn is_same(&self, a: &Value<'_>, b: &Value<'_>) -> bool {
        let Self::Map(keys) = self else { return crate::value::equal(a, b) };
        keys.iter().filter_map(|k| escape(k)).all(|key| match (a.field(&key), b.field(&key)) {
            (Ok(Some(a)), Ok(Some(b))) => crate::value::equal(&a, &b),
            (Ok(None), Ok(None)) => true,
            _ => false,
        })
    }
}

fn resource_properties() -> Json {
    let text = serde_json::json!({"type": "string"});
    serde_json::json!({
        "kind": text, "apiVersion": text,
        "metadata": {"type": "object", "properties": {"name": text, "generateName": text}},
    })
}

fn limit(schema: &Json, key: &str) -> Option<u64> {
    schema[key].as_i64().map(|n| u64::try_from(n).unwrap_or(0))
}

/// Length is given in characters; a character takes up to four bytes.
fn max_length(schema: &Json) -> Option<u64> {
    limit(schema, "maxLength").map(|n| n.saturating_mul(4))
}

fn longest_text(schema: &Json) -> u64 {
    if let Some(longest) = max_length(schema) {
        return longest;
    }
    let values = schema["enum"].as_array().filter(|v| !v.is_empty());
    let longest = values.map(|v| v.iter().filter_map(Json::as_str).map(|t| t.len() as u64).max().unwrap_or(0));
    longest.unwrap_or(MAX_REQUEST_BYTES - 2)
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a name is a word of the language.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// The name under which expressions see a property; `None` if they cannot.
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}
