//! Between stored bytes, trees and what clients read.

mod autoscaling;
mod blank;
mod convert;
mod devices;
mod encoded;
mod forms;
mod guide;
mod hostile;
mod lines;
#[cfg(test)]
mod mutated;
mod parse;
mod plain;
mod reading;
mod render;
#[cfg(test)]
mod robust;
mod scalar;
mod syntax;
mod told;
mod unstructured;
mod yaml;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use api::Kind;
use api::schema::Message;
use api::transcode::{self, Report};
use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::{Map, Value};

pub use blank::{as_stored, as_written, keep as keep_blanks};
pub use convert::{between, settled};
pub use encoded::Encoded;
pub use forms::{Form, Forms, Sort};
pub use parse::{Parsed, go_map, go_syntax, go_type, parse_apply, parse_body, parse_patch};
pub use render::{Indenter, Renderer, indent, json_frame, proto_frame, put_type_names, yaml};
pub use syntax::complaint as syntax_complaint;
pub use unstructured::{fit_numbers, json_type, misfit};

use crate::cache::{Object, Storage};
use crate::status::{Failure, Result};
use crate::wire::{self, Splice};

/// Schemas this crate names.
#[must_use]
#[allow(clippy::expect_used, reason = "the schema is compiled in and a test names every one used")]
pub fn schema(name: &str) -> &'static Message {
    api::schema::message(name).expect("a message of the schema")
}

/// The message that a kind is stored with, which may belong to another version.
fn stored_schema(storage: &Storage) -> &'static Message {
    storage.kind.schema()
}

/// An object's tree in the version of `kind`, with its resource version.
pub fn to_value(storage: &Storage, kind: &Kind, object: &Object) -> Result<Value> {
    let mut value = match object.message() {
        Some(raw) => {
            let name = (storage.api_version, storage.kind.kind);
            transcode::proto_to_value(stored_schema(storage), raw, Some(name)).map_err(Failure::internal)?
        }
        None => serde_json::from_slice(&object.data).map_err(Failure::internal)?,
    };
    if crate::custom::is_custom(kind) {
        value = crate::custom::shown(storage, kind, (value, object.converted))?;
    }
    if convert::is_needed(storage, kind) {
        value = canonical(kind, &convert::from_stored(storage, kind, value))?;
    }
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    if object.revision > 0 {
        value["metadata"]["resourceVersion"] = object.revision.to_string().into();
    }
    Ok(value)
}

/// The stored form of a tree in the version of `kind`.
pub fn to_stored(storage: &Storage, kind: &Kind, value: &Value) -> Result<Bytes> {
    let mut value = value.clone();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    to_tried(storage, kind, value)
}

/// The stored form of a tree that is not going to be stored: it keeps the version that the client gave.
pub fn to_tried(storage: &Storage, kind: &Kind, value: Value) -> Result<Bytes> {
    let value = convert::to_stored(storage, kind, value);
    if crate::custom::is_custom(kind) {
        return crate::custom::to_stored(storage, kind, value);
    }
    let raw = encode(storage, kind, &value)?;
    if !storage.kind.stored_as_json {
        return Ok(api::envelope::wrap(storage.api_version, storage.kind.kind, &raw).into());
    }
    json_stored(storage, &raw)
}

/// The stored form of a message of a kind that is stored as JSON.
fn json_stored(storage: &Storage, raw: &[u8]) -> Result<Bytes> {
    let mut out = Vec::new();
    let name = (&*storage.kind.api_version(), storage.kind.kind);
    transcode::proto_to_json(stored_schema(storage), raw, Some(name), &mut out).map_err(Failure::internal)?;
    out.push(b'\n');
    Ok(out.into())
}

fn encode(storage: &Storage, kind: &Kind, value: &Value) -> Result<Vec<u8>> {
    transcode::value_to_proto(stored_schema(storage), value, &mut Report::default()).map_err(|e| bad_field(kind, &e))
}

/// The stored message of an object that is served as it lies in the store, but for its resource version.
fn spliced<'a>(storage: &Storage, kind: &Kind, object: &'a Object) -> Option<Splice<'a>> {
    if convert::is_needed(storage, kind) {
        return None;
    }
    object.splice()
}

