//! The protobuf form of OpenAPI v2, which kubectl reads: the messages of `openapi.v2.Document`.
//!
//! The JSON document is the source; a table per message says which of its keys has which number and type. Keys that
//! begin with `x-` travel as YAML text.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// How the value of a key is written.
#[derive(Clone, Copy)]
enum Ty {
    Text,
    Texts,
    Flag,
    Integer,
    Double,
    /// Any JSON, as YAML text.
    Any,
    Anys,
    /// One message.
    One(&'static Shape),
    /// A list of messages.
    Many(&'static Shape),
    /// An object whose keys are names: a message holding (name, value) pairs under this number.
    Named(u32, &'static Shape),
    /// A type, which may be a list of types.
    Type,
    /// `items`: a message holding schemas.
    Items,
    /// `additionalProperties`: a schema or a boolean.
    Additional,
}

/// A message: what it is wrapped in, its keys, the number of its extensions (0 without).
struct Shape {
    /// Numbers of the `oneof` messages around it, outermost first, chosen by what the object says.
    wrap: fn(&Map<String, Value>) -> &'static [u32],
    /// Keys, numbers and types.
    keys: &'static [(&'static str, u32, Ty)],
    extensions: u32,
}

fn bare(_: &Map<String, Value>) -> &'static [u32] {
    &[]
}

fn first(_: &Map<String, Value>) -> &'static [u32] {
    &[1]
}

static DOCUMENT: Shape = Shape {
    wrap: bare,
    keys: &[
        ("swagger", 1, Ty::Text),
        ("info", 2, Ty::One(&INFO)),
        ("paths", 8, Ty::Named(2, &PATH_ITEM)),
        ("definitions", 9, Ty::Named(1, &SCHEMA)),
        ("security", 12, Ty::Many(&REQUIREMENT)),
        ("securityDefinitions", 13, Ty::Named(1, &SECURITY)),
    ],
    extensions: 16,
};

static INFO: Shape = Shape { wrap: bare, keys: &[("title", 1, Ty::Text), ("version", 2, Ty::Text)], extensions: 7 };

static PATH_ITEM: Shape = Shape {
    wrap: bare,
    keys: &[
        ("get", 2, Ty::One(&OPERATION)),
        ("put", 3, Ty::One(&OPERATION)),
        ("post", 4, Ty::One(&OPERATION)),
        ("delete", 5, Ty::One(&OPERATION)),
        ("options", 6, Ty::One(&OPERATION)),
        ("head", 7, Ty::One(&OPERATION)),
        ("patch", 8, Ty::One(&OPERATION)),
        ("parameters", 9, Ty::Many(&PARAMETER)),
    ],
    extensions: 10,
};

static OPERATION: Shape = Shape {
    wrap: bare,
    keys: &[
        ("tags", 1, Ty::Texts),
        ("description", 3, Ty::Text),
        ("operationId", 5, Ty::Text),
        ("produces", 6, Ty::Texts),
        ("consumes", 7, Ty::Texts),
        ("parameters", 8, Ty::Many(&PARAMETER)),
        ("responses", 9, Ty::Named(1, &RESPONSE)),
        ("schemes", 10, Ty::Texts),
    ],
    extensions: 13,
};

/// A parameter is one of three messages with numbers of their own; the differing ones are told by where it stands.
static PARAMETER: Shape = Shape {
    wrap: |map| match map.get("in").and_then(Value::as_str) {
        Some("body") => &[1, 1],
        Some("path") => &[1, 2, 4],
        _ => &[1, 2, 3],
    },
    keys: &[],
    extensions: 0,
};

static BODY: Shape = Shape {
    wrap: bare,
    keys: &[
        ("description", 1, Ty::Text),
        ("name", 2, Ty::Text),
        ("in", 3, Ty::Text),
        ("required", 4, Ty::Flag),
        ("schema", 5, Ty::One(&SCHEMA)),
    ],
    extensions: 6,
};

