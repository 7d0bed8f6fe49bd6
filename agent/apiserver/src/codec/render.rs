//! Objects and frames in the encodings clients ask for.

use api::Kind;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::forms::{Form, Forms, Key, Sort};
use crate::cache::{Object, Storage};
use crate::negotiate::Encoding;
use crate::status::Result;
use crate::wire::{put_varint, varint_len};

/// Writes the objects of one storage in one served version.
#[derive(Clone, Copy)]
pub struct Renderer<'a> {
    /// Where the objects lie.
    pub storage: &'a Storage,
    /// The version to write.
    pub kind: &'static Kind,
    /// Forms made before.
    pub cache: &'a Forms,
}

impl Renderer<'_> {
    /// Where a form of an object is kept. None of one that was only tried, which has no version to find it by, nor of a
    /// custom resource: its definition may change how objects are shown, so that a revision says too little.
    pub(crate) fn key(&self, object: &Object, sort: Sort) -> Option<Key> {
        let is_kept = !object.dry && !crate::custom::is_custom(self.kind);
        let (storage, message) = (self.storage.index, self.kind.message);
        is_kept.then_some(Key { storage, message, revision: object.revision, sort })
    }

    /// The JSON object without type names.
    pub fn json(&self, object: &Object) -> Result<Bytes> {
        let Some(key) = self.key(object, Sort::Json) else { return super::to_json(self.storage, self.kind, object) };
        if let Some(text) = self.cache.read(&key, |form| form.text.clone()) {
            return Ok(text);
        }
        // Without the room that was left for it to grow.
        let text = Bytes::copy_from_slice(&super::to_json(self.storage, self.kind, object)?);
        self.cache.keep(key, Form::whole(text.clone()));
        Ok(text)
    }

    /// Appends the JSON object without type names, for lists.
    pub fn append_json(&self, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        let Some(key) = self.key(object, Sort::Json) else {
            out.extend_from_slice(&self.json(object)?);
            return Ok(());
        };
        if self.cache.read(&key, |form| out.extend_from_slice(&form.text)).is_none() {
            let start = out.len();
            super::append_json(self.storage, self.kind, object, out)?;
            self.cache.keep_beside(key, || Form::whole(Bytes::copy_from_slice(&out[start..])));
        }
        Ok(())
    }

    /// The protobuf message without envelope.
    pub fn proto(&self, object: &Object) -> Result<Bytes> {
        super::to_proto(self.storage, self.kind, object)
    }

    /// Appends [`Renderer::proto`].
    pub fn append_proto(&self, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        super::append_proto(self.storage, self.kind, object, out)
    }

    /// Length of [`Renderer::proto`].
    pub fn proto_len(&self, object: &Object) -> Result<usize> {
        super::proto_len(self.storage, self.kind, object)
    }

    /// The tree.
    pub fn value(&self, object: &Object) -> Result<Value> {
        super::to_value(self.storage, self.kind, object)
    }

    /// A whole answer with one object.
    pub fn object(&self, object: &Object, encoding: Encoding) -> Result<Bytes> {
        match encoding {
            Encoding::Json => {
                let mut out = self.named_json(object)?;
                out.put_u8(b'\n');
                Ok(out.freeze())
            }
            Encoding::Yaml => yaml(&self.value(object)?),
            Encoding::Protobuf => {
                let raw = self.proto(object)?;
                Ok(api::envelope::wrap(&self.kind.api_version(), self.kind.kind, &raw).into())
            }
        }
    }

    fn named_json(&self, object: &Object) -> Result<BytesMut> {
        let body = self.json(object)?;
        if crate::custom::is_custom(self.kind) {
            return Ok(BytesMut::from(&body[..]));
        }
        let mut out = BytesMut::with_capacity(body.len() + 80);
        put_type_names(&mut out, self.kind.kind, &self.kind.api_version());
        if body.len() > 2 {
            out.put_u8(b',');
        }
        out.put_slice(&body[1..]);
        Ok(out)
    }

    /// A frame of a watch.
    pub fn frame(&self, event: &str, object: &Object, encoding: Encoding) -> Result<Bytes> {
        match encoding {
            Encoding::Json | Encoding::Yaml => Ok(json_frame(event, &self.named_json(object)?)),
            Encoding::Protobuf => Ok(proto_frame(event, &self.object(object, encoding)?)),
        }
    }
}