/// Whether a field of a stored object's message says true; nothing else of it is read.
pub fn is_true(storage: &Storage, object: &Object, field: &str) -> bool {
    let Some(field) = stored_schema(storage).field(field) else { return false };
    let mut fields = object.message().into_iter().flat_map(wire::fields);
    fields.any(|(number, value)| number == field.number && matches!(value, wire::Value::Varint(1)))
}

/// The encoded metadata of an object's stored message, with its resource version.
pub fn metadata(object: &Object) -> Option<Cow<'_, [u8]>> {
    let raw = object.message()?;
    Some(match object.splice() {
        Some(splice) if object.revision > 0 => splice.metadata(itoa::Buffer::new().format(object.revision)).into(),
        _ => wire::bytes_field(raw, 1).unwrap_or_default().into(),
    })
}

/// The protobuf message of an object in the version of `kind`, with its resource version.
pub fn to_proto(storage: &Storage, kind: &Kind, object: &Object) -> Result<Bytes> {
    let mut out = Vec::with_capacity(object.data.len() + 32);
    append_proto(storage, kind, object, &mut out)?;
    Ok(out.into())
}

/// Appends [`to_proto`].
pub fn append_proto(storage: &Storage, kind: &Kind, object: &Object, out: &mut Vec<u8>) -> Result<()> {
    match spliced(storage, kind, object) {
        Some(splice) if object.revision > 0 => splice.write(itoa::Buffer::new().format(object.revision), out),
        // What was never stored has the version that the client gave it.
        Some(splice) => out.extend_from_slice(splice.raw()),
        None => {
            let value = to_value(storage, kind, object)?;
            let raw = transcode::value_to_proto(kind.schema(), &value, &mut Report::default());
            out.extend_from_slice(&raw.map_err(Failure::internal)?);
        }
    }
    Ok(())
}

/// Length of [`to_proto`].
pub fn proto_len(storage: &Storage, kind: &Kind, object: &Object) -> Result<usize> {
    match spliced(storage, kind, object) {
        Some(splice) if object.revision > 0 => Ok(splice.len(itoa::Buffer::new().format(object.revision))),
        _ => to_proto(storage, kind, object).map(|raw| raw.len()),
    }
}

/// The JSON texts before and after the items of a list as YAML.
pub fn yaml_frame(head: &[u8], tail: &[u8], is_empty: bool) -> Result<(Vec<u8>, Vec<u8>)> {
    let whole: Value = serde_json::from_slice(&[head, tail].concat()).map_err(Failure::internal)?;
    let list = if whole.get("rows").is_some() { "rows" } else { "items" };
    let (before, after) = yaml::around(&whole, list);
    let items = match &whole[list] {
        Value::Null => " null",
        _ if is_empty => " []",
        _ => "",
    };
    Ok((format!("{before}{list}:{items}\n").into(), after.into()))
}

/// The JSON text of an item of a list as YAML.
pub fn yaml_item(json: &[u8]) -> Result<Vec<u8>> {
    let value: Value = serde_json::from_slice(json).map_err(Failure::internal)?;
    Ok(yaml::item(&value).into())
}

/// The JSON object of an object in the version of `kind`, without `kind` and `apiVersion`.
pub fn to_json(storage: &Storage, kind: &Kind, object: &Object) -> Result<Bytes> {
    if crate::custom::is_custom(kind) {
        let value = to_value(storage, kind, object)?;
        return Ok(transcode::go_json(&value).into());
    }
    let mut out = Vec::with_capacity(object.data.len() * 3);
    append_json(storage, kind, object, &mut out)?;
    Ok(out.into())
}

/// Appends [`to_json`] of a kind that is no custom one.
pub fn append_json(storage: &Storage, kind: &Kind, object: &Object, out: &mut Vec<u8>) -> Result<()> {
    let raw = to_proto(storage, kind, object)?;
    transcode::proto_to_json(kind.schema(), &raw, None, out).map_err(Failure::internal)
}

/// A tree as a typed message.
///
/// # Errors
/// When a value does not fit its field.
pub fn typed<M: prost::Message + Default>(message: &'static Message, value: &Value) -> Result<M> {
    let raw = transcode::value_to_proto(message, value, &mut transcode::Report::default());
    M::decode(raw.map_err(Failure::internal)?.as_slice()).map_err(Failure::internal)
}

