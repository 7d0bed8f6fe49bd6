//! The key table as a JSON Schema, for editors.

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use crate::keys::{self, Key, Kind, Presence, Scalar};
use crate::words::{Reference, SealedSecret, Word};

/// The JSON Schema (draft 2020-12) of a manifest.
#[must_use]
pub fn schema() -> Value {
    let mut schema = section("");
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Keelson machine manifest"));
    Value::Object(schema)
}

/// An object with the keys of one table.
fn section(row: &str) -> Map<String, Value> {
    let properties: Map<String, Value> =
        keys::children(row).map(|key| (key.name().to_owned(), Value::Object(property(key)))).collect();
    let required: Vec<&str> =
        keys::children(row).filter(|key| key.presence == Presence::Required).map(Key::name).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

fn property(key: &Key) -> Map<String, Value> {
    let mut property = match key.kind {
        Kind::Section => section(key.path),
        Kind::Sections => object(json!({ "type": "array", "items": section(&format!("{}[]", key.path)) })),
        Kind::Map(format) => {
            let names = scalar(Scalar::Word(format));
            let values: Option<Value> = keys::children(key.path).next().map(|key| Value::Object(property(key)));
            object(json!({ "type": "object", "propertyNames": names, "additionalProperties": values }))
        }
        Kind::One(inner) if key.is_secret() => object(json!({ "oneOf": [scalar(inner), reference()] })),
        Kind::One(inner) => scalar(inner),
        Kind::List(inner) => object(json!({ "type": "array", "items": scalar(inner) })),
    };
    property.insert("description".to_owned(), json!(key.doc));
    if let Presence::Default(text) = key.presence {
        property.insert("default".to_owned(), literal(text));
    }
    property
}

fn scalar(scalar: Scalar) -> Map<String, Value> {
    object(match scalar {
        Scalar::Bool => json!({ "type": "boolean" }),
        Scalar::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Scalar::Text => json!({ "type": ["string", "integer", "boolean"] }),
        Scalar::Word(format) => {
            let mut word = json!({ "type": "string", "title": format.name });
            if let Some(pattern) = format.pattern {
                word["pattern"] = json!(pattern);
            }
            if !format.choices.is_empty() {
                word["enum"] = json!(format.choices);
            }
            word
        }
    })
}

/// What may stand in the place of a secret.
fn reference() -> Value {
    let [file, sealed] = [Reference::FILE, SealedSecret::FORMAT].map(|format| scalar(Scalar::Word(format)));
    json!({
        "type": "object",
        "properties": { "file": file, "sealed": sealed },
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// A default of the table as JSON.
fn literal(text: &str) -> Value {
    DeValue::parse(text).map_or(Value::Null, |value| json_of(value.get_ref()))
}

fn json_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(integer) => json!(i64::from_str_radix(integer.as_str(), integer.radix()).ok()),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Array(elements) => elements.iter().map(|element| json_of(element.get_ref())).collect(),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Value::Null,
    }
}