static PATH_PARAMETER: Shape = Shape {
    wrap: bare,
    keys: &[
        ("required", 1, Ty::Flag),
        ("in", 2, Ty::Text),
        ("description", 3, Ty::Text),
        ("name", 4, Ty::Text),
        ("type", 5, Ty::Text),
        ("uniqueItems", 19, Ty::Flag),
    ],
    extensions: 22,
};

static QUERY_PARAMETER: Shape = Shape {
    wrap: bare,
    keys: &[
        ("required", 1, Ty::Flag),
        ("in", 2, Ty::Text),
        ("description", 3, Ty::Text),
        ("name", 4, Ty::Text),
        ("type", 6, Ty::Text),
        ("uniqueItems", 20, Ty::Flag),
    ],
    extensions: 23,
};

static RESPONSE: Shape = Shape {
    wrap: first,
    keys: &[("description", 1, Ty::Text), ("schema", 2, Ty::One(&RESPONSE_SCHEMA))],
    extensions: 5,
};

static RESPONSE_SCHEMA: Shape = Shape { wrap: first, keys: SCHEMA_KEYS, extensions: 31 };

static SCHEMA: Shape = Shape { wrap: bare, keys: SCHEMA_KEYS, extensions: 31 };

static SCHEMA_KEYS: &[(&str, u32, Ty)] = &[
    ("$ref", 1, Ty::Text),
    ("format", 2, Ty::Text),
    ("title", 3, Ty::Text),
    ("description", 4, Ty::Text),
    ("default", 5, Ty::Any),
    ("multipleOf", 6, Ty::Double),
    ("maximum", 7, Ty::Double),
    ("exclusiveMaximum", 8, Ty::Flag),
    ("minimum", 9, Ty::Double),
    ("exclusiveMinimum", 10, Ty::Flag),
    ("maxLength", 11, Ty::Integer),
    ("minLength", 12, Ty::Integer),
    ("pattern", 13, Ty::Text),
    ("maxItems", 14, Ty::Integer),
    ("minItems", 15, Ty::Integer),
    ("uniqueItems", 16, Ty::Flag),
    ("maxProperties", 17, Ty::Integer),
    ("minProperties", 18, Ty::Integer),
    ("required", 19, Ty::Texts),
    ("enum", 20, Ty::Anys),
    ("additionalProperties", 21, Ty::Additional),
    ("type", 22, Ty::Type),
    ("items", 23, Ty::Items),
    ("allOf", 24, Ty::Many(&SCHEMA)),
    ("properties", 25, Ty::Named(1, &SCHEMA)),
    ("example", 30, Ty::Any),
];

static SECURITY: Shape = Shape {
    wrap: |_| &[2],
    keys: &[("type", 1, Ty::Text), ("name", 2, Ty::Text), ("in", 3, Ty::Text), ("description", 4, Ty::Text)],
    extensions: 5,
};

/// A requirement holds named lists of texts; ours are empty lists.
static REQUIREMENT: Shape = Shape { wrap: bare, keys: &[("BearerToken", 1, Ty::Any)], extensions: 0 };

/// The protobuf form of a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(map) = document.as_object() {
        fields(&DOCUMENT, map, &mut out);
    }
    out
}

fn bytes(number: u32, data: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(data.len() as u64, out);
    out.extend_from_slice(data);
}