/// The tree in the form clients read it: known fields only, values canonical.
pub fn canonical(kind: &Kind, value: &Value) -> Result<Value> {
    let raw =
        transcode::value_to_proto(kind.schema(), value, &mut Report::default()).map_err(|e| bad_field(kind, &e))?;
    read_back(kind, value, &raw)
}

/// The canonical form of an object that says nothing, made once for each kind that is built in.
pub fn empty(kind: &'static Kind) -> Result<Arc<Value>> {
    static MADE: LazyLock<RwLock<HashMap<usize, Arc<Value>>>> = LazyLock::new(RwLock::default);
    let key = std::ptr::from_ref(kind).addr();
    if let Some(made) = MADE.read().get(&key) {
        return Ok(made.clone());
    }
    let made = Arc::new(canonical(kind, &Value::Object(Map::new()))?);
    if !crate::custom::is_custom(kind) {
        MADE.write().insert(key, made.clone());
    }
    Ok(made)
}

/// The canonical form of a message of another type than the kinds that are stored.
pub fn canonical_message(schema: &'static Message, name: api::TypeName, value: &Value) -> Result<Value> {
    let raw = transcode::value_to_proto(schema, value, &mut Report::default());
    let raw = raw.map_err(|issue| Failure::bad_request(complaint(&issue)))?;
    transcode::proto_to_value(schema, &raw, Some((&name.api_version(), name.kind))).map_err(Failure::internal)
}

/// What a message of a schema says of a tree; what the schema does not know is left out.
pub fn known(schema: &'static Message, value: &Value) -> Result<Value> {
    let raw = transcode::value_to_proto(schema, value, &mut Report::default()).map_err(Failure::internal)?;
    transcode::proto_to_value(schema, &raw, None).map_err(Failure::internal)
}

/// What the JSON decoder says of a tree that is no such message.
#[must_use]
pub fn decoding_error(schema: &'static Message, value: &Value) -> Option<String> {
    transcode::value_to_proto(schema, value, &mut Report::default()).err().map(|issue| complaint(&issue))
}

/// What strict decoding says of fields that the message does not have.
#[must_use]
pub fn unknown_fields(schema: &'static Message, value: &Value) -> Vec<String> {
    let mut report = Report::default();
    // Values that do not fit are told by the decoding itself.
    let _told_there = transcode::value_to_proto(schema, value, &mut report);
    report.unknown.iter().map(|path| format!("unknown field {path:?}")).collect()
}

/// An object of one version of a kind that is built in, in another.
pub fn in_version(storage: &Storage, (from, to): (&Kind, &Kind), value: Value) -> Result<Value> {
    let stored = convert::to_stored(storage, from, value);
    canonical(to, &convert::from_stored(storage, to, stored))
}

fn read_back(kind: &Kind, value: &Value, raw: &[u8]) -> Result<Value> {
    let name = kind.api_version();
    if crate::custom::is_custom(kind) {
        let meta = transcode::proto_to_value(kind.schema(), raw, None).map_err(Failure::internal)?;
        let mut whole = value.clone();
        whole["metadata"] = meta["metadata"].clone();
        return Ok(whole);
    }
    transcode::proto_to_value(kind.schema(), raw, Some((&name, kind.kind))).map_err(Failure::internal)
}

/// The canonical form of what a client wrote, or what is wrong with it; notes what the kind does not know. Lists and
/// maps that hold nothing stay: see [`as_stored`].
pub fn canonical_request(kind: &Kind, parsed: &mut Parsed<'_>) -> std::result::Result<Value, Box<transcode::Issue>> {
    let mut report = Report::default();
    let value = try_canonical(kind, &parsed.value, &mut report)?;
    parsed.unknown = Some(report.unknown);
    Ok(value)
}

/// As [`canonical_request`], of a tree.
pub fn try_canonical(
    kind: &Kind,
    value: &Value,
    report: &mut Report,
) -> std::result::Result<Value, Box<transcode::Issue>> {
    let raw = transcode::value_to_proto(kind.schema(), value, report)?;
    // Bytes that were just written can be read.
    let mut whole = read_back(kind, value, &raw).unwrap_or_default();
    if !crate::custom::is_custom(kind) {
        blank::keep(kind.schema(), &mut whole, value);
    }
    Ok(whole)
}

