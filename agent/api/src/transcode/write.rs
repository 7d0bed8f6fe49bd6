//! Protobuf to JSON: what a message says, value by value, to a [`Sink`] that makes text or a tree of it.
//!
//! Lists of ten thousand objects come through here, so nothing is allocated per message, field or text: the fields of
//! the message at hand lie on one stack that all levels share, and texts are copied as they are where nothing in them
//! has to be escaped.

use prost::DecodeError;

use super::TypeName;
use super::sink::{Sink, Text};
use crate::json::duration;
use crate::schema::{Field, FieldType, MESSAGES, Message, Shape};
use crate::time::{format_micros, format_seconds, plain_seconds};
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
    write(message, bytes, name, &mut Text(out))
}

/// Tells a sink what an encoded message says.
pub(super) fn write<S: Sink>(
    message: &Message,
    bytes: &[u8],
    name: Option<TypeName<'_>>,
    out: &mut S,
) -> Result<(), DecodeError> {
    let mut writer = Writer { stack: Vec::with_capacity(STACK), depth: 0, out };
    if message.shape != Shape::Struct {
        return writer.shape(message, bytes);
    }
    writer.named(message, bytes, name)
}

/// What the members of a list are called, if they carry names though no kind of their own is stored there: upstream
/// writes them into the claims of a StatefulSet.
fn member_name(field: &Field) -> Option<TypeName<'static>> {
    (field.json == "volumeClaimTemplates").then_some(("v1", "PersistentVolumeClaim"))
}

/// Fields of a pod, from its metadata to the deepest, that are usually open at a time.
const STACK: usize = 128;
/// Messages inside one another beyond this are refused: deeper JSON is not read either, and every level takes stack.
const MAX_DEPTH: usize = 160;

struct Writer<'a, 'o, S> {
    /// Fields of the messages that are being written, the outermost first: index in the message's table, and value.
    stack: Vec<(usize, Value<'a>)>,
    /// Messages that are open.
    depth: usize,
    out: &'o mut S,
}

/// Places on the stack.
type Range = std::ops::Range<usize>;

impl<'a, S: Sink> Writer<'a, '_, S> {
    fn object(&mut self, message: &Message, bytes: &'a [u8]) -> Result<(), DecodeError> {
        if message.shape != Shape::Struct {
            return self.shape(message, bytes);
        }
        self.named(message, bytes, None)
    }

    fn named(&mut self, message: &Message, bytes: &'a [u8], name: Option<TypeName<'_>>) -> Result<(), DecodeError> {
        self.out.open_map()?;
        if let Some((api_version, kind)) = name {
            for (key, text) in [("kind", kind), ("apiVersion", api_version)] {
                self.out.key(key.as_bytes());
                self.out.text(text.as_bytes());
            }
        }
        self.fields(message, bytes)?;
        self.out.close_map();
        Ok(())
    }

    /// Fields on the wire come by number; JSON wants the struct's order.
    fn fields(&mut self, message: &Message, bytes: &'a [u8]) -> Result<(), DecodeError> {
        if self.depth == MAX_DEPTH {
            return Err(malformed("message nested too deeply"));
        }
        self.depth += 1;
        let base = self.stack.len();
        let (mut last, mut is_sorted) = (0, true);
        for field in wire::fields(bytes) {
            let field = field?;
            if let Some((index, _)) = message.field_by_number(field.number) {
                is_sorted &= last <= index;
                last = index;
                self.stack.push((index, field.value));
            }
        }
        let end = self.stack.len();
        if !is_sorted {
            self.stack[base..].sort_by_key(|(index, _)| *index);
        }
        let mut at = base;
        let mut always = message.always.iter().copied().peekable();
        loop {
            let present = self.stack[at..end].first().map(|(index, _)| *index);
            let index = match (present, always.peek().copied()) {
                (None, None) => break,
                (Some(index), None) | (None, Some(index)) => index,
                (Some(a), Some(b)) => a.min(b),
            };
            always.next_if_eq(&index);
            let start = at;
            while at < end && self.stack[at].0 == index {
                at += 1;
            }
            self.field(message, &message.fields[index], start..at)?;
        }
        self.stack.truncate(base);
        self.depth -= 1;
        Ok(())
    }