/// `{"kind":"X","apiVersion":"y"`, with the rest to follow.
pub fn put_type_names(out: &mut BytesMut, kind: &str, api_version: &str) {
    out.put_slice(b"{\"kind\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"apiVersion\":\"");
    out.put_slice(api_version.as_bytes());
    out.put_u8(b'"');
}

/// A line of a JSON watch.
#[must_use]
pub fn json_frame(event: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(event.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

/// A length-delimited frame of a protobuf watch around an object in its envelope.
#[must_use]
pub fn proto_frame(event: &str, object: &[u8]) -> Bytes {
    let raw = 1 + varint_len(object.len()) + object.len();
    let total = 1 + varint_len(event.len()) + event.len() + 1 + varint_len(raw) + raw;
    let mut out = BytesMut::with_capacity(total + 4);
    out.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
    out.put_u8(0x0a);
    put_varint(&mut out, event.len());
    out.put_slice(event.as_bytes());
    out.put_u8(0x12);
    put_varint(&mut out, raw);
    out.put_u8(0x0a);
    put_varint(&mut out, object.len());
    out.put_slice(object);
    out.freeze()
}

/// A tree as YAML.
pub fn yaml(value: &Value) -> Result<Bytes> {
    Ok(super::yaml::text(value).into())
}

/// JSON text indented by two spaces, keys in their order.
#[must_use]
pub fn indent(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    Indenter::default().push(json, &mut out);
    out.into()
}

/// Indents a JSON text that comes in pieces.
#[derive(Default)]
pub struct Indenter {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// The bracket just opened, as long as it may be empty.
    opened: Option<u8>,
}

impl Indenter {
    /// Appends the next piece to `out`.
    pub fn push(&mut self, json: &[u8], out: &mut Vec<u8>) {
        for byte in json.iter().copied() {
            if self.quoted {
                out.push(byte);
                self.quoted = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            if let Some(opened) = self.opened.take() {
                if byte == opened + 2 {
                    out.push(byte);
                    continue;
                }
                self.depth += 1;
                self.line(out);
            }
            self.put(byte, out);
        }
    }

    fn put(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                self.opened = Some(byte);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.line(out);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                self.line(out);
            }
            b':' => out.extend_from_slice(b": "),
            b'\n' => {}
            _ => {
                self.quoted = byte == b'"';
                out.push(byte);
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + self.depth * 2, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_order_and_strings() {
        let out = indent(br#"{"b":{"x":"a,\"{"},"a":[],"c":[1,2]}"#);
        assert_eq!(out, "{\n  \"b\": {\n    \"x\": \"a,\\\"{\"\n  },\n  \"a\": [],\n  \"c\": [\n    1,\n    2\n  ]\n}");
    }

    #[test]
    fn pieces_are_indented_as_the_whole_is() {
        let text = br#"{"b":{"x":"a,\"{"},"a":[],"c":[{},2]}"#;
        for cut in 0..text.len() {
            let (mut indenter, mut out) = (Indenter::default(), Vec::new());
            indenter.push(&text[..cut], &mut out);
            indenter.push(&text[cut..], &mut out);
            assert_eq!(out, indent(text), "cut at {cut}");
        }
    }

    #[test]
    fn a_protobuf_frame_is_length_delimited() {
        let frame = proto_frame("ADDED", b"k8s\0x");
        assert_eq!(&frame[..4], &[0, 0, 0, 16]);
        assert_eq!(frame.len(), 20);
    }
}
