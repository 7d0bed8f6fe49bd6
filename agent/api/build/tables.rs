//! Static schema and kind tables as Rust source.

use std::fmt::Write as _;

use crate::facts::{Field, Kind, Message, Schema};
use crate::messages::map_types;

pub(crate) fn schema(schema: &Schema) -> Result<String, String> {
    let mut out = String::from("/// All messages.\npub static MESSAGES: &[Message] = &[\n");
    for message in &schema.messages {
        let mut fields = String::new();
        for field in &message.fields {
            fields.push_str(&field_row(schema, field)?);
        }
        let always: Vec<usize> =
            (0..message.fields.len()).filter(|index| is_always_shown(schema, &message.fields[*index])).collect();
        let _infallible = writeln!(
            out,
            "    Message {{ name: {:?}, openapi: {:?}, shape: {}, type_meta: {}, atomic: {}, fields: &[{fields}], always: &{always:?}, places: &{:?} }},",
            message.name,
            message.openapi,
            shape(message),
            message.shape == "typemeta",
            message.map_type == "atomic",
            places(message)?,
        );
    }
    out.push_str("];\n");
    Ok(out)
}

/// By protobuf number: one more than the index of the field, or nothing.
fn places(message: &Message) -> Result<Vec<u8>, String> {
    let mut places = Vec::new();
    for (index, field) in message.fields.iter().enumerate() {
        let number = usize::try_from(field.number).map_err(|_| format!("{} has no number", field.json))?;
        let place = u8::try_from(index + 1).map_err(|_| format!("too many fields in {}", message.name))?;
        if number > 1000 {
            return Err(format!("a field number of {} is too large for a table", message.name));
        }
        places.resize(places.len().max(number + 1), 0);
        places[number] = place;
    }
    Ok(places)
}

/// Whether JSON shows a field that is absent: Go leaves out what is empty only where it is told to, and never a struct.
fn is_always_shown(schema: &Schema, field: &Field) -> bool {
    if field.has('i') {
        return true;
    }
    if field.has('z') || field.has('o') && (field.has('r') || field.has('m') || field.has('p')) {
        return false;
    }
    let inner = schema.index.get(&field.proto_type).map(|index| shape(&schema.messages[*index]));
    !field.has('o') || inner.is_some_and(|shape| shape != "Shape::List")
}

fn shape(message: &Message) -> &'static str {
    let name = message.name.as_str();
    if message.shape.starts_with("[]") {
        return "Shape::List";
    }
    match name.rsplit('.').next().unwrap_or(name) {
        "Time" => "Shape::Time",
        "MicroTime" => "Shape::MicroTime",
        "Duration" => "Shape::Duration",
        "Quantity" => "Shape::Quantity",
        "IntOrString" => "Shape::IntOrString",
        "RawExtension" | "FieldsV1" | "JSON" => "Shape::RawJson",
        "JSONSchemaPropsOrArray" => "Shape::SchemaOrArray",
        "JSONSchemaPropsOrBool" => "Shape::SchemaOrBool",
        "JSONSchemaPropsOrStringArray" => "Shape::SchemaOrStrings",
        _ => "Shape::Struct",
    }
}

fn field_row(schema: &Schema, field: &Field) -> Result<String, String> {
    let kind = match map_types(&field.proto_type) {
        Some((_, value)) if field.has('m') => format!("FieldType::Map(&{})", type_of(schema, value)?),
        _ => type_of(schema, &field.proto_type)?,
    };
    let list = match field.list.as_str() {
        "map" => format!("ListType::Map(&{:?})", split(&field.keys)),
        "set" => "ListType::Set".to_owned(),
        "atomic" => "ListType::Atomic".to_owned(),
        _ => "ListType::Unset".to_owned(),
    };
    Ok(format!(
        "Field {{ json: {:?}, key: {:?}, number: {}, ty: {kind}, repeated: {}, pointer: {}, omit_empty: {}, omit_zero: {}, inline: {}, required: {}, bytes: {}, list: {list}, atomic: {}, patch: &{:?}, merge_key: {:?}, default: {:?}, values: &{:?}, format: {:?}, go: {:?} }}, ",
        field.json,
        format!("\"{}\":", field.json),
        field.number,
        field.has('r'),
        field.has('p'),
        field.has('o'),
        field.has('z'),
        field.has('i'),
        field.has('q'),
        field.has('b'),
        field.map_type == "atomic",
        split(&field.patch),
        field.merge_key,
        field.default,
        field.values.split('|').filter(|_| !field.values.is_empty()).collect::<Vec<_>>(),
        field.format,
        field.go,
    ))
}

