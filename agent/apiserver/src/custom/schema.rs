//! Pruning and defaulting by a structural schema; pure.

use serde_json::{Map, Value};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
/// What every object has beside what its schema says.
const OBJECT_KEYS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema of an object does not know, and notes the paths.
pub fn prune(schema: &Value, object: &mut Value, dropped: &mut Vec<String>) {
    prune_at(schema, object, ("", true), dropped);
}

fn prune_at(schema: &Value, value: &mut Value, (path, is_object): (&str, bool), dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => prune_map(schema, map, (path, is_object), dropped),
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                prune_at(&schema["items"], item, (&format!("{path}[{i}]"), is_embedded(&schema["items"])), dropped);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_embedded(schema: &Value) -> bool {
    schema[EMBEDDED] == true
}

fn prune_map(schema: &Value, map: &mut Map<String, Value>, (path, is_object): (&str, bool), dropped: &mut Vec<String>) {
    let properties = schema["properties"].as_object();
    let additional = schema.get("additionalProperties").filter(|a| **a != Value::Bool(false));
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let own = |key: &str| is_object && OBJECT_KEYS.contains(&key);
    if schema[PRESERVE] != true && additional.is_none() {
        let unknown = |key: &String| !own(key) && !properties.is_some_and(|p| p.contains_key(key));
        let gone: Vec<String> = map.keys().filter(|k| unknown(k)).cloned().collect();
        for key in gone {
            map.remove(&key);
            dropped.push(below(&key));
        }
    }
    for (key, value) in map.iter_mut() {
        if own(key) {
            continue;
        }
        let Some(inner) = properties.and_then(|p| p.get(key)).or(additional.filter(|a| a.is_object())) else {
            continue;
        };
        prune_at(inner, value, (&below(key), is_embedded(inner)), dropped);
    }
}

/// Sets what is missing and has a default.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = schema["properties"].as_object() {
                for (key, inner) in properties {
                    default_key(key, inner, map);
                }
            }
            let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) else { return };
            let known = |key: &String| schema["properties"].get(key).is_some();
            for (_, inner) in map.iter_mut().filter(|(k, _)| !known(k)) {
                default(additional, inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| default(&schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn default_key(key: &str, schema: &Value, map: &mut Map<String, Value>) {
    let nullable = schema["nullable"] == true;
    if let Some(wanted) = schema.get("default") {
        let missing = map.get(key).is_none_or(|v| v.is_null() && !nullable);
        if missing {
            map.insert(key.to_owned(), wanted.clone());
        }
    }
    if let Some(value) = map.get_mut(key) {
        default(schema, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_told() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object"}}},
            }},
        }});
        let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "labels": {}}, "other": 1,
            "spec": {"list": [{"a": "1", "b": 2}], "map": {"k": {"a": 1, "b": 2}}, "free": {"x": 1, "known": {"y": 1}}}});
        let mut dropped = Vec::new();
        prune(&schema, &mut object, &mut dropped);
        dropped.sort();
        assert_eq!(dropped, ["other", "spec.free.known.y", "spec.list[0].b", "spec.map.k.b"]);
        assert_eq!(object["spec"]["free"]["x"], 1);
        assert_eq!(object["metadata"]["name"], "a");
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let schema = json!({"properties": {
            "spec": {"default": {}, "properties": {"n": {"default": 1}, "m": {"default": 2}, "o": {"default": 3, "nullable": true}}},
            "list": {"items": {"properties": {"x": {"default": "y"}}}},
        }});
        let mut object = json!({"list": [{}], "spec": {"m": null, "o": null}});
        default(&schema, &mut object);
        assert_eq!(object, json!({"list": [{"x": "y"}], "spec": {"n": 1, "m": 2, "o": null}}));
        let mut empty = json!({});
        default(&schema, &mut empty);
        assert_eq!(empty["spec"], json!({"n": 1, "m": 2, "o": 3}));
    }
}
