//! Validation by an OpenAPI v3 schema, in the words that clients know; pure.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Map, Value};

use crate::status::FieldError;

/// Patterns that were compiled before. They come from definitions, so that their number is bounded.
static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Arc<Regex>>>>> = LazyLock::new(Mutex::default);

/// Most patterns that are kept.
const MAX_PATTERNS: usize = 10_000;

fn pattern(text: &str) -> Option<Arc<Regex>> {
    let mut known = PATTERNS.lock();
    if known.len() > MAX_PATTERNS {
        known.clear();
    }
    known.entry(text.to_owned()).or_insert_with(|| Regex::new(text).ok().map(Arc::new)).clone()
}

/// What is wrong with an object.
#[must_use]
pub fn validate(schema: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, "", &mut errors);
    errors
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_type(value: &Value, wanted: &str) -> bool {
    match (wanted, value) {
        ("number", Value::Number(_)) => true,
        ("integer", Value::Number(n)) => n.as_f64().is_some_and(|f| f.fract() == 0.0),
        (wanted, value) => type_of(value) == wanted,
    }
}

fn check(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(schema) = schema.as_object() else { return };
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    if !check_type(schema, value, path, errors) {
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> =
            allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &allowed));
    }
    match value {
        Value::String(text) => check_text(schema, text, path, errors),
        Value::Number(number) => check_number(schema, number, path, errors),
        Value::Array(items) => check_list(schema, items, path, errors),
        Value::Object(map) => check_map(schema, map, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    check_junctions(schema, value, path, errors);
}

fn check_type(schema: &Map<String, Value>, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let fits = is_type(value, "integer") || value.is_string();
        if !fits {
            let text = format!("{path} in body must be of type integer,string: {:?}", type_of(value));
            errors.push(FieldError::invalid(path, type_of(value), text));
        }
        return fits;
    }
    let Some(wanted) = schema.get("type").and_then(Value::as_str).filter(|t| !t.is_empty()) else { return true };
    let fits = is_type(value, wanted);
    if !fits {
        let name = if path.is_empty() { "<nil>" } else { path };
        let text = format!("{name} in body must be of type {wanted}: {:?}", type_of(value));
        errors.push(FieldError::invalid(path, type_of(value), text));
    }
    fits
}

fn check_text(schema: &Map<String, Value>, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    let length = text.chars().count() as u64;
    if let Some(max) = number("maxLength").filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = number("minLength").filter(|min| length < *min) {
        let why = format!("{path} in body should be at least {min} chars long");
        errors.push(FieldError::invalid(path, text, why));
    }
    if let Some(wanted) = schema.get("pattern").and_then(Value::as_str)
        && pattern(wanted).is_some_and(|p| !p.is_match(text))
    {
        errors.push(FieldError::invalid(path, text, format!("{path} in body should match '{wanted}'")));
    }
    let Some(format) = schema.get("format").and_then(Value::as_str) else { return };
    if !has_format(text, format) {
        errors.push(FieldError::invalid(path, text, format!("{path} in body must be of type {format}: {text:?}")));
    }
}

/// Whether a text has a format that is checked; others are taken.
fn has_format(text: &str, format: &str) -> bool {
    use base64::Engine as _;
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "uri" => !text.is_empty() && text.parse::<http::Uri>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, bits)| {
            ip.parse::<std::net::IpAddr>()
                .is_ok_and(|ip| bits.parse::<u8>().is_ok_and(|bits| bits <= if ip.is_ipv4() { 32 } else { 128 }))
        }),
        _ => true,
    }
}

fn check_number(schema: &Map<String, Value>, number: &serde_json::Number, path: &str, errors: &mut Vec<FieldError>) {
    let Some(value) = number.as_f64() else { return };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let shown = |bound: f64| if bound.fract() == 0.0 { format!("{bound:.0}") } else { bound.to_string() };
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, Value::Number(number.clone()), why));
    match bound("maximum") {
        Some(max) if flag("exclusiveMaximum") && value >= max => {
            refuse(format!("{path} in body should be less than {}", shown(max)));
        }
        Some(max) if value > max => refuse(format!("{path} in body should be less than or equal to {}", shown(max))),
        _ => {}
    }
    match bound("minimum") {
        Some(min) if flag("exclusiveMinimum") && value <= min => {
            refuse(format!("{path} in body should be greater than {}", shown(min)));
        }
        Some(min) if value < min => refuse(format!("{path} in body should be greater than or equal to {}", shown(min))),
        _ => {}
    }
    if let Some(step) = bound("multipleOf").filter(|s| *s > 0.0 && (value / s).fract() != 0.0) {
        refuse(format!("{path} in body should be a multiple of {}", shown(step)));
    }
    let fits = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => {
            number.as_i64().is_none_or(|n| i32::try_from(n).is_ok())
                && number.as_u64().is_none_or(|n| i32::try_from(n).is_ok())
        }
        Some("int64") => number.is_i64() || number.is_f64(),
        _ => true,
    };
    if !fits {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        refuse(format!("Checked value must be of type integer with format {format} in {path}"));
    }
}