fn split(cell: &str) -> Vec<&str> {
    cell.split(',').filter(|s| !s.is_empty()).collect()
}

fn type_of(schema: &Schema, proto: &str) -> Result<String, String> {
    Ok(match proto {
        "string" => "FieldType::String".to_owned(),
        "bytes" => "FieldType::Bytes".to_owned(),
        "int32" => "FieldType::Int32".to_owned(),
        "int64" => "FieldType::Int64".to_owned(),
        "uint32" | "uint64" => "FieldType::Uint64".to_owned(),
        "bool" => "FieldType::Bool".to_owned(),
        "double" => "FieldType::Double".to_owned(),
        message => {
            let index = schema.index.get(message).ok_or_else(|| format!("unknown type {message}"))?;
            format!("FieldType::Message({index})")
        }
    })
}

pub(crate) fn kinds(schema: &Schema, kinds: &[Kind], subresources: &[Vec<String>]) -> Result<String, String> {
    let mut out = String::from("/// All kinds.\npub static KINDS: &[Kind] = &[\n");
    for kind in kinds {
        let r = &kind.rest;
        let message = schema.of_kind(&kind.group, &kind.version, &kind.kind);
        let message = message.ok_or_else(|| format!("no message for {}", kind.kind))?;
        let list = schema.of_kind(&kind.group, &kind.version, &format!("{}List", kind.kind));
        let written = schema.alike(message);
        let mut subs = String::new();
        for s in subresources.iter().filter(|s| s[0] == kind.group && s[1] == kind.version && s[2] == r[0]) {
            let (gv, name) = s[4].rsplit_once('.').unwrap_or(("", &s[4]));
            let (group, version) = split_group_version(gv);
            let _infallible = write!(
                subs,
                "Subresource {{ name: {:?}, group: {group:?}, version: {version:?}, kind: {name:?}, accepted: &{:?}, verbs: &{:?} }}, ",
                s[3],
                split(&s[5]),
                split(&s[6]),
            );
        }
        let prefix = r[8].split("/{").next().unwrap_or_default();
        let _infallible = writeln!(
            out,
            "    Kind {{ group: {:?}, version: {:?}, kind: {:?}, plural: {:?}, singular: {:?}, short_names: &{:?}, categories: &{:?}, namespaced: {}, verbs: &{:?}, storage_version: {:?}, storage_version_hash: {:?}, etcd_prefix: {prefix:?}, stored_as_json: {}, message: {written}, shown: {message}, list_message: {list:?}, subresources: &[{subs}], by_default: {}, gate: {:?}, priority: &[{}], deprecation: {:?} }},",
            kind.group,
            kind.version,
            kind.kind,
            r[0],
            r[1],
            split(&r[2]),
            split(&r[3]),
            r[4] == "y",
            split(&r[5]),
            r[6],
            r[7],
            r[9] == "json",
            r[10] == "y",
            r[11],
            r[12],
            r[13],
        );
    }
    out.push_str("];\n");
    Ok(out)
}

/// `apps/v1` is what a foreign group version is written as; nothing at all where it is that of the kind itself.
fn split_group_version(text: &str) -> (&str, &str) {
    text.rsplit_once('/').unwrap_or(("", text))
}
