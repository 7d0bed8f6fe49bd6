//! JSON to protobuf.

use serde_json::{Map, Value};

use super::write::tells_null;
use crate::json::{put_json, read_base64, read_duration};
use crate::quantity::Amount;
use crate::schema::{Field, FieldType, MESSAGES, Message, Shape};
use crate::wire::{put_bytes, put_key, put_nested, put_uint};

/// What was found beside the values: paths of fields that the message does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Unknown fields, as `spec.containers[0].foo`, in the order in which they were met.
    pub unknown: Vec<String>,
    bytes: usize,
}

/// Bytes of all paths in a report. Each may be as long as the whole text; what comes behind them is not noted.
const MAX_BYTES: usize = 16 << 20;

impl Report {
    /// Notes an unknown field.
    pub fn note(&mut self, path: impl FnOnce() -> String) {
        if self.bytes < MAX_BYTES {
            let path = path();
            self.bytes += path.len();
            self.unknown.push(path);
        }
    }
}

/// A value that does not fit its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: cannot read {found} as {expected}")]
pub struct Issue {
    /// Path of the field.
    pub path: String,
    /// JSON type that was found, or the text where only its content is wrong.
    pub found: String,
    /// What the field holds.
    pub expected: String,
    /// Name of the message that has the field.
    pub message: &'static str,
    /// The field as Go's decoder names it: struct, then the path without list indexes, with embedded structs.
    pub go_field: String,
}

/// Upstream's bytes for a JSON tree. Unknown fields are dropped and told in `report`.
///
/// # Errors
/// When a value does not fit its field.
pub fn value_to_proto(message: &'static Message, value: &Value, report: &mut Report) -> Result<Vec<u8>, Issue> {
    let mut out = Vec::new();
    let mut reader = Reader { report, path: Vec::new() };
    match reader.message(message, value, &mut out) {
        Ok(()) => Ok(out),
        Err(issue) => Err(first_issue(message, value).unwrap_or(issue)),
    }
}

/// What Go's decoder says of a tree that does not fit: the first value of another type, unless one that reads itself ends
/// the decoding. It goes by the names of the fields, not by their numbers.
fn first_issue(message: &'static Message, value: &Value) -> Option<Issue> {
    let mut reader = Reader { report: &mut Report::default(), path: Vec::new() };
    let mut first = None;
    reader.look(message, value, &mut first).err().or(first)
}

/// Keeps the first issue with a value of another type; passes on one with a value that reads itself.
fn note(read: Result<(), Issue>, first: &mut Option<Issue>) -> Result<(), Issue> {
    let Err(issue) = read else { return Ok(()) };
    let shape = crate::schema::message(issue.message).map_or(Shape::Struct, |message| message.shape);
    if !matches!(shape, Shape::Struct | Shape::List | Shape::RawJson) {
        return Err(issue);
    }
    first.get_or_insert(issue);
    Ok(())
}

/// Fields that an object has before those of its message.
const TYPE_META: [&str; 2] = ["kind", "apiVersion"];

/// Where a value goes.
#[derive(Clone, Copy)]
struct Slot {
    owner: &'static Message,
    number: u32,
    ty: FieldType,
}

