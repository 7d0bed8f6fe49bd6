//! Protobuf to JSON.

use std::borrow::Cow;

use prost::DecodeError;

use crate::json::{duration, put_base64, put_float, put_int, put_string};
use crate::schema::{Field, FieldType, Message, Shape};
use crate::time::{format_micros, format_seconds};
use crate::transcode::TypeName;
use crate::wire::{self, Value, malformed};

/// Appends the JSON object of an encoded message to `out`, with `kind` and `apiVersion` where `name` gives them.
///
/// # Errors
/// When the bytes are malformed; `out` then holds half an object.
pub fn proto_to_json(
    message: &Message,
    bytes: &[u8],
    name: Option<TypeName<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    if message.shape != Shape::Struct {
        return put_shape(message, bytes, out);
    }
    out.push(b'{');
    let mut first = true;
    if let Some((api_version, kind)) = name {
        out.extend_from_slice(b"\"kind\":");
        put_string(out, kind);
        out.extend_from_slice(b",\"apiVersion\":");
        put_string(out, api_version);
        first = false;
    }
    put_fields(message, bytes, &mut first, out)?;
    out.push(b'}');
    Ok(())
}

/// Fields on the wire come by number; JSON wants the struct's order.
fn put_fields(message: &Message, bytes: &[u8], first: &mut bool, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut seen: Vec<(usize, Value<'_>)> = Vec::with_capacity(message.fields.len());
    for field in wire::fields(bytes) {
        let field = field?;
        if let Some((index, _)) = message.field_by_number(field.number) {
            seen.push((index, field.value));
        }
    }
    seen.sort_by_key(|(index, _)| *index);
    let mut rest = seen.as_slice();
    for (index, field) in message.fields.iter().enumerate() {
        let end = rest.iter().position(|(i, _)| *i != index).unwrap_or(rest.len());
        let (values, others) = rest.split_at(end);
        rest = others;
        if field.inline {
            if let Some(inner) = field.ty.message() {
                put_fields(inner, &merged(values)?, first, out)?;
            }
            continue;
        }
        if is_left_out(field, values) {
            continue;
        }
        if !std::mem::take(first) {
            out.push(b',');
        }
        put_string(out, field.json);
        out.push(b':');
        put_field(field, values, out)?;
    }
    Ok(())
}

fn is_left_out(field: &Field, values: &[(usize, Value<'_>)]) -> bool {
    let last = values.last().map(|(_, value)| value);
    if field.omit_zero {
        return last.is_none_or(is_zero);
    }
    if !field.omit_empty {
        return false;
    }
    if field.repeated || matches!(field.ty, FieldType::Map(_)) {
        return values.is_empty();
    }
    match (last, field.ty.message()) {
        (None, _) if field.pointer => true,
        (Some(_), _) if field.pointer => false,
        (_, Some(inner)) if inner.shape == Shape::List => last.is_none_or(is_zero),
        (_, Some(_)) => false,
        (None, None) => true,
        (Some(value), None) => is_zero(value),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Varint(v) | Value::Fixed64(v) => *v == 0,
        Value::Fixed32(v) => *v == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
    }
}

fn put_field(field: &Field, values: &[(usize, Value<'_>)], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if let FieldType::Map(value) = field.ty {
        return put_map(*value, values, out);
    }
    if field.repeated {
        return put_list(field.ty, values, out);
    }
    match values {
        [] if field.pointer || field.bytes => out.extend_from_slice(b"null"),
        [] => put_value(field.ty, zero(field.ty), out)?,
        [.., _] if field.ty.message().is_some() => put_value(field.ty, Value::Bytes(&merged(values)?), out)?,
        [.., (_, last)] => put_value(field.ty, *last, out)?,
    }
    Ok(())
}

/// A message that appears several times is the merge of them: protobuf merges by concatenation.
fn merged<'a>(values: &[(usize, Value<'a>)]) -> Result<Cow<'a, [u8]>, DecodeError> {
    let bytes = |value: &Value<'a>| match value {
        Value::Bytes(bytes) => Ok(*bytes),
        _ => Err(malformed("wire type of a message")),
    };
    match values {
        [] => Ok(Cow::Borrowed(&[])),
        [(_, one)] => Ok(Cow::Borrowed(bytes(one)?)),
        many => {
            let mut all = Vec::new();
            for (_, value) in many {
                all.extend_from_slice(bytes(value)?);
            }
            Ok(Cow::Owned(all))
        }
    }
}

fn zero(ty: FieldType) -> Value<'static> {
    match ty {
        FieldType::String | FieldType::Bytes | FieldType::Message(_) | FieldType::Map(_) => Value::Bytes(&[]),
        FieldType::Double => Value::Fixed64(0),
        FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 | FieldType::Bool => Value::Varint(0),
    }
}

