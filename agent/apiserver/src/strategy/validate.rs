//! What makes an object valid.

use api::Kind;
use api::schema::{FieldType, MESSAGES, Message, Shape};
use serde_json::Value;

use super::{Errors, selectors};
use crate::status::FieldError;

/// Errors of an object by itself.
#[must_use]
pub fn validate(kind: &'static Kind, value: &Value) -> Errors {
    let mut errors = Vec::new();
    walk(kind.schema(), value, "", &mut errors);
    errors
}

/// Walks the schema: enums hold their members, required texts are there. Status is the server's own business.
fn walk(message: &'static Message, value: &Value, path: &str, errors: &mut Errors) {
    let Some(map) = value.as_object() else { return };
    if message.shape != Shape::Struct || selectors::requirement(message.name, value, path, errors) {
        return;
    }
    for field in message.fields {
        if path.is_empty() && matches!(field.json, "metadata" | "status") {
            continue;
        }
        if field.inline {
            if let Some(inner) = field.ty.message() {
                walk(inner, value, path, errors);
            }
            continue;
        }
        let at = if path.is_empty() { field.json.to_owned() } else { format!("{path}.{}", field.json) };
        let found = map.get(field.json).unwrap_or(&Value::Null);
        match (found, field.ty) {
            (Value::String(text), FieldType::String) => {
                if text.is_empty() && field.required && !field.pointer && field.default.is_empty() {
                    errors.push(FieldError::required(at, ""));
                } else if !text.is_empty() && !field.values.is_empty() && !field.values.contains(&text.as_str()) {
                    errors.push(FieldError::not_supported(at, text.as_str(), field.values));
                }
            }
            (Value::Array(items), FieldType::Message(index)) if field.repeated => {
                for (i, item) in items.iter().enumerate() {
                    walk(&MESSAGES[index], item, &format!("{at}[{i}]"), errors);
                }
            }
            (Value::Object(_), FieldType::Message(index)) => walk(&MESSAGES[index], found, &at, errors),
            _ => {}
        }
    }
}
