//! Why a tree is no object of a kind, in the words of the converter that clients know from strategic merge and apply.

use api::schema::{Field, FieldType, MESSAGES, Message, Shape};
use serde_json::{Map, Value};

use super::syntax::go_type;

type Found = Result<(), String>;

/// What in the tree does not fit the message: the first thing in the order of the fields.
#[must_use]
pub fn misfit(message: &'static Message, value: &Value) -> Option<String> {
    of_message(message, value).err()
}

/// Makes numbers what the converter makes of them: whole ones integers, and those too large for their field what is left
/// of them in its bits.
pub fn fit_numbers(message: &'static Message, value: &mut Value) {
    match (message.shape, value) {
        (Shape::Struct, Value::Object(map)) => {
            for field in message.fields {
                match field.ty.message() {
                    Some(inner) if field.inline => {
                        let mut whole = Value::Object(std::mem::take(map));
                        fit_numbers(inner, &mut whole);
                        if let Value::Object(whole) = whole {
                            *map = whole;
                        }
                    }
                    _ => match map.get_mut(field.json) {
                        Some(Value::Array(items)) if field.repeated => {
                            items.iter_mut().for_each(|item| fit_number(field.ty, item));
                        }
                        Some(value) => fit_number(field.ty, value),
                        None => {}
                    },
                }
            }
        }
        (Shape::List, Value::Array(items)) => {
            items.iter_mut().for_each(|item| fit_number(message.fields[0].ty, item));
        }
        _ => {}
    }
}

/// From here on numbers are no integers; what processors make of them is the lowest one.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

fn fit_number(ty: FieldType, value: &mut Value) {
    #[allow(clippy::cast_possible_truncation, reason = "what is left of it is what is asked for")]
    let whole = |value: &Value| {
        value.as_i64().or_else(|| value.as_f64().map(|n| if n < TOO_LARGE { n as i64 } else { i64::MIN }))
    };
    match (ty, value) {
        #[allow(clippy::cast_possible_truncation, reason = "what is left of it is what is asked for")]
        (FieldType::Int32, value @ Value::Number(_)) => {
            *value = whole(value).map_or(Value::Null, |n| (n as i32).into())
        }
        (FieldType::Int64, value @ Value::Number(_)) => *value = whole(value).map_or(Value::Null, Value::from),
        (FieldType::Map(ty), Value::Object(map)) => map.values_mut().for_each(|value| fit_number(*ty, value)),
        (FieldType::Message(index), value) => fit_numbers(&MESSAGES[index], value),
        _ => {}
    }
}

fn of_message(message: &'static Message, value: &Value) -> Found {
    if value.is_null() {
        return Ok(());
    }
    match message.shape {
        Shape::Struct => match value {
            Value::Object(map) => of_fields(message, map),
            other => Err(format!("cannot restore struct from: {}", kind_of(other))),
        },
        Shape::List => of_field(&message.fields[0], value),
        Shape::Time => of_text(value, |text| api::time::parse_as(text, false).map(|_| ())),
        Shape::MicroTime => of_text(value, |text| api::time::parse_as(text, true).map(|_| ())),
        Shape::Duration => of_text(value, |text| match api::time::parse_duration(text) {
            Some(_) => Ok(()),
            None => Err(api::time::duration_complaint(text)),
        }),
        Shape::Quantity => {
            let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
            api::quantity::Amount::parse(&text).map(|_| ()).map_err(|wrong| wrong.to_string())
        }
        Shape::IntOrString => of_int_or_string(value),
        Shape::RawJson => Ok(()),
        Shape::SchemaOrBool if value.is_boolean() => Ok(()),
        Shape::SchemaOrArray if value.is_array() => Ok(()),
        Shape::SchemaOrBool if !value.is_object() => Err("boolean or JSON schema expected".to_owned()),
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => Ok(()),
    }
}

fn of_fields(message: &'static Message, map: &Map<String, Value>) -> Found {
    for field in message.fields {
        match field.ty.message() {
            Some(inner) if field.inline => of_fields(inner, map)?,
            _ => map.get(field.json).map_or(Ok(()), |value| of_field(field, value))?,
        }
    }
    Ok(())
}

fn of_field(field: &'static Field, value: &Value) -> Found {
    let item_type = field.go.rsplit_once(']').map_or(field.go, |(_, item)| item);
    match value {
        Value::Null => Ok(()),
        Value::Array(items) if field.repeated => items.iter().try_for_each(|item| of_value(field.ty, item_type, item)),
        other if field.repeated => Err(format!("cannot restore slice from {}", kind_of(other))),
        other => of_value(field.ty, item_type, other),
    }
}