/// Whether two trees are the same message: nothing is told apart that has no place of its own in it.
#[must_use]
pub fn is_same(message: &'static Message, a: &Value, b: &Value) -> bool {
    let raw = |value: &Value| transcode::value_to_proto(message, value, &mut Report::default()).ok();
    raw(a) == raw(b)
}

/// The tree with the fields that it names itself, values canonical: nothing is added for fields it does not name.
pub fn declared(kind: &Kind, value: &Value) -> Result<Value> {
    let mut out = value.clone();
    let whole = canonical(kind, value)?;
    adopt(&mut out, &whole);
    Ok(out)
}

/// Takes the values of `whole` over for what is named, and drops what `whole` does not know.
fn adopt(named: &mut Value, whole: &Value) {
    match (named, whole) {
        (Value::Object(named), Value::Object(whole)) => {
            named.retain(|key, value| whole.contains_key(key) || is_empty(value));
            for (key, value) in named.iter_mut() {
                if let Some(canonical) = whole.get(key) {
                    adopt(value, canonical);
                }
            }
        }
        (Value::Array(named), Value::Array(whole)) if named.len() == whole.len() => {
            named.iter_mut().zip(whole).for_each(|(value, canonical)| adopt(value, canonical));
        }
        (named, whole) if !named.is_null() => *named = whole.clone(),
        _ => {}
    }
}

/// Whether the canonical form leaves the value out although the field is known.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

/// The failure for a value that does not fit its field, in the words of the JSON decoder that clients know.
#[must_use]
pub fn bad_field(kind: &Kind, issue: &transcode::Issue) -> Failure {
    let is_custom = crate::custom::is_custom(kind);
    let (name, text) = (kind.kind, if is_custom { of_metadata(issue) } else { complaint(issue) });
    Failure::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {text}", kind.version))
}

/// What in a tree has another type than the message's field, if anything has.
#[must_use]
pub fn mistyped(message: &'static Message, value: &Value) -> Option<String> {
    transcode::value_to_proto(message, value, &mut Report::default()).err().map(|issue| complaint(&issue))
}

/// What is wrong with the metadata of a custom resource, which is read for itself.
fn of_metadata(issue: &transcode::Issue) -> String {
    let mut issue = issue.clone();
    issue.go_field = match issue.go_field.split_once(".metadata") {
        Some((_, "")) | None => String::new(),
        Some((message, below)) => format!("{message}{below}"),
    };
    alone(&issue, &issue.expected)
}

/// What is wrong with a value that is read for itself, into a Go type.
#[must_use]
pub fn alone(issue: &transcode::Issue, ty: &str) -> String {
    if issue.go_field.is_empty() {
        return format!("json: cannot unmarshal {} into Go value of type {ty}", issue.found);
    }
    complaint(issue)
}

/// What is wrong with a value that does not fit its field, in the words of the JSON decoder that clients know.
#[must_use]
pub fn complaint(issue: &transcode::Issue) -> String {
    let field = &issue.go_field;
    let text = || serde_json::from_str::<String>(&issue.found).ok();
    let micros = issue.expected.ends_with("microseconds");
    match issue.expected.as_str() {
        time if time.starts_with("an RFC 3339 time") => match text() {
            Some(text) => api::time::parse_as(&text, micros).err().unwrap_or_default(),
            None => format!("json: cannot unmarshal {} into Go value of type string", issue.found),
        },
        "a duration" => api::time::duration_complaint(&text().unwrap_or_default()),
        "a quantity" => api::quantity::Amount::parse(&text().unwrap_or_default())
            .map_or_else(|wrong| wrong.to_string(), |_| String::new()),
        text if text.starts_with("base64 text") => {
            format!("illegal base64 data at input {}", text.rsplit(" at ").next().unwrap_or_default())
        }
        "a schema" => "boolean or JSON schema expected".to_owned(),
        ty => format!("json: cannot unmarshal {} into Go struct field {field} of type {ty}", issue.found),
    }
}