fn text(number: u32, value: &Value, out: &mut Vec<u8>) {
    if let Some(text) = value.as_str() {
        bytes(number, text.as_bytes(), out);
    }
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

/// The content of a message, wrapped as its `oneof`s want.
fn message(shape: &Shape, value: &Value) -> Vec<u8> {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    let wraps = (shape.wrap)(map);
    let inner = match wraps {
        [1, 1] => &BODY,
        [1, 2, 4] => &PATH_PARAMETER,
        [1, 2, 3] => &QUERY_PARAMETER,
        _ => shape,
    };
    let mut out = Vec::new();
    if std::ptr::eq(shape, &raw const REQUIREMENT) {
        requirement(map, &mut out);
    } else {
        fields(inner, map, &mut out);
    }
    for number in wraps.iter().rev() {
        let mut outer = Vec::with_capacity(out.len() + 8);
        bytes(*number, &out, &mut outer);
        out = outer;
    }
    out
}

fn requirement(map: &Map<String, Value>, out: &mut Vec<u8>) {
    for name in map.keys() {
        let mut pair = Vec::new();
        bytes(1, name.as_bytes(), &mut pair);
        bytes(2, &[], &mut pair);
        bytes(1, &pair, out);
    }
}

fn fields(shape: &Shape, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for (key, number, ty) in shape.keys {
        if let Some(value) = map.get(*key) {
            field(*number, *ty, value, out);
        }
    }
    if shape.extensions == 0 {
        return;
    }
    for (key, value) in map.iter().filter(|(key, _)| key.starts_with("x-")) {
        let mut pair = Vec::new();
        bytes(1, key.as_bytes(), &mut pair);
        bytes(2, &any(value), &mut pair);
        bytes(shape.extensions, &pair, out);
    }
}

/// JSON is YAML too, and every reader takes it.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let yaml = serde_yaml_ng::to_string(value).unwrap_or_default();
    bytes(2, yaml.as_bytes(), &mut out);
    out
}

fn field(number: u32, ty: Ty, value: &Value, out: &mut Vec<u8>) {
    let list = || value.as_array().into_iter().flatten();
    match ty {
        Ty::Text => text(number, value, out),
        Ty::Texts => list().for_each(|v| text(number, v, out)),
        Ty::Flag if value == &Value::Bool(true) => varint(number, 1, out),
        Ty::Flag => {}
        Ty::Integer => varint(number, value.as_i64().unwrap_or(0).cast_unsigned(), out),
        Ty::Double => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Ty::Any => bytes(number, &any(value), out),
        Ty::Anys => list().for_each(|v| bytes(number, &any(v), out)),
        Ty::One(shape) => bytes(number, &message(shape, value), out),
        Ty::Many(shape) => list().for_each(|v| bytes(number, &message(shape, v), out)),
        Ty::Named(pairs, shape) => {
            let mut inner = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                let mut pair = Vec::new();
                bytes(1, name.as_bytes(), &mut pair);
                bytes(2, &message(shape, value), &mut pair);
                bytes(pairs, &pair, &mut inner);
            }
            bytes(number, &inner, out);
        }
        Ty::Type => {
            let mut inner = Vec::new();
            text(1, value, &mut inner);
            list().for_each(|v| text(1, v, &mut inner));
            bytes(number, &inner, out);
        }
        Ty::Items => {
            let mut inner = Vec::new();
            bytes(1, &message(&SCHEMA, value), &mut inner);
            bytes(number, &inner, out);
        }
        Ty::Additional => {
            let mut inner = Vec::new();
            match value {
                Value::Bool(flag) => varint(2, u64::from(*flag), &mut inner),
                schema => bytes(1, &message(&SCHEMA, schema), &mut inner),
            }
            bytes(number, &inner, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_extensions_are_pairs() {
        let out = encode(&json!({"swagger": "2.0", "definitions": {"a": {"type": "string", "x-b": 1}}}));
        let schema = [0xb2, 1, 8, 0x0a, 6, b's', b't', b'r', b'i', b'n', b'g'];
        let extension = [0xfa, 1, 11, 0x0a, 3, b'x', b'-', b'b', 0x12, 4, 0x12, 2, b'1', b'\n'];
        let mut expected = vec![0x0a, 3, b'2', b'.', b'0', 0x4a, 34, 0x0a, 32, 0x0a, 1, b'a', 0x12, 27];
        expected.extend(schema);
        expected.extend(&extension[..]);
        // Lengths follow from the parts.
        let inner = schema.len() + extension.len();
        expected[13] = u8::try_from(inner).unwrap();
        expected[8] = u8::try_from(inner + 5).unwrap();
        expected[6] = u8::try_from(inner + 7).unwrap();
        assert_eq!(out, expected);
    }
}
