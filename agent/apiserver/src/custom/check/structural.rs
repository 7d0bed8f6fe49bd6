//! Structural schemas: every value has one type, said outside of what is checked of it.

use serde_json::Value;

use super::Errors;
use crate::custom::validate::pattern;
use crate::status::FieldError;
use crate::tree;

/// Why a schema cannot be read as a structural one at all.
pub(super) fn unsupported(schema: &Value) -> Option<String> {
    let map = schema.as_object()?;
    let full = |key: &str| match map.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => key == "additionalItems" || !map.is_empty(),
        Some(_) => true,
    };
    let named = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    if let Some((_, name)) = named.iter().find(|(key, _)| full(key)) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    let list = |key: &str| tree::list(schema, &format!("/{key}")).iter().find_map(unsupported);
    let junctions =
        unsupported(&schema["not"]).or_else(|| list("allOf")).or_else(|| list("anyOf")).or_else(|| list("oneOf"));
    if junctions.is_some() {
        return junctions;
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned());
    }
    if schema["items"].as_array().is_some_and(|i| !i.is_empty()) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    unsupported(&schema["items"])
        .or_else(|| schema["properties"].as_object().into_iter().flatten().find_map(|(_, inner)| unsupported(inner)))
        .or_else(|| unsupported(&schema["additionalProperties"]))
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that keeps a schema from being structural, in the order of the texts.
pub(super) fn check(schema: &Value, field: &str) -> Errors {
    let mut errors = Errors::new();
    invariants(schema, Level::Root, field, &mut errors);
    complete(schema, Some(schema), (field, field), &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == serde_json::json!([{"type": "integer"}, {"type": "string"}])
}

fn invariants(schema: &Value, level: Level, field: &str, errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    let at = |key: &str| format!("{field}.{key}");
    let flag = |key: &str| schema[key] == true;
    let ty = tree::text(schema, "/type");
    if ty == "array" && !schema["items"].is_object() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    invariants(&schema["items"], Level::Item, &at("items"), errors);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        invariants(inner, Level::Field, &at(&format!("properties[{name}]")), errors);
    }
    let additional = &schema["additionalProperties"];
    if !additional.is_null() && level == Level::Root {
        errors.push(FieldError::forbidden(at("additionalProperties"), "must not be used at the root"));
    }
    invariants(additional, Level::Field, &at("additionalProperties"), errors);
    let (embedded, int_or_string, preserve) = (
        flag("x-kubernetes-embedded-resource"),
        flag("x-kubernetes-int-or-string"),
        flag("x-kubernetes-preserve-unknown-fields"),
    );
    for (set, key) in [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
    {
        if int_or_string && set {
            errors.push(FieldError::invalid(at(key), true, "must be false if x-kubernetes-int-or-string is true"));
        }
    }
    let skips = Skips {
        any_of: is_int_or_string(&schema["anyOf"]),
        first_all_of: is_int_or_string(&schema["allOf"][0]["anyOf"]),
    };
    validations(schema, skips, field, errors);
    of_type(schema, level, field, errors);
    if embedded && !additional.is_null() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(at("additionalProperties"), why));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(FieldError::invalid(at("type"), ty, "must be object at the root"));
    }
    of_metadata(schema, level, field, errors);
    let no_properties = schema["properties"].as_object().is_none_or(serde_json::Map::is_empty);
    if embedded && !preserve && no_properties {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(at("properties"), why));
    }
}

fn of_type(schema: &Value, level: Level, field: &str, errors: &mut Errors) {
    let field = format!("{field}.type");
    let flag = |key: &str| schema[key] == true;
    let ty = tree::text(schema, "/type");
    if flag("x-kubernetes-embedded-resource") && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if ty.is_empty() { FieldError::required(field, why) } else { FieldError::invalid(field, ty, why) });
    } else if ty.is_empty() && !flag("x-kubernetes-int-or-string") && !flag("x-kubernetes-preserve-unknown-fields") {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(field, why));
    }
}