struct Reader<'a> {
    report: &'a mut Report,
    path: Vec<Step<'a>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'static Message, &'a str),
    /// A field of a struct whose own fields appear in the parent.
    Inline(&'static str),
    Key(&'a str),
    Index(usize),
}

impl<'v> Reader<'v> {
    fn message(&mut self, message: &'static Message, value: &'v Value, out: &mut Vec<u8>) -> Result<(), Issue> {
        if message.shape != Shape::Struct {
            return self.shape(message, value, out);
        }
        match value {
            Value::Null => self.fields((message, message), &EMPTY, out),
            Value::Object(map) => {
                self.find_unknown(message, map);
                self.names(message, map)?;
                self.fields((message, message), map, out)
            }
            other => Err(self.issue(message, other, &go_name(message))),
        }
    }

    /// Notes the first value that does not fit; fails at one that ends the decoding.
    fn look(&mut self, message: &'static Message, value: &'v Value, first: &mut Option<Issue>) -> Result<(), Issue> {
        let (Shape::Struct, Value::Object(map)) = (message.shape, value) else {
            let read = self.message(message, value, &mut Vec::new());
            return note(read, first);
        };
        for (key, value) in map {
            let depth = self.path.len();
            note(self.name(message, key, value), first)?;
            if let Some(field) = self.enter(message, message, key) {
                self.look_at(message, field, value, first)?;
            }
            self.path.truncate(depth);
        }
        Ok(())
    }

    /// Steps to the field of this name, through structs whose fields appear in their parent.
    fn enter(&mut self, owner: &'static Message, message: &'static Message, key: &str) -> Option<&'static Field> {
        if let Some(field) = message.fields.iter().find(|field| !field.inline && field.json == key) {
            self.path.push(Step::Field(owner, field.json));
            return Some(field);
        }
        message.fields.iter().filter(|field| field.inline).find_map(|field| {
            let inner = field.ty.message().filter(|inner| inner.field(key).is_some())?;
            self.path.push(Step::Inline(inner.name.rsplit('.').next().unwrap_or(inner.name)));
            self.enter(owner, inner, key)
        })
    }

    fn look_at(
        &mut self,
        owner: &'static Message,
        field: &'static Field,
        value: &'v Value,
        first: &mut Option<Issue>,
    ) -> Result<(), Issue> {
        let depth = self.path.len();
        let looked = match (field.ty, value) {
            (FieldType::Message(index), Value::Array(items)) if field.repeated => {
                items.iter().enumerate().try_for_each(|(at, item)| {
                    self.path.truncate(depth);
                    self.path.push(Step::Index(at));
                    self.look(&MESSAGES[index], item, first)
                })
            }
            (FieldType::Map(FieldType::Message(index)), Value::Object(map)) => {
                map.iter().try_for_each(|(key, item)| {
                    self.path.truncate(depth);
                    self.path.push(Step::Key(key));
                    self.look(&MESSAGES[*index], item, first)
                })
            }
            (FieldType::Message(index), Value::Object(_)) if !field.repeated => {
                self.look(&MESSAGES[index], value, first)
            }
            _ => {
                let read = self.field(owner, field, value, &mut Vec::new());
                note(read, first)
            }
        };
        self.path.truncate(depth);
        looked
    }

    /// The kind and version that an object inside another one has: they are not kept, but have to be texts.
    fn names(&mut self, message: &'static Message, map: &'v Map<String, Value>) -> Result<(), Issue> {
        if !message.type_meta || self.path.is_empty() {
            return Ok(());
        }
        map.iter().try_for_each(|(key, value)| self.name(message, key, value))
    }

    fn name(&mut self, message: &'static Message, key: &'v str, value: &Value) -> Result<(), Issue> {
        let is_name = message.type_meta && !self.path.is_empty() && TYPE_META.contains(&key);
        if !is_name || matches!(value, Value::Null | Value::String(_)) {
            return Ok(());
        }
        self.path.extend([Step::Inline("TypeMeta"), Step::Field(message, key)]);
        let issue = self.issue(message, value, "string");
        self.path.truncate(self.path.len() - 2);
        Err(issue)
    }

    fn find_unknown(&mut self, message: &'static Message, map: &'v Map<String, Value>) {
        for key in map.keys() {
            let is_type_meta = message.type_meta && TYPE_META.contains(&key.as_str());
            if !is_type_meta && message.field(key).is_none() {
                self.path.push(Step::Key(key));
                let path = &self.path;
                self.report.note(|| path_text(path));
                self.path.pop();
            }
        }
    }

    /// `owner` is the struct that the fields appear in; `message` the one that declares them.
    fn fields(
        &mut self,
        (owner, message): (&'static Message, &'static Message),
        map: &'v Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), Issue> {
        for field in message.by_number() {
            if field.inline {
                if let Some(inner) = field.ty.message() {
                    self.path.push(Step::Inline(inner.name.rsplit('.').next().unwrap_or(inner.name)));
                    put_nested(out, field.number, |out| self.fields((owner, inner), map, out))?;
                    self.path.pop();
                }
                continue;
            }
            self.path.push(Step::Field(owner, field.json));
            self.field(message, field, map.get(field.json).unwrap_or(&Value::Null), out)?;
            self.path.pop();
        }
        Ok(())
    }

    fn field(
        &mut self,
        owner: &'static Message,
        field: &'static Field,
        value: &'v Value,
        out: &mut Vec<u8>,
    ) -> Result<(), Issue> {
        match (field.ty, value) {
            (FieldType::Map(_), Value::Null) => Ok(()),
            (FieldType::Map(ty), Value::Object(map)) => {
                self.map(Slot { owner, number: field.number, ty: *ty }, map, out)
            }
            (FieldType::Map(_), other) => Err(self.issue(owner, other, &go_type(field))),
            (_, Value::Null) if field.repeated || field.pointer || field.bytes => Ok(()),
            (ty, Value::Array(items)) if field.repeated => {
                for (i, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(i));
                    self.value(Slot { owner, number: field.number, ty }, item, out)?;
                    self.path.pop();
                }
                Ok(())
            }
            // A list that is a type of its own.
            (_, other) if owner.shape == Shape::List => {
                let parts: Vec<&str> = owner.name.rsplitn(3, '.').collect();
                Err(self.issue(owner, other, &format!("{}.{}", parts[1], parts[0])))
            }
            (_, other) if field.repeated => Err(self.issue(owner, other, &go_type(field))),
            (ty, value) => self.value(Slot { owner, number: field.number, ty }, value, out),
        }
    }

    fn map(&mut self, slot: Slot, map: &'v Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Issue> {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort();
        for key in keys {
            self.path.push(Step::Key(key));
            put_nested(out, slot.number, |out| {
                put_bytes(out, 1, key.as_bytes());
                match &map[key] {
                    // An entry without a value.
                    Value::Null if tells_null(slot.ty) => Ok(()),
                    value => self.value(Slot { number: 2, ..slot }, value, out),
                }
            })?;
            self.path.pop();
        }
        Ok(())
    }

    fn value(&mut self, slot: Slot, value: &'v Value, out: &mut Vec<u8>) -> Result<(), Issue> {
        let Slot { owner, number, ty } = slot;
        match (ty, value) {
            (FieldType::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (FieldType::String | FieldType::Bytes, Value::Null) => put_bytes(out, number, &[]),
            (FieldType::String, other) if owner.shape == Shape::List => return Err(self.issue(owner, other, "string")),
            (FieldType::String, other) => return Err(self.issue(owner, other, self.named_text())),
            (FieldType::Bytes, Value::String(text)) => match read_base64(text) {
                Ok(bytes) => put_bytes(out, number, &bytes),
                Err(at) => return Err(self.issue(owner, value, &format!("base64 text, which ends at byte {at}"))),
            },
            (FieldType::Bytes, other) => return Err(self.issue(owner, other, "[]uint8")),
            (FieldType::Bool, Value::Bool(on)) => put_uint(out, number, u64::from(*on)),
            (FieldType::Bool | FieldType::Int32 | FieldType::Int64 | FieldType::Uint64, Value::Null) => {
                put_uint(out, number, 0);
            }
            (FieldType::Bool, other) => return Err(self.issue(owner, other, "bool")),
            (FieldType::Int32, other) => match other.as_i64().filter(|v| i32::try_from(*v).is_ok()) {
                Some(v) => put_uint(out, number, v.cast_unsigned()),
                None => return Err(self.issue(owner, other, "int32")),
            },
            (FieldType::Int64, other) => match other.as_i64() {
                Some(v) => put_uint(out, number, v.cast_unsigned()),
                None => return Err(self.issue(owner, other, "int64")),
            },
            (FieldType::Uint64, other) => match other.as_u64() {
                Some(v) => put_uint(out, number, v),
                None => return Err(self.issue(owner, other, "uint64")),
            },
            (FieldType::Double, other) => match other.as_f64().or(other.is_null().then_some(0.0)) {
                Some(v) => {
                    put_key(out, number, 1);
                    out.extend_from_slice(&v.to_bits().to_le_bytes());
                }
                None => return Err(self.issue(owner, other, "float64")),
            },
            (FieldType::Message(index), value) => {
                return put_nested(out, number, |out| self.message(&MESSAGES[index], value, out));
            }
            (FieldType::Map(_), other) => return Err(self.issue(owner, other, "a value that is no map")),
        }
        Ok(())
    }

    fn shape(&mut self, message: &'static Message, value: &'v Value, out: &mut Vec<u8>) -> Result<(), Issue> {
        match (message.shape, value) {
            (Shape::RawJson, Value::Null) if message.name.ends_with("JSON") => put_bytes(out, 1, b"null"),
            (Shape::RawJson, Value::Null) => {}
            (Shape::RawJson, Value::Object(_)) if message.name.ends_with("FieldsV1") => {
                return put_nested(out, 1, |out| {
                    super::fields::put(value, out);
                    Ok(())
                });
            }
            (Shape::RawJson, other) => {
                return put_nested(out, 1, |out| {
                    put_json(other, out);
                    Ok(())
                });
            }
            (Shape::List, value) => return self.field(message, &message.fields[0], value, out),
            (Shape::Time | Shape::MicroTime, Value::Null) => {}
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                let micros = message.shape == Shape::MicroTime;
                let form = if micros { "an RFC 3339 time with microseconds" } else { "an RFC 3339 time" };
                let time = crate::time::parse_as(text, micros);
                let (seconds, nanos) = time.map_err(|_| self.issue(message, value, form))?;
                let nanos = if micros { nanos / 1000 * 1000 } else { 0 };
                put_uint(out, 1, seconds.cast_unsigned());
                put_uint(out, 2, i64::from(nanos).cast_unsigned());
            }
            (Shape::Duration, Value::String(text)) => {
                let nanos = read_duration(text).ok_or_else(|| self.issue(message, value, "a duration"))?;
                put_uint(out, 1, nanos.cast_unsigned());
            }
            (Shape::Duration, Value::Null) => put_uint(out, 1, 0),
            (Shape::Quantity, Value::Null) => put_bytes(out, 1, b"0"),
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let amount = Amount::parse(&text).map_err(|_| self.issue(message, value, "a quantity"))?;
                put_bytes(out, 1, amount.canonical().as_bytes());
            }
            (Shape::IntOrString, value) => return self.int_or_string(message, value, out),
            (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, value) => {
                return self.schema_or(message, value, out);
            }
            (Shape::Quantity, other) => return Err(self.issue(message, other, "a quantity")),
            (_, other) => return Err(self.issue(message, other, "string")),
        }
        Ok(())
    }

    /// The Go type of the text that the path leads to: the field's own, or that of its items.
    fn named_text(&self) -> &'static str {
        let field = self.path.iter().rev().find_map(|step| match step {
            Step::Field(owner, name) => Some(owner.field(name)),
            _ => None,
        });
        let go = field.flatten().map_or("", |field| field.go);
        let item = go.rsplit_once(']').map_or(go, |(_, item)| item);
        if item.is_empty() { "string" } else { item }
    }

    fn int_or_string(&self, message: &'static Message, value: &Value, out: &mut Vec<u8>) -> Result<(), Issue> {
        let (kind, number, text) = match value {
            Value::Null => (0, 0, ""),
            Value::String(text) => (1, 0, text.as_str()),
            other => {
                let number = other.as_i64().and_then(|v| i32::try_from(v).ok());
                (0, number.ok_or_else(|| self.issue(message, other, "int32"))?, "")
            }
        };
        put_uint(out, 1, kind);
        put_uint(out, 2, i64::from(number).cast_unsigned());
        put_bytes(out, 3, text.as_bytes());
        Ok(())
    }

    fn schema_or(&mut self, message: &'static Message, value: &'v Value, out: &mut Vec<u8>) -> Result<(), Issue> {
        let is_bool = message.shape == Shape::SchemaOrBool;
        let (schema, other) = if is_bool { (2, 1) } else { (1, 2) };
        let slot = |number| {
            let ty = message.field_by_number(number).map_or(FieldType::String, |(_, field)| field.ty);
            Slot { owner: message, number, ty }
        };
        match value {
            Value::Object(_) => {
                if is_bool {
                    put_uint(out, 1, 1);
                }
                self.value(slot(schema), value, out)
            }
            Value::Bool(allows) if is_bool => {
                put_uint(out, 1, u64::from(*allows));
                Ok(())
            }
            Value::Array(items) if !is_bool => items.iter().try_for_each(|item| self.value(slot(other), item, out)),
            // What is neither is read as nothing.
            _ if !is_bool => Ok(()),
            _ => Err(self.issue(message, value, "a schema")),
        }
    }

    fn issue(&self, message: &'static Message, found: &Value, expected: &str) -> Issue {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if expected.starts_with("int") => {
                format!("number {n}")
            }
            Value::Number(_) => "number".to_owned(),
            Value::String(_) if expected.contains(' ') => found.to_string(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Issue {
            path: path_text(&self.path),
            found,
            expected: expected.to_owned(),
            message: message.name,
            go_field: self.go_field(),
        }
    }

    fn go_field(&self) -> String {
        let owner = self.path.iter().rev().find_map(|step| match step {
            Step::Field(owner, _) => Some(owner.name.rsplit('.').next().unwrap_or(owner.name)),
            _ => None,
        });
        let mut text = owner.unwrap_or_default().to_owned();
        for step in &self.path {
            if let Step::Field(_, name) | Step::Inline(name) = step {
                text.push('.');
                text.push_str(name);
            }
        }
        text
    }
}

fn path_text(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Inline(_) => {}
            Step::Field(_, name) | Step::Key(name) if text.is_empty() => text.push_str(name),
            Step::Field(_, name) | Step::Key(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// `v1.Pod` for `k8s.io.api.core.v1.Pod`.
fn go_name(message: &Message) -> String {
    let mut parts = message.name.rsplit('.');
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{name}")
}

/// The type of a field in Go.
fn go_type(field: &Field) -> String {
    fn of(ty: FieldType) -> String {
        match ty {
            FieldType::String => "string".to_owned(),
            FieldType::Bytes => "[]uint8".to_owned(),
            FieldType::Int32 => "int32".to_owned(),
            FieldType::Int64 => "int64".to_owned(),
            FieldType::Uint64 => "uint64".to_owned(),
            FieldType::Bool => "bool".to_owned(),
            FieldType::Double => "float64".to_owned(),
            FieldType::Message(index) => go_name(&MESSAGES[index]),
            FieldType::Map(value) => format!("map[string]{}", of(*value)),
        }
    }
    if !field.go.is_empty() {
        return field.go.to_owned();
    }
    if field.repeated { format!("[]{}", of(field.ty)) } else { of(field.ty) }
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