/// `named` is the Go type of a text that has one of its own.
fn of_value(ty: FieldType, named: &str, value: &Value) -> Found {
    match (ty, value) {
        (_, Value::Null)
        | (FieldType::String, Value::String(_))
        | (FieldType::Bool, Value::Bool(_))
        | (FieldType::Double, Value::Number(_)) => Ok(()),
        (FieldType::String, Value::Number(number)) if !number.is_f64() => {
            let to = if named.is_empty() { "string" } else { named };
            Err(format!("cannot convert int64 to {to}"))
        }
        (FieldType::String, _) => Err("unrecognized type: string".to_owned()),
        (FieldType::Bool, _) => Err("unrecognized type: bool".to_owned()),
        (FieldType::Double, _) => Err("unrecognized type: float64".to_owned()),
        (FieldType::Int32, value) => of_integer("int32", value),
        (FieldType::Int64, value) => of_integer("int64", value),
        (FieldType::Uint64, value) => of_integer("uint64", value),
        (FieldType::Bytes, value) => of_bytes(value),
        (FieldType::Map(ty), Value::Object(map)) => map.values().try_for_each(|value| of_value(*ty, "", value)),
        (FieldType::Map(_), other) => Err(format!("cannot restore map from {}", kind_of(other))),
        (FieldType::Message(index), value) => of_message(&MESSAGES[index], value),
    }
}

fn of_integer(ty: &str, value: &Value) -> Found {
    match value {
        Value::Number(number) if number.as_f64().is_some_and(|n| n.fract() == 0.0) => Ok(()),
        Value::Number(_) => Err(format!("cannot convert float64 to {ty}")),
        _ => Err(format!("unrecognized type: {ty}")),
    }
}

fn of_bytes(value: &Value) -> Found {
    match value {
        Value::String(text) => match api::read_base64(text) {
            Ok(_) => Ok(()),
            Err(at) => Err(format!("error decoding from json: illegal base64 data at input byte {at}")),
        },
        Value::Array(items) => items.iter().try_for_each(|item| of_integer("uint8", item)),
        other => Err(format!("cannot restore slice from {}", kind_of(other))),
    }
}

fn of_text(value: &Value, read: impl Fn(&str) -> Found) -> Found {
    match value {
        Value::String(text) => read(text),
        other => Err(format!("json: cannot unmarshal {} into Go value of type string", json_type(other))),
    }
}

fn of_int_or_string(value: &Value) -> Found {
    let told = |found: &str| Err(format!("json: cannot unmarshal {found} into Go value of type int32"));
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Value::Number(number) => told(&format!("number {number}")),
        other => told(json_type(other)),
    }
}

/// The kind of a decoded value in Go.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        other => go_type(other),
    }
}

/// The JSON type of a value.
pub const fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(value: Value) -> String {
        misfit(crate::codec::schema("k8s.io.api.core.v1.Pod"), &value).unwrap_or_default()
    }

    #[test]
    fn values_that_cannot_be_converted_are_told_by_their_types() {
        assert_eq!(told(json!({"status": {"phase": 7}})), "cannot convert int64 to v1.PodPhase");
        assert_eq!(told(json!({"status": {"phase": 7.5}})), "unrecognized type: string");
        assert_eq!(told(json!({"spec": {"priority": 1.5}})), "cannot convert float64 to int32");
        assert_eq!(told(json!({"spec": {"priority": 1.0, "hostNetwork": null}})), "");
        assert_eq!(told(json!({"spec": {"priority": "x"}})), "unrecognized type: int32");
        assert_eq!(told(json!({"spec": {"hostNetwork": 1}})), "unrecognized type: bool");
        assert_eq!(told(json!({"metadata": {"labels": []}})), "cannot restore map from slice");
        assert_eq!(told(json!({"spec": "x"})), "cannot restore struct from: string");
        assert_eq!(told(json!({"spec": {"containers": true}})), "cannot restore slice from bool");
    }

    #[test]
    fn numbers_fit_their_fields() {
        let mut pod = json!({"spec": {"priority": 2_147_483_648_i64, "terminationGracePeriodSeconds": 3.0}});
        fit_numbers(crate::codec::schema("k8s.io.api.core.v1.Pod"), &mut pod);
        assert_eq!(pod["spec"], json!({"priority": -2_147_483_648, "terminationGracePeriodSeconds": 3}));
    }

    #[test]
    fn values_with_a_decoder_of_their_own_are_told_in_its_words() {
        let time = told(json!({"metadata": {"creationTimestamp": 7}}));
        assert_eq!(time, "json: cannot unmarshal number into Go value of type string");
        assert!(told(json!({"metadata": {"creationTimestamp": "x"}})).starts_with("parsing time \"x\" as"));
        let quantity = told(json!({"spec": {"overhead": {"cpu": "1ee"}}}));
        assert_eq!(quantity, "unable to parse quantity's suffix");
    }
}