fn check_list(schema: &Map<String, Value>, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    let count = items.len() as u64;
    if let Some(max) = number("maxItems").filter(|max| count > *max) {
        errors.push(FieldError::too_many(path, items.len(), max));
    }
    if let Some(min) = number("minItems").filter(|min| count < *min) {
        let why = format!("{path} in body should have at least {min} items");
        errors.push(FieldError::invalid(path, items.len(), why));
    }
    let key_of = |item: &Value| -> Option<Value> {
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Some(item.clone()),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
                let key =
                    keys.iter().filter_map(Value::as_str).filter_map(|k| Some((k.to_owned(), item.get(k)?.clone())));
                Some(Value::Object(key.collect()))
            }
            _ if schema.get("uniqueItems") == Some(&Value::Bool(true)) => Some(item.clone()),
            _ => None,
        }
    };
    let mut seen: Vec<Value> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if let Some(key) = key_of(item) {
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(&path, key.clone()));
            }
            seen.push(key);
        }
        check(schema.get("items").unwrap_or(&Value::Null), item, &path, errors);
    }
}

fn check_map(schema: &Map<String, Value>, map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    let count = map.len() as u64;
    if let Some(max) = number("maxProperties").filter(|max| count > *max) {
        errors.push(FieldError::too_many(path, map.len(), max));
    }
    if let Some(min) = number("minProperties").filter(|min| count < *min) {
        errors.push(FieldError::invalid(
            path,
            map.len(),
            format!("{path} in body should have at least {min} properties"),
        ));
    }
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(key) {
            errors.push(FieldError::required(below(key), ""));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|a| a.is_object());
    for (key, value) in map {
        if path.is_empty() && key == "metadata" {
            continue;
        }
        if let Some(inner) = properties.and_then(|p| p.get(key)) {
            check(inner, value, &below(key), errors);
        } else if let Some(inner) = additional {
            check(inner, value, &format!("{path}[{key}]"), errors);
        }
    }
}

fn check_junctions(schema: &Map<String, Value>, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = |key: &str| schema.get(key).and_then(Value::as_array);
    let fails = |schema: &Value| {
        let mut errors = Vec::new();
        check(schema, value, path, &mut errors);
        errors
    };
    let mut refuse = |rule: &str| {
        let why = format!("{path:?} must validate {rule}");
        errors.push(FieldError::invalid(path, value.clone(), why));
    };
    if let Some(all) = list("allOf") {
        let found: Vec<FieldError> = all.iter().flat_map(&fails).collect();
        if !found.is_empty() {
            refuse("all the schemas (allOf)");
            errors.extend(found);
        }
    }
    let mut refuse = |rule: &str| {
        let why = format!("{path:?} must {rule}");
        errors.push(FieldError::invalid(path, value.clone(), why));
    };
    if list("anyOf").is_some_and(|any| !any.is_empty() && any.iter().all(|s| !fails(s).is_empty())) {
        refuse("validate at least one schema (anyOf)");
    }
    if list("oneOf").is_some_and(|one| !one.is_empty() && one.iter().filter(|s| fails(s).is_empty()).count() != 1) {
        refuse("validate one and only one schema (oneOf)");
    }
    if schema.get("not").is_some_and(|not| fails(not).is_empty()) {
        refuse("not validate the schema (not)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_read_like_upstreams() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["r"], "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 10},
            "s": {"type": "string", "pattern": "^a+$"},
            "e": {"type": "string", "enum": ["x", "y"]},
            "q": {"x-kubernetes-int-or-string": true},
            "l": {"type": "array", "maxItems": 1, "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        }}}});
        let object = json!({"spec": {"n": 0, "s": "b", "e": "z", "q": true, "l": ["a", "a"]}});
        let texts: Vec<String> = validate(&schema, &object).iter().map(ToString::to_string).collect();
        for text in [
            "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
            "spec.s: Invalid value: \"b\": spec.s in body should match '^a+$'",
            "spec.e: Unsupported value: \"z\": supported values: \"x\", \"y\"",
            "spec.q: Invalid value: \"boolean\": spec.q in body must be of type integer,string: \"boolean\"",
            "spec.l: Too many: 2: must have at most 1 item",
            "spec.l[1]: Duplicate value: \"a\"",
            "spec.r: Required value",
        ] {
            assert!(texts.iter().any(|t| t == text), "{text} is not in {texts:#?}");
        }
        let object = json!({"spec": {"n": "one", "r": 1}});
        let texts: Vec<String> = validate(&schema, &object).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\""]);
        assert!(validate(&schema, &json!({"spec": {"r": 1, "n": 3, "q": 1}})).is_empty());
    }
}
