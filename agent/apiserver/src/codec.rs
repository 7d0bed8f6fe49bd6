//! Between stored bytes, trees and what clients read.

mod convert;
mod parse;
mod render;

use api::Kind;
use api::schema::Message;
use api::transcode::{self, Report};
use bytes::Bytes;
use serde_json::Value;

pub use parse::{Parsed, parse_body, parse_json};
pub use render::{JsonCache, Renderer, indent, json_frame, proto_frame, put_type_names, yaml};

use crate::cache::{Object, Storage};
use crate::status::{Failure, Result};
use crate::wire::Splice;

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
    let mut value = match api::envelope::view(&object.data) {
        Ok(view) => {
            let name = (storage.api_version, storage.kind.kind);
            transcode::proto_to_value(stored_schema(storage), view.raw, Some(name)).map_err(Failure::internal)?
        }
        Err(_) => serde_json::from_slice(&object.data).map_err(Failure::internal)?,
    };
    value = convert::from_stored(storage, kind, value);
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    value["metadata"]["resourceVersion"] = object.revision.to_string().into();
    Ok(value)
}

/// The stored form of a tree in the version of `kind`.
pub fn to_stored(storage: &Storage, kind: &Kind, value: &Value) -> Result<Bytes> {
    let mut value = convert::to_stored(storage, kind, value.clone());
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
        meta.remove("selfLink");
    }
    let message = stored_schema(storage);
    let raw = transcode::value_to_proto(message, &value, &mut Report::default()).map_err(|e| bad_field(kind, &e))?;
    if !storage.kind.stored_as_json {
        return Ok(api::envelope::wrap(storage.api_version, storage.kind.kind, &raw).into());
    }
    let mut out = Vec::new();
    let name = storage.kind.api_version();
    transcode::proto_to_json(message, &raw, Some((&name, storage.kind.kind)), &mut out).map_err(Failure::internal)?;
    out.push(b'\n');
    Ok(out.into())
}

/// The protobuf message of an object in the version of `kind`, with its resource version.
pub fn to_proto(storage: &Storage, kind: &Kind, object: &Object) -> Result<Bytes> {
    if !convert::is_needed(storage, kind)
        && let Ok(view) = api::envelope::view(&object.data)
        && let Some(splice) = Splice::find(view.raw)
    {
        return Ok(splice.to_bytes(&object.revision.to_string()));
    }
    let value = to_value(storage, kind, object)?;
    let raw = transcode::value_to_proto(kind.schema(), &value, &mut Report::default()).map_err(Failure::internal)?;
    Ok(raw.into())
}

/// The JSON object of an object in the version of `kind`, without `kind` and `apiVersion`.
pub fn to_json(storage: &Storage, kind: &Kind, object: &Object) -> Result<Bytes> {
    let raw = to_proto(storage, kind, object)?;
    let mut out = Vec::with_capacity(raw.len() * 2);
    transcode::proto_to_json(kind.schema(), &raw, None, &mut out).map_err(Failure::internal)?;
    Ok(out.into())
}

/// The tree in the form clients read it: known fields only, values canonical.
pub fn canonical(kind: &Kind, value: &Value) -> Result<Value> {
    let raw =
        transcode::value_to_proto(kind.schema(), value, &mut Report::default()).map_err(|e| bad_field(kind, &e))?;
    let name = kind.api_version();
    transcode::proto_to_value(kind.schema(), &raw, Some((&name, kind.kind))).map_err(Failure::internal)
}

/// The failure for a value that does not fit its field, in the words of the JSON decoder that clients know.
#[must_use]
pub fn bad_field(kind: &Kind, issue: &transcode::Issue) -> Failure {
    let struct_name = issue.message.rsplit('.').next().unwrap_or_default();
    let last = issue.path.rsplit('.').next().unwrap_or_default();
    let name = last.split('[').next().unwrap_or_default();
    let kind_name = kind.kind;
    Failure::bad_request(format!(
        "{kind_name} in version {:?} cannot be handled as a {kind_name}: json: cannot unmarshal {} into Go struct field \
         {struct_name}.{name} of type {}",
        kind.version, issue.found, issue.expected
    ))
}