    /// A field with its name; `values` are its occurrences.
    fn field(&mut self, message: &Message, field: &Field, values: Range) -> Result<(), DecodeError> {
        if field.inline {
            let Some(inner) = field.ty.message() else { return Ok(()) };
            return match self.message_bytes(values)? {
                Ok(bytes) => self.fields(inner, bytes),
                Err(merged) => Writer { stack: Vec::new(), depth: self.depth, out: self.out }.fields(inner, &merged),
            };
        }
        let last = self.stack[values.clone()].last().map(|(_, value)| *value);
        if is_left_out(field, last.as_ref()) {
            return Ok(());
        }
        self.out.field(field);
        if let FieldType::Map(ty) = field.ty {
            return self.map(*ty, values);
        }
        if field.repeated {
            if values.is_empty() && is_never_stored(message) {
                return self.empty_list();
            }
            let name = field.ty.message().filter(|message| message.type_meta).and_then(|_| member_name(field));
            return self.list((field.ty, name), values);
        }
        match (last, field.ty) {
            (None, _) if field.pointer || field.bytes => self.out.null(),
            (None, ty) => self.value(ty, zero(ty))?,
            (Some(_), FieldType::Message(index)) => match self.message_bytes(values)? {
                Ok(bytes) => self.object(&MESSAGES[index], bytes)?,
                Err(merged) => write(&MESSAGES[index], &merged, None, self.out)?,
            },
            (Some(value), ty) => self.value(ty, value)?,
        }
        Ok(())
    }

    /// The bytes of a message. One that appears several times is the merge of them: protobuf merges by concatenation.
    fn message_bytes(&self, values: Range) -> Result<Result<&'a [u8], Vec<u8>>, DecodeError> {
        let bytes = |value: &Value<'a>| match value {
            Value::Bytes(bytes) => Ok(*bytes),
            _ => Err(malformed("wire type of a message")),
        };
        match &self.stack[values] {
            [] => Ok(Ok(&[])),
            [(_, one)] => Ok(Ok(bytes(one)?)),
            many => {
                let parts = many.iter().map(|(_, value)| bytes(value)).collect::<Result<Vec<_>, _>>()?;
                Ok(Err(parts.concat()))
            }
        }
    }

    fn list(&mut self, (ty, name): (FieldType, Option<TypeName<'_>>), values: Range) -> Result<(), DecodeError> {
        if values.is_empty() {
            self.out.null();
            return Ok(());
        }
        self.out.open_list()?;
        for at in values {
            self.out.item();
            match (self.stack[at].1, ty.message()) {
                (Value::Bytes(bytes), Some(message)) if name.is_some() => self.named(message, bytes, name)?,
                (value, _) => self.value(ty, value)?,
            }
        }
        self.out.close_list();
        Ok(())
    }

    fn empty_list(&mut self) -> Result<(), DecodeError> {
        self.out.open_list()?;
        self.out.close_list();
        Ok(())
    }

    /// A map, by key. What upstream and we store has this order already.
    fn map(&mut self, ty: FieldType, values: Range) -> Result<(), DecodeError> {
        if values.is_empty() {
            self.out.null();
            return Ok(());
        }
        let mut entries = Vec::new();
        let is_sorted = self.stack[values.clone()].is_sorted_by(|(_, a), (_, b)| entry(a).0 < entry(b).0);
        if !is_sorted {
            entries.extend(self.stack[values.clone()].iter().map(|(_, value)| *value));
            entries.sort_by_key(|value| entry(value).0);
        }
        let count = values.len();
        self.out.open_map()?;
        for i in 0..count {
            let (key, value) = read_entry(entries.get(i).copied().unwrap_or_else(|| self.stack[values.start + i].1))?;
            self.out.key(key);
            match (value, ty) {
                (None, FieldType::Bytes) => self.out.null(),
                (None, ty) if tells_null(ty) => self.out.null(),
                (value, _) => self.value(ty, value.unwrap_or_else(|| zero(ty)))?,
            }
        }
        self.out.close_map();
        Ok(())
    }

    fn value(&mut self, ty: FieldType, value: Value<'a>) -> Result<(), DecodeError> {
        match (ty, value) {
            (FieldType::String, Value::Bytes(bytes)) => self.out.text(bytes),
            (FieldType::Bytes, Value::Bytes(bytes)) => self.out.base64(bytes),
            (FieldType::Bool, Value::Varint(v)) => self.out.bool(v != 0),
            (FieldType::Int32 | FieldType::Int64, Value::Varint(v)) => self.out.int(v.cast_signed()),
            (FieldType::Uint64, Value::Varint(v)) => self.out.uint(v),
            (FieldType::Double, Value::Fixed64(v)) => self.out.float(f64::from_bits(v))?,
            (FieldType::Message(index), Value::Bytes(bytes)) => return self.object(&MESSAGES[index], bytes),
            _ => return Err(malformed("wire type")),
        }
        Ok(())
    }

    /// Messages whose JSON is not an object of their fields.
    fn shape(&mut self, message: &Message, bytes: &'a [u8]) -> Result<(), DecodeError> {
        let parts = Parts::read(bytes)?;
        match message.shape {
            Shape::Struct => return self.object(message, bytes),
            Shape::List => {
                let base = self.stack.len();
                for field in wire::fields(bytes) {
                    let field = field?;
                    if field.number == 1 {
                        self.stack.push((0, field.value));
                    }
                }
                let end = self.stack.len();
                if base == end && is_never_stored(message) {
                    self.empty_list()?;
                } else {
                    self.list((message.fields[0].ty, None), base..end)?;
                }
                self.stack.truncate(base);
            }
            Shape::Time | Shape::MicroTime if bytes.is_empty() => self.out.null(),
            Shape::Time => match plain_seconds(parts.int(1)) {
                Some(text) => self.out.text(&text),
                None => self.out.text(format_seconds(parts.int(1)).as_bytes()),
            },
            Shape::MicroTime => {
                let nanos = i32::try_from(parts.int(2)).map_err(|_| malformed("nanoseconds"))?;
                self.out.text(format_micros(parts.int(1), nanos).as_bytes());
            }
            Shape::Duration => self.out.text(duration(parts.int(1)).as_bytes()),
            Shape::Quantity => {
                let text = parts.bytes(1).unwrap_or(b"0");
                self.out.text(if text.is_empty() { b"0" } else { text });
            }
            Shape::IntOrString if parts.int(1) == 0 => self.out.int(parts.int(2)),
            Shape::IntOrString => self.out.text(parts.bytes(3).unwrap_or_default()),
            Shape::RawJson => match parts.bytes(1).unwrap_or_default() {
                [] => self.out.null(),
                raw => self.out.raw(raw)?,
            },
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                return self.schema_or(message, bytes, &parts);
            }
        }
        Ok(())
    }

    fn schema_or(&mut self, message: &Message, bytes: &'a [u8], parts: &Parts<'a>) -> Result<(), DecodeError> {
        let (number, other) = if message.shape == Shape::SchemaOrBool { (2, 1) } else { (1, 2) };
        let ty = |number: usize| {
            let number = u32::try_from(number).unwrap_or_default();
            message.field_by_number(number).map(|(_, field)| field.ty).ok_or_else(|| malformed("schema"))
        };
        if let Some(schema) = parts.bytes(number) {
            return self.value(ty(number)?, Value::Bytes(schema));
        }
        if message.shape == Shape::SchemaOrBool {
            self.out.bool(parts.int(1) != 0);
            return Ok(());
        }
        let base = self.stack.len();
        for field in wire::fields(bytes) {
            let field = field?;
            if field.number as usize == other {
                self.stack.push((0, field.value));
            }
        }
        let end = self.stack.len();
        self.list((ty(other)?, None), base..end)?;
        self.stack.truncate(base);
        Ok(())
    }
}