fn put_list(ty: FieldType, values: &[(usize, Value<'_>)], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if values.is_empty() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    out.push(b'[');
    for (i, (_, value)) in values.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_value(ty, *value, out)?;
    }
    out.push(b']');
    Ok(())
}

fn put_map(ty: FieldType, values: &[(usize, Value<'_>)], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if values.is_empty() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let mut entries = Vec::with_capacity(values.len());
    for (_, entry) in values {
        let Value::Bytes(entry) = entry else { return Err(malformed("wire type of a map entry")) };
        let (mut key, mut value): (&[u8], Option<Value<'_>>) = (&[], None);
        for field in wire::fields(entry) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, found) => value = Some(found),
                _ => {}
            }
        }
        entries.push((key, value));
    }
    entries.sort_by_key(|(key, _)| *key);
    out.push(b'{');
    for (i, (key, value)) in entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_string(out, &String::from_utf8_lossy(key));
        out.push(b':');
        match (value, ty) {
            (None, FieldType::Bytes) => out.extend_from_slice(b"null"),
            (value, _) => put_value(ty, value.unwrap_or_else(|| zero(ty)), out)?,
        }
    }
    out.push(b'}');
    Ok(())
}

fn put_value(ty: FieldType, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match (ty, value) {
        (FieldType::String, Value::Bytes(bytes)) => put_string(out, &String::from_utf8_lossy(bytes)),
        (FieldType::Bytes, Value::Bytes(bytes)) => put_base64(out, bytes),
        (FieldType::Bool, Value::Varint(v)) => out.extend_from_slice(if v == 0 { b"false" } else { b"true" }),
        (FieldType::Int32 | FieldType::Int64, Value::Varint(v)) => put_int(out, v.cast_signed()),
        (FieldType::Uint64, Value::Varint(v)) => out.extend_from_slice(v.to_string().as_bytes()),
        (FieldType::Double, Value::Fixed64(v)) => put_float(out, f64::from_bits(v)),
        (FieldType::Message(index), Value::Bytes(bytes)) => {
            return proto_to_json(&crate::schema::MESSAGES[index], bytes, None, out);
        }
        _ => return Err(malformed("wire type")),
    }
    Ok(())
}

/// Messages whose JSON is not an object of their fields.
fn put_shape(message: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let parts = Parts::read(bytes)?;
    match message.shape {
        Shape::Struct => return proto_to_json(message, bytes, None, out),
        Shape::List => {
            let values: Vec<_> = parts.all(1).map(|v| (0, v)).collect();
            return put_list(message.fields[0].ty, &values, out);
        }
        Shape::Time | Shape::MicroTime if parts.0.is_empty() => out.extend_from_slice(b"null"),
        Shape::Time => put_string(out, &format_seconds(parts.int(1))),
        Shape::MicroTime => {
            let nanos = i32::try_from(parts.int(2)).map_err(|_| malformed("nanoseconds"))?;
            put_string(out, &format_micros(parts.int(1), nanos));
        }
        Shape::Duration => put_string(out, &duration(parts.int(1))),
        Shape::Quantity => {
            let text = parts.bytes(1).unwrap_or(b"0");
            put_string(out, &String::from_utf8_lossy(if text.is_empty() { b"0" } else { text }));
        }
        Shape::IntOrString if parts.int(1) == 0 => put_int(out, parts.int(2)),
        Shape::IntOrString => put_string(out, &String::from_utf8_lossy(parts.bytes(3).unwrap_or_default())),
        Shape::RawJson => out.extend_from_slice(parts.bytes(1).filter(|raw| !raw.is_empty()).unwrap_or(b"null")),
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
            return put_schema_or(message, &parts, out);
        }
    }
    Ok(())
}

fn put_schema_or(message: &Message, parts: &Parts<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let number = if message.shape == Shape::SchemaOrBool { 2 } else { 1 };
    let list = if message.shape == Shape::SchemaOrBool { 1 } else { 2 };
    if let Some(schema) = parts.bytes(number) {
        let ty = message.field_by_number(number).map(|(_, f)| f.ty).ok_or_else(|| malformed("schema"))?;
        return put_value(ty, Value::Bytes(schema), out);
    }
    if message.shape == Shape::SchemaOrBool {
        out.extend_from_slice(if parts.int(1) == 0 { b"false" } else { b"true" });
        return Ok(());
    }
    let ty = message.field_by_number(list).map(|(_, f)| f.ty).ok_or_else(|| malformed("schema"))?;
    let values: Vec<_> = parts.all(list).map(|v| (0, v)).collect();
    put_list(ty, &values, out)
}

/// The few fields of a message with a shape of its own.
struct Parts<'a>(Vec<wire::WireField<'a>>);

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        wire::fields(bytes).collect::<Result<_, _>>().map(Self)
    }

    fn all(&self, number: u32) -> impl Iterator<Item = Value<'a>> {
        self.0.iter().filter(move |f| f.number == number).map(|f| f.value)
    }

    fn int(&self, number: u32) -> i64 {
        match self.all(number).last() {
            Some(Value::Varint(v)) => v.cast_signed(),
            _ => 0,
        }
    }

    fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        match self.all(number).last() {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}
