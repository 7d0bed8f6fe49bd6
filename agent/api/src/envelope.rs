//! The envelope around protobuf objects: four magic bytes and a `runtime.Unknown`.
//!
//! Upstream stores and sends objects like this; the type's name is in the envelope, not in the object.

use prost::Message;

use crate::kind::Kind;
use crate::runtime::{TypeMeta, Unknown};
use crate::wire;

/// What an envelope begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The magic bytes are missing.
    #[error("protobuf object does not begin with the bytes 6b 38 73 00")]
    Magic,
    /// What follows is not a `runtime.Unknown`.
    #[error("protobuf envelope is malformed")]
    Malformed(#[from] prost::DecodeError),
}

/// An envelope's parts, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View<'a> {
    /// `apiVersion` of the object inside.
    pub api_version: &'a str,
    /// `kind` of the object inside.
    pub kind: &'a str,
    /// The object.
    pub raw: &'a [u8],
}

/// Wraps a typed object of `kind`.
#[must_use]
pub fn encode<M: Message>(kind: &Kind, message: &M) -> Vec<u8> {
    encode_as(&kind.api_version(), kind.kind, message)
}

/// Wraps a typed message under a type name that is no served kind, such as `meta.k8s.io/v1 DeleteOptions`.
#[must_use]
pub fn encode_as<M: Message>(api_version: &str, kind: &str, message: &M) -> Vec<u8> {
    wrap(api_version, kind, &message.encode_to_vec())
}

/// Wraps an encoded object.
#[must_use]
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    wrap_into(api_version, kind, raw, &mut out);
    out
}

/// Appends an envelope around an encoded object to `out`.
pub fn wrap_into(api_version: &str, kind: &str, raw: &[u8], out: &mut Vec<u8>) {
    wrap_head(api_version, kind, raw.len(), out);
    out.extend_from_slice(raw);
    out.extend_from_slice(TAIL);
}

/// What follows the object: empty `contentEncoding` and `contentType`.
pub const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Appends all of an envelope that comes before an object of `raw_len` bytes; [`TAIL`] comes after it.
pub fn wrap_head(api_version: &str, kind: &str, raw_len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    let meta = 2
        + wire::varint_len(api_version.len() as u64)
        + wire::varint_len(kind.len() as u64)
        + api_version.len()
        + kind.len();
    out.push(0x0a);
    wire::put_varint(out, meta as u64);
    wire::put_bytes(out, 1, api_version.as_bytes());
    wire::put_bytes(out, 2, kind.as_bytes());
    out.push(0x12);
    wire::put_varint(out, raw_len as u64);
}

/// Opens an envelope.
///
/// # Errors
/// When the bytes are no envelope.
pub fn decode(bytes: &[u8]) -> Result<Unknown, EnvelopeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(EnvelopeError::Magic)?;
    Ok(Unknown::decode(rest)?)
}

/// Opens an envelope without copying the object.
///
/// # Errors
/// When the bytes are no envelope.
pub fn view(bytes: &[u8]) -> Result<View<'_>, EnvelopeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(EnvelopeError::Magic)?;
    let mut view = View::default();
    for field in wire::fields(rest) {
        let field = field.map_err(EnvelopeError::Malformed)?;
        match (field.number, field.value) {
            (1, wire::Value::Bytes(meta)) => {
                for inner in wire::fields(meta) {
                    let inner = inner.map_err(EnvelopeError::Malformed)?;
                    match (inner.number, inner.value) {
                        (1, wire::Value::Bytes(text)) => view.api_version = utf8(text)?,
                        (2, wire::Value::Bytes(text)) => view.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, wire::Value::Bytes(raw)) => view.raw = raw,
            _ => {}
        }
    }
    Ok(view)
}

fn utf8(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_| EnvelopeError::Malformed(wire::malformed("a type name that is not UTF-8")))
}

/// Opens an envelope and decodes the typed object in it. Does not check the type's name.
///
/// # Errors
/// When the bytes are no envelope or the object is malformed.
pub fn decode_message<M: Message + Default>(bytes: &[u8]) -> Result<M, EnvelopeError> {
    Ok(M::decode(view(bytes)?.raw)?)
}

impl Unknown {
    /// `apiVersion` and `kind` of the object inside.
    #[must_use]
    pub fn type_names(&self) -> (&str, &str) {
        let TypeMeta { api_version, kind } = &self.type_meta;
        (api_version, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource as _;
    use crate::core::v1::ConfigMap;

    #[test]
    fn an_object_comes_back_out_of_its_envelope() {
        let mut map = ConfigMap::default();
        map.metadata.name = "a".to_owned();
        let bytes = encode(ConfigMap::KIND, &map);
        let seen = view(&bytes).unwrap();
        assert_eq!((seen.api_version, seen.kind), ("v1", "ConfigMap"));
        assert_eq!(decode_message::<ConfigMap>(&bytes).unwrap(), map);
        assert_eq!(decode(&bytes).unwrap().raw.as_deref(), Some(seen.raw));
    }

    #[test]
    fn bytes_that_are_no_envelope_are_refused() {
        assert!(matches!(view(b"{}"), Err(EnvelopeError::Magic)));
        assert!(matches!(view(b"k8s\0\x0a\xff"), Err(EnvelopeError::Malformed(_))));
    }
}
