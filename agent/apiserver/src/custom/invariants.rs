//! What holds for custom resources beside their schema: unique members of lists, embedded objects, numbers that a
//! scale shows; pure.

use serde_json::{Map, Value, json};

use super::schema::{List, Schema};
use crate::codec::{go_map, go_type};
use crate::status::FieldError;
use crate::validation::metadata;

fn below(field: &str, key: &str) -> String {
    if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") }
}

/// Members that occur twice in lists whose members are told apart.
#[must_use]
pub fn duplicates(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    lists(schema, value, "", &mut errors);
    errors
}

fn lists(schema: &Schema, value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(inner) = schema.property(key) {
                    lists(inner, value, &below(field, key), errors);
                } else if let Some(inner) = schema.values() {
                    lists(inner, value, &format!("{field}[{key}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                List::Set => repeated(items, field, errors),
                List::Map(keys) => repeated_keys(keys, items, field, errors),
                List::Unset | List::Atomic => {}
            }
            if let Some(inner) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    lists(inner, item, &format!("{field}[{i}]"), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Tells the second of equal members, once.
fn repeated(items: &[Value], field: &str, errors: &mut Vec<FieldError>) {
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().filter(|other| *other == item).count() == 1 {
            errors.push(FieldError::duplicate(format!("{field}[{i}]"), item.clone()));
        }
    }
}

fn repeated_keys(keys: &[String], items: &[Value], field: &str, errors: &mut Vec<FieldError>) {
    if let Some(i) = items.iter().position(|item| !item.is_null() && !item.is_object()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{field}[{i}]"), items[i].clone(), why));
        return;
    }
    let key_of = |item: &Value| -> Value {
        keys.iter().filter_map(|k| Some((k.clone(), item.get(k)?.clone()))).collect::<Map<_, _>>().into()
    };
    let found: Vec<Value> = items.iter().map(key_of).collect();
    repeated(&found, field, errors);
}

/// What is wrong with the type names and metadata of embedded objects.
#[must_use]
pub fn embedded(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    objects(schema, value, "", &mut errors);
    errors
}

/// What is wrong with a value that is an object of the API itself, and with what is embedded in it.
pub(super) fn object(schema: &Schema, value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if let Value::Object(map) = value {
        one(map, field, errors);
    }
    objects(&Schema { embedded: false, ..schema.clone() }, value, field, errors);
}

fn objects(schema: &Schema, value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                one(map, field, errors);
            }
            for (key, value) in map {
                if let Some(inner) = schema.property(key) {
                    objects(inner, value, &below(field, key), errors);
                } else if let Some(inner) = schema.values() {
                    objects(inner, value, &format!("{field}[{key}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                objects(inner, item, &format!("{field}[{i}]"), errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is wrong with the metadata of an object inside another.
pub(super) fn meta_errors(value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Ok(meta) = metadata::of(value) {
        metadata::of_embedded(&meta, &mut errors);
    }
    errors
}

fn one(map: &Map<String, Value>, field: &str, errors: &mut Vec<FieldError>) {
    let at = |key: &str| below(field, key);
    for key in ["apiVersion", "kind"] {
        if !map.contains_key(key) {
            errors.push(FieldError::required(at(key), ""));
        }
    }
    match map.get("apiVersion") {
        Some(Value::String(text)) if text.is_empty() => {
            errors.push(FieldError::invalid(at("apiVersion"), "", "must not be empty"));
        }
        Some(Value::String(text)) if text.matches('/').count() > 1 => {
            let why = format!("unexpected GroupVersion string: {text}");
            errors.push(FieldError::invalid(at("apiVersion"), text.as_str(), why));
        }
        Some(Value::String(_)) | None => {}
        Some(other) => errors.push(FieldError::invalid(at("apiVersion"), other.clone(), "must be a string")),
    }
    match map.get("kind") {
        Some(Value::String(text)) if text.is_empty() => {
            errors.push(FieldError::invalid(at("kind"), "", "must not be empty"));
        }
        Some(Value::String(text)) => {
            if let Some(why) = super::names::dns_1035(&text.to_lowercase()) {
                let why = format!("may have mixed case, but should otherwise match: {why}");
                errors.push(FieldError::invalid(at("kind"), text.as_str(), why));
            }
        }
        None => {}
        Some(other) => errors.push(FieldError::invalid(at("kind"), other.clone(), "must be a string")),
    }
    if let Some(metadata) = map.get("metadata").filter(|m| m.is_object()) {
        errors.extend(meta_errors(&json!({"metadata": metadata})).into_iter().map(|e| e.below(field)));
    }
}

/// What is wrong with the numbers that a scale shows; `spec` says whether the wish is looked at too.
#[must_use]
pub fn scale(paths: &super::Scale, value: &Value, spec: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut number = |path: &str| {
        let Some(found) = nested(value, path, &mut errors) else { return };
        let field = path;
        match found.as_i64() {
            None => {
                let why = format!(
                    "{path} accessor error: {} is of the type {}, expected int64",
                    go_map(found),
                    go_type(found)
                );
                errors.push(FieldError::invalid(field, 0, why));
            }
            Some(n) if n < 0 => errors.push(FieldError::invalid(field, n, "should be a non-negative integer")),
            Some(n) if n > i64::from(i32::MAX) => {
                errors.push(FieldError::invalid(field, n, format!("should be less than or equal to {}", i32::MAX)));
            }
            Some(_) => {}
        }
    };
    if spec {
        number(&paths.spec);
    }
    number(&paths.status);
    if let Some(path) = &paths.selector
        && let Some(found) = nested(value, path, &mut errors).filter(|v| !v.is_string())
    {
        let why =
            format!("{path} accessor error: {} is of the type {}, expected string", go_map(found), go_type(found));
        errors.push(FieldError::invalid(path, "", why));
    }
    errors
}

fn nested<'v>(value: &'v Value, path: &str, errors: &mut Vec<FieldError>) -> Option<&'v Value> {
    let mut at = value;
    for key in path.trim_start_matches('.').split('.') {
        match at {
            Value::Object(map) => at = map.get(key)?,
            other => {
                let why = format!(
                    "{path} accessor error: {} is of the type {}, expected map[string]interface{{}}",
                    go_map(other),
                    go_type(other)
                );
                errors.push(FieldError::invalid(path, 0, why));
                return None;
            }
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn members_occur_once() {
        let schema = Schema::parse(&json!({"properties": {
            "set": {"x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {"type": "object"}},
        }}));
        let value = json!({"set": ["x", "y", "x", "x"], "map": [{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2, "c": 3}]});
        assert_eq!(
            texts(&duplicates(&schema, &value)),
            ["map[2]: Duplicate value: {\"a\":1,\"b\":2}", "set[2]: Duplicate value: \"x\""]
        );
    }

    #[test]
    fn embedded_objects_name_their_type() {
        let schema = Schema::parse(&json!({"properties": {"t": {"x-kubernetes-embedded-resource": true}}}));
        assert_eq!(texts(&embedded(&schema, &json!({"t": {"kind": "x_y"}})))[0], "t.apiVersion: Required value");
        assert!(
            embedded(&schema, &json!({"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}})).is_empty()
        );
    }

    #[test]
    fn scales_show_whole_numbers() {
        let paths = crate::custom::Scale { spec: ".spec.n".into(), status: ".status.n".into(), selector: None };
        assert!(scale(&paths, &json!({"spec": {"n": 1}}), true).is_empty());
        assert_eq!(
            texts(&scale(&paths, &json!({"spec": {"n": -1}, "status": {"n": "x"}}), true)),
            [
                ".spec.n: Invalid value: -1: should be a non-negative integer",
                ".status.n: Invalid value: 0: .status.n accessor error: x is of the type string, expected int64"
            ]
        );
    }
}