/// Whether values of this type are only ever told again, as questions and answers about users are: what of them holds
/// nothing stays a list, and is nothing at all only where it was read from the store.
fn is_never_stored(message: &Message) -> bool {
    ["k8s.io.api.authentication.", "k8s.io.api.authorization."].iter().any(|own| message.name.starts_with(own))
}

/// Whether a value of a map may be null: a list in what is answered at once, and never read from the store again.
pub(super) fn tells_null(ty: FieldType) -> bool {
    ty.message().is_some_and(|message| message.shape == Shape::List && is_never_stored(message))
}

fn is_left_out(field: &Field, last: Option<&Value<'_>>) -> bool {
    if field.omit_zero {
        return last.is_none_or(is_zero);
    }
    if !field.omit_empty {
        return false;
    }
    if field.repeated || matches!(field.ty, FieldType::Map(_)) {
        return last.is_none();
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

fn zero(ty: FieldType) -> Value<'static> {
    match ty {
        FieldType::String | FieldType::Bytes | FieldType::Message(_) | FieldType::Map(_) => Value::Bytes(&[]),
        FieldType::Double => Value::Fixed64(0),
        FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 | FieldType::Bool => Value::Varint(0),
    }
}

/// Key and value of a map's entry; nothing, if it is malformed, which [`read_entry`] tells.
fn entry<'a>(value: &Value<'a>) -> (&'a [u8], Option<Value<'a>>) {
    read_entry(*value).unwrap_or_default()
}

fn read_entry(entry: Value<'_>) -> Result<(&[u8], Option<Value<'_>>), DecodeError> {
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
    Ok((key, value))
}

/// The first fields of a message with a shape of its own, by number; the last occurrence counts.
struct Parts<'a>([Option<Value<'a>>; 4]);

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut parts = [None; 4];
        for field in wire::fields(bytes) {
            let field = field?;
            if let Some(part) = parts.get_mut(field.number as usize) {
                *part = Some(field.value);
            }
        }
        Ok(Self(parts))
    }

    fn int(&self, number: usize) -> i64 {
        match self.0[number] {
            Some(Value::Varint(v)) => v.cast_signed(),
            _ => 0,
        }
    }

    fn bytes(&self, number: usize) -> Option<&'a [u8]> {
        match self.0[number] {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}