/// The type names and the metadata of objects are what they are everywhere.
fn of_metadata(schema: &Value, level: Level, field: &str, errors: &mut Errors) {
    let of_object = level == Level::Root || schema["x-kubernetes-embedded-resource"] == true;
    let property = |key: &str| schema["properties"].get(key).filter(|p| p.is_object());
    for key in ["kind", "apiVersion"] {
        let Some(ty) = property(key).filter(|_| of_object).map(|p| tree::text(p, "/type")) else { continue };
        if ty != "string" {
            errors.push(FieldError::invalid(format!("{field}.properties[{key}].type"), ty, "must be string"));
        }
    }
    let Some(metadata) = property("metadata") else { return };
    let field = format!("{field}.properties[metadata]");
    let ty = tree::text(metadata, "/type");
    if of_object && ty != "object" {
        errors.push(FieldError::invalid(format!("{field}.type"), ty, "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let names = |key: &String| key == "name" || key == "generateName";
    let allowed = metadata.as_object().into_iter().flatten().all(|(key, value)| match key.as_str() {
        "type" | "default" => true,
        "properties" => value.as_object().is_some_and(|p| p.keys().all(names)),
        _ => matches!(value, Value::Null | Value::Bool(false)) || *value == "" || *value == serde_json::json!([]),
    });
    if !allowed {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(field, why));
    }
}

/// The patterns of values that are numbers or texts, which say types where none may be said.
#[derive(Clone, Copy, Default)]
struct Skips {
    any_of: bool,
    first_all_of: bool,
}

fn validations(schema: &Value, skips: Skips, field: &str, errors: &mut Errors) {
    let list = |key: &str| tree::list(schema, &format!("/{key}")).iter().enumerate();
    if !skips.any_of {
        for (i, inner) in list("anyOf") {
            nested(inner, Skips::default(), &format!("{field}.anyOf[{i}]"), errors);
        }
    }
    for (i, inner) in list("allOf") {
        let skips = Skips { any_of: skips.first_all_of && i == 0, first_all_of: false };
        nested(inner, skips, &format!("{field}.allOf[{i}]"), errors);
    }
    for (i, inner) in list("oneOf") {
        nested(inner, Skips::default(), &format!("{field}.oneOf[{i}]"), errors);
    }
    nested(&schema["not"], Skips::default(), &format!("{field}.not"), errors);
    let text = tree::text(schema, "/pattern");
    if pattern(text).is_none()
        && let Err(told) = cel::regexp::compile(text)
    {
        let why = format!("must be a valid regular expression, but isn't: {told}");
        errors.push(FieldError::invalid(format!("{field}.pattern"), text, why));
    }
}

/// A schema inside a junction only checks: it does not say what values are.
fn nested(schema: &Value, skips: Skips, field: &str, errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    validations(schema, skips, field, errors);
    nested(&schema["items"], Skips::default(), &format!("{field}.items"), errors);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        nested(inner, Skips::default(), &format!("{field}.properties[{name}]"), errors);
    }
    let filled = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    for (key, what) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        let value = &schema[key];
        let set = match key {
            "default" | "x-kubernetes-list-type" | "x-kubernetes-map-type" => !value.is_null(),
            _ => filled(value),
        };
        if set {
            errors.push(FieldError::forbidden(format!("{field}.{key}"), format!("must be {what} to be structural")));
        }
    }
    if !schema["properties"]["metadata"].is_null() {
        let why = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(format!("{field}.properties[metadata]"), why));
    }
}

/// What is checked inside a junction has its schema outside of it.
fn complete(schema: &Value, known: Option<&Value>, (outside, inside): (&str, &str), errors: &mut Errors) {
    let mut one = |inner: &Value, inside: String| nested_complete(inner, known, (outside, &inside), errors);
    one(&schema["not"], format!("{inside}.not"));
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in tree::list(schema, &format!("/{key}")).iter().enumerate() {
            one(inner, format!("{inside}.{key}[{i}]"));
        }
    }
}

fn nested_complete(schema: &Value, known: Option<&Value>, (outside, inside): (&str, &str), errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    let Some(known) = known else {
        errors.push(FieldError::required(outside, format!("because it is defined in {inside}")));
        return;
    };
    complete(schema, Some(known), (outside, inside), errors);
    let items = known.get("items").filter(|i| i.is_object());
    nested_complete(&schema["items"], items, (&format!("{outside}.items"), &format!("{inside}.items")), errors);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let paths = (format!("{outside}.properties[{name}]"), format!("{inside}.properties[{name}]"));
        let own = known["properties"].get(name).filter(|p| p.is_object());
        nested_complete(inner, own, (&paths.0, &paths.1), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: &Value) -> Vec<String> {
        check(schema, "s").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_value_has_a_type() {
        let schema = json!({"type": "object", "properties": {"a": {}, "l": {"type": "array", "items": {}}, "n": {"type": "array"},
            "i": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}});
        assert_eq!(
            texts(&schema),
            [
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[l].items.type: Required value: must not be empty for specified array items",
                "s.properties[n].items: Required value: must be specified",
            ]
        );
        assert_eq!(
            texts(&json!({"type": "string"})),
            ["s.type: Invalid value: \"string\": must be object at the root"]
        );
    }

    #[test]
    fn junctions_only_check() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "object"}},
            "anyOf": [{"properties": {"b": {"type": "string", "default": 1}}}]});
        assert_eq!(
            texts(&schema),
            [
                "s.anyOf[0].properties[b].default: Forbidden: must be undefined to be structural",
                "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
                "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
            ]
        );
    }

    #[test]
    fn metadata_is_not_described_again() {
        let of = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata}});
        assert!(
            texts(&of(json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}})))
                .is_empty()
        );
        assert!(texts(&of(json!({"type": "object"}))).is_empty());
        assert_eq!(texts(&of(json!({"type": "object", "properties": {"labels": {"type": "object"}}}))).len(), 1);
    }

    #[test]
    fn patterns_compile() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "a(b"}}});
        assert_eq!(
            texts(&schema),
            [
                "s.properties[a].pattern: Invalid value: \"a(b\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `a(b`"
            ]
        );
    }
}
