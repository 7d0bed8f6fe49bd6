//! A finished object's message, made once for all who look at it: what is validated is what is stored.

use api::Kind;
use api::meta::v1::ObjectMeta;
use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;

use super::{convert, encode};
use crate::cache::{Object, Storage};
use crate::status::{Failure, Result};
use crate::wire::{self, Splice};

/// The message, of the stored version, of an object with its resource version. Of a custom resource it is the metadata.
pub struct Encoded(Bytes);

impl Encoded {
    /// Of a tree in the version of `kind`.
    pub fn of(storage: &Storage, kind: &Kind, value: &Value) -> Result<Self> {
        let raw = if convert::is_needed(storage, kind) {
            encode(storage, kind, &convert::to_stored(storage, kind, value.clone()))
        } else {
            encode(storage, kind, value)
        };
        raw.map(|raw| Self(raw.into()))
    }

    /// Of a stored object, whose tree in the version of `kind` is `value`.
    pub fn of_stored(storage: &Storage, kind: &Kind, object: &Object, value: &Value) -> Result<Self> {
        if crate::custom::is_custom(kind) {
            return Self::of(storage, kind, value);
        }
        super::to_proto(storage, storage.kind, object).map(Self)
    }

    /// The message.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.0
    }

    /// Its metadata.
    ///
    /// # Errors
    /// When it is none.
    pub fn metadata(&self) -> Result<ObjectMeta> {
        ObjectMeta::decode(wire::bytes_field(&self.0, 1).unwrap_or_default()).map_err(Failure::internal)
    }

    /// What is stored of it, which is not its resource version. A custom resource is stored in another way.
    ///
    /// # Errors
    /// When it is no object.
    pub fn to_stored(&self, storage: &Storage) -> Result<Bytes> {
        let splice = Splice::find(&self.0).ok_or_else(|| Failure::internal("an object without metadata"))?;
        let len = splice.len("");
        if !storage.kind.stored_as_json {
            let mut out = Vec::with_capacity(len + 64);
            api::envelope::wrap_head(storage.api_version, storage.kind.kind, len, &mut out);
            splice.write("", &mut out);
            out.extend_from_slice(api::envelope::TAIL);
            return Ok(out.into());
        }
        let mut raw = Vec::with_capacity(len);
        splice.write("", &mut raw);
        super::json_stored(storage, &raw)
    }
}
