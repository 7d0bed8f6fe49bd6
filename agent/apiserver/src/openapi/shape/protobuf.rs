//! Documents as protobuf: the messages of `openapi.v2.Document` and `openapi.v3.Document`, which kubectl reads.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use super::{Pick, Shape, Ty, document};
use crate::codec;
use crate::openapi::Style;

/// The protobuf form of a document.
pub(in crate::openapi) fn encode(value: &Value, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(map) = value.as_object() {
        fields(document(style), map, &mut out);
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

fn double(number: u32, value: &Value, out: &mut Vec<u8>) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
}

/// A message that has a name and a value.
fn pair(number: u32, name: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    bytes(1, name.as_bytes(), &mut pair);
    bytes(2, value, &mut pair);
    bytes(number, &pair, out);
}

/// The content of a message, wrapped as its `oneof`s want.
fn message(pick: Pick, value: &Value) -> Vec<u8> {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    let (wraps, shape) = pick(map);
    let mut out = Vec::new();
    fields(shape, map, &mut out);
    for number in wraps.iter().rev() {
        let mut outer = Vec::with_capacity(out.len() + 8);
        bytes(*number, &out, &mut outer);
        out = outer;
    }
    out
}

/// All fields of a message in the order of their numbers, extensions last.
fn fields(shape: &Shape, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut known: Vec<_> =
        shape.keys.iter().filter_map(|(key, number, ty)| Some((number, *ty, map.get(*key)?))).collect();
    known.retain(|(_, ty, _)| !matches!(ty, Ty::Ordered(..)));
    known.sort_by_key(|(number, ..)| **number);
    for (number, ty, value) in known {
        field(*number, ty, value, out);
    }
    for (key, value) in map.iter().filter(|(key, _)| shape.extensions > 0 && key.starts_with("x-")) {
        let ty = shape.keys.iter().find(|(name, ..)| name == key).map(|(_, _, ty)| *ty);
        let value = match ty {
            Some(Ty::Ordered(keys, keeps_order)) if value.is_object() && keeps_order(value) => ordered(keys, value),
            _ => any(value),
        };
        pair(shape.extensions, key, &value, out);
    }
}

/// Any value as YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(2, &codec::yaml(value).unwrap_or_default(), &mut out);
    out
}

fn ordered(keys: &[&str], value: &Value) -> Vec<u8> {
    let lines = keys.iter().filter_map(|key| {
        let text = codec::yaml(value.get(*key)?).ok()?;
        Some(format!("{key}: {}", String::from_utf8_lossy(&text)))
    });
    let mut out = Vec::new();
    bytes(2, lines.collect::<String>().as_bytes(), &mut out);
    out
}

fn field(number: u32, ty: Ty, value: &Value, out: &mut Vec<u8>) {
    let list = || value.as_array().into_iter().flatten();
    let mut inner = Vec::new();
    match ty {
        Ty::Text => return text(number, value, out),
        Ty::Texts => return list().for_each(|v| text(number, v, out)),
        Ty::Flag if value == &Value::Bool(true) => return varint(number, 1, out),
        Ty::Flag | Ty::Ordered(..) => return,
        Ty::Integer => return varint(number, value.as_i64().unwrap_or(0).cast_unsigned(), out),
        Ty::Double => return double(number, value, out),
        Ty::Any => return bytes(number, &any(value), out),
        Ty::Anys => return list().for_each(|v| bytes(number, &any(v), out)),
        Ty::One(pick) => return bytes(number, &message(pick, value), out),
        Ty::Many(pick) => return list().for_each(|v| bytes(number, &message(pick, v), out)),
        Ty::Requirement => {
            let names = list().filter_map(Value::as_object);
            return names.for_each(|names| {
                let mut inner = Vec::new();
                names.keys().for_each(|name| pair(1, name, &[], &mut inner));
                bytes(number, &inner, out);
            });
        }
        Ty::Named(pairs, pick) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                pair(pairs, name, &message(pick, value), &mut inner);
            }
        }
        Ty::Types => {
            text(1, value, &mut inner);
            list().for_each(|v| text(1, v, &mut inner));
        }
        Ty::Items(pick) => bytes(1, &message(pick, value), &mut inner),
        Ty::Additional(pick) => match value {
            Value::Bool(flag) => varint(2, u64::from(*flag), &mut inner),
            schema => bytes(1, &message(pick, schema), &mut inner),
        },
        Ty::Simple => match value {
            Value::Number(_) => double(1, value, &mut inner),
            Value::Bool(flag) => varint(2, u64::from(*flag), &mut inner),
            other => text(3, other, &mut inner),
        },
    }
    bytes(number, &inner, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_extensions_are_pairs() {
        let document = json!({"swagger": "2.0", "definitions": {"a": {"type": "string", "x-b": 1}}});
        let out = encode(&document, Style::V2);
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

    #[test]
    fn the_newer_version_tells_references_from_schemas() {
        let document = json!({"openapi": "3.0.0", "components": {"schemas": {
            "a": {"allOf": [{"$ref": "r"}], "default": {}}, "b": {"default": 1}}}});
        let reference = [0xd2, 1, 5, 0x12, 3, 0x0a, 1, b'r'];
        let empty = [0x8a, 2, 0];
        let mut a = vec![0x0a, 18, 0x0a, 1, b'a', 0x12, 13, 0x0a, 11];
        a.extend(reference.iter().chain(&empty));
        let mut b = vec![0x0a, 19, 0x0a, 1, b'b', 0x12, 14, 0x0a, 12, 0x8a, 2, 9, 9];
        b.extend(1.0_f64.to_le_bytes());
        let mut expected = vec![0x0a, 5, b'3', b'.', b'0', b'.', b'0', 0x2a, 43, 0x0a, 41];
        expected.extend(a.into_iter().chain(b));
        assert_eq!(encode(&document, Style::V3), expected);
    }
}
