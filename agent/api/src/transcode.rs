//! One table-driven transcoder between protobuf and JSON, for every kind.
//!
//! Protobuf to JSON follows Go's `encoding/json` on upstream's structs: field order of the struct, `omitempty`,
//! `null` for unset lists without it, HTML escapes, sorted map keys. JSON to protobuf gives upstream's canonical bytes.

mod fields;
mod read;
mod sink;
mod write;

pub use crate::json::put_json;
pub use read::{Issue, Report, value_to_proto};
pub use write::proto_to_json;

use prost::DecodeError;
use serde_json::Value;

use crate::schema::Message;

/// Name of an object's type: `apiVersion` and `kind`.
pub type TypeName<'a> = (&'a str, &'a str);

/// The JSON tree of an encoded message, with `kind` and `apiVersion` where `name` gives them.
///
/// # Errors
/// When the bytes are malformed.
pub fn proto_to_value(message: &Message, bytes: &[u8], name: Option<TypeName<'_>>) -> Result<Value, DecodeError> {
    let mut tree = sink::Tree::default();
    write::write(message, bytes, name, &mut tree)?;
    Ok(tree.into_value())
}

/// Upstream's bytes for an encoded message, whoever encoded it.
///
/// # Errors
/// When the bytes are malformed.
pub fn canonical(message: &'static Message, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value = proto_to_value(message, bytes, None)?;
    value_to_proto(message, &value, &mut Report::default()).map_err(|_| crate::wire::malformed("value"))
}

/// [`put_json`] of a tree, as a text.
#[must_use]
pub fn go_json(value: &Value) -> String {
    let mut out = Vec::new();
    put_json(value, &mut out);
    // Nothing but texts went in, whole.
    String::from_utf8(out).unwrap_or_default()
}

/// JSON text of a typed message.
#[must_use]
pub fn to_json<M: prost::Message>(message: &Message, typed: &M, name: Option<TypeName<'_>>) -> Vec<u8> {
    let mut out = Vec::new();
    // A message that was just encoded decodes; raw JSON inside is copied unseen.
    if proto_to_json(message, &typed.encode_to_vec(), name, &mut out).is_err() {
        out.clear();
        out.extend_from_slice(b"null");
    }
    out
}

#[cfg(test)]
mod tests;
