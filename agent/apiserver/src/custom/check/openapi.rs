//! What a schema may say at all, wherever it says it.

use serde_json::Value;

use super::{Errors, Grounds, defaults, parts, rules, shown, structural};
use crate::status::{FieldError, Shown};
use crate::tree;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Checks the validation of a version, or of all: an object with `openAPIV3Schema`.
pub(super) fn check(validation: &Value, field: &str, grounds: Grounds, errors: &mut Errors) {
    let Some(schema) = validation.get("openAPIV3Schema").filter(|s| !s.is_null()) else { return };
    let field = format!("{field}.openAPIV3Schema");
    let before = errors.len();
    if grounds.status {
        at_root(schema, &field, errors);
    }
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(format!("{field}.nullable"), "nullable cannot be true at the root"));
    }
    let mut unsupported = None;
    let mut is_sound = false;
    match structural::unsupported(schema) {
        Some(why) => unsupported = Some(FieldError::invalid(&field, "", why)),
        None => {
            let mut found = structural::check(schema, &field);
            if found.is_empty() {
                defaults::check(schema, &field, &mut found);
                is_sound = found.is_empty();
            }
            errors.extend(found);
        }
    }
    let mut walk = Walk { errors: Errors::new() };
    let around = Around { defaults: None, in_metadata: false };
    walk.schema(schema, &field, (true, &around));
    let of_rules = if is_sound { rules::check(schema, &field, grounds, &walk.errors) } else { Errors::new() };
    errors.append(&mut walk.errors);
    errors.extend(of_rules);
    if errors.len() == before {
        errors.extend(unsupported);
    }
}

/// Where the status is a subresource, its schema has to be one property of the whole.
fn at_root(schema: &Value, field: &str, errors: &mut Errors) {
    for name in shown::set_fields(schema) {
        if name == "Type" {
            let ty = tree::text(schema, "/type");
            if ty != "object" {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.push(FieldError::invalid(format!("{field}.type"), ty, why));
                return;
            }
        } else if !shown::AT_ROOT.contains(&name) {
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                shown::AT_ROOT.join(" ")
            );
            errors.push(FieldError::invalid(field, Shown::spelled(shown::schema(schema)), why));
            return;
        }
    }
}

/// What a schema inherits from where it stands.
#[derive(Clone)]
struct Around {
    /// Why there may be no defaults, where there may be none.
    defaults: Option<String>,
    /// Whether this is about the metadata of an object.
    in_metadata: bool,
}

struct Walk {
    errors: Errors,
}

impl Walk {
    fn forbid(&mut self, field: &str, key: &str, why: &str) {
        self.errors.push(FieldError::forbidden(format!("{field}.{key}"), why));
    }

    fn schema(&mut self, schema: &Value, field: &str, (is_root, around): (bool, &Around)) {
        if !schema.is_object() {
            return;
        }
        self.plain(schema, field, around);
        if schema["uniqueItems"] == true {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(field, "uniqueItems", why);
        }
        self.properties(schema, field, (is_root, around));
        self.schema(&schema["not"], &format!("{field}.not"), (false, around));
        for key in ["allOf", "oneOf", "anyOf"] {
            for (i, inner) in tree::list(schema, &format!("/{key}")).iter().enumerate() {
                self.schema(inner, &format!("{field}.{key}[{i}]"), (false, around));
            }
        }
        for (name, inner) in schema["definitions"].as_object().into_iter().flatten() {
            self.schema(inner, &format!("{field}.definitions[{name}]"), (false, around));
        }
        match &schema["items"] {
            Value::Array(items) => {
                for (i, inner) in items.iter().enumerate() {
                    self.schema(inner, &format!("{field}.items[{i}]"), (false, around));
                }
            }
            inner => self.schema(inner, &format!("{field}.items"), (false, around)),
        }
        for (name, inner) in schema["dependencies"].as_object().into_iter().flatten() {
            self.schema(inner, &format!("{field}.dependencies[{name}]"), (false, around));
        }
        self.extensions(schema, field);
        self.list_type(schema, field);
        self.rules(schema, field);
    }

    /// Keys that no schema may have, or may have only here and there.
    fn plain(&mut self, schema: &Value, field: &str, around: &Around) {
        let ty = tree::text(schema, "/type");
        if !ty.is_empty() && !TYPES.contains(&ty) {
            self.errors.push(FieldError::not_supported(format!("{field}.type"), ty, &TYPES));
        }
        if let Some(reason) = around.defaults.as_ref().filter(|_| tree::has(schema, "/default")) {
            self.forbid(field, "default", &format!("must not be set {reason}"));
        }
        let full = |key: &str| match &schema[key] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            let set = if matches!(key, "additionalItems" | "dependencies" | "$ref") {
                !schema[key].is_null()
            } else {
                full(key)
            };
            if set {
                self.forbid(field, key, &format!("{key} is not supported"));
            }
        }
        if ty == "null" {
            self.forbid(field, "type", "type cannot be set to null, use nullable as an alternative");
        }
        if schema["items"].as_array().is_some_and(|i| !i.is_empty()) {
            self.forbid(field, "items", "items must be a schema object and not an array");
        }
        if around.in_metadata && schema["x-kubernetes-embedded-resource"] == true {
            self.forbid(field, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
    }

    fn properties(&mut self, schema: &Value, field: &str, (is_root, around): (bool, &Around)) {
        let properties = schema["properties"].as_object().filter(|p| !p.is_empty());
        let additional = &schema["additionalProperties"];
        if !additional.is_null() {
            if properties.is_some() && *additional != true {
                let why = "additionalProperties and properties are mutual exclusive";
                self.forbid(field, "additionalProperties", why);
            }
            let mut inside = around.clone();
            if around.in_metadata {
                inside.defaults = Some("inside additionalProperties applying to object metadata".to_owned());
            }
            self.schema(additional, &format!("{field}.additionalProperties"), (false, &inside));
        }
        for (name, inner) in properties.into_iter().flatten() {
            let mut inside = around.clone();
            let of_object = is_root || schema["x-kubernetes-embedded-resource"] == true;
            if of_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                inside.in_metadata = true;
                if is_root {
                    inside.defaults = Some(format!("in top-level {name}"));
                }
            }
            self.schema(inner, &format!("{field}.properties[{name}]"), (false, &inside));
        }
    }

    fn extensions(&mut self, schema: &Value, field: &str) {
        let ty = tree::text(schema, "/type");
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let field = format!("{field}.x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(field, false, "must be true or undefined"));
        }
        let typed = |key: &str, wanted: &str, allowed: &[&str], errors: &mut Errors| {
            let Some(given) = schema[key].as_str() else { return };
            if ty != wanted {
                let why = format!("must be {wanted} if {key} is specified");
                let field = format!("{field}.type");
                errors.push(if ty.is_empty() {
                    FieldError::required(field, why)
                } else {
                    FieldError::invalid(field, ty, why)
                });
            } else if given == "set" {
                set_of(&schema["items"], field, errors);
            }
            if !allowed.contains(&given) {
                errors.push(FieldError::not_supported(format!("{field}.{key}"), given, allowed));
            }
        };
        typed("x-kubernetes-map-type", "object", &["atomic", "granular"], &mut self.errors);
        typed("x-kubernetes-list-type", "array", &["atomic", "set", "map"], &mut self.errors);
    }

    fn list_type(&mut self, schema: &Value, field: &str) {
        let list = schema["x-kubernetes-list-type"].as_str();
        let keys = tree::list(schema, "/x-kubernetes-list-map-keys");
        let at = |key: &str| format!("{field}.{key}");
        if !keys.is_empty() && list != Some("map") {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match list {
                None => FieldError::required(at("x-kubernetes-list-type"), why),
                Some(other) => FieldError::invalid(at("x-kubernetes-list-type"), other, why),
            });
        }
        let items = &schema["items"];
        if list == Some("map") {
            if keys.is_empty() {
                let why = "must not be empty if x-kubernetes-list-type is map";
                self.errors.push(FieldError::required(at("x-kubernetes-list-map-keys"), why));
            }
            if items.is_null() {
                let why = "must have a schema if x-kubernetes-list-type is map";
                self.errors.push(FieldError::required(at("items"), why));
            }
            let ty = tree::text(items, "/type");
            if items.is_object() && ty != "object" {
                let why = "must be object if parent array's x-kubernetes-list-type is map";
                self.errors.push(FieldError::invalid(at("items.type"), ty, why));
            }
            if ty == "object" {
                self.map_keys(keys, items, field);
            }
        }
        if items.is_object() && matches!(list, Some("map" | "set")) {
            self.members(items, keys, (field, list.unwrap_or_default()));
        }
    }

    fn map_keys(&mut self, keys: &[Value], items: &Value, field: &str) {
        let at = format!("{field}.x-kubernetes-list-map-keys");
        for (i, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            match items["properties"].get(name).filter(|p| !p.is_null()) {
                Some(property) if matches!(tree::text(property, "/type"), "array" | "object") => {
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let field = format!("{field}.items.properties[{name}].type");
                    self.errors.push(FieldError::invalid(field, "object", why));
                }
                Some(_) => {}
                None => {
                    let why = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&at, Value::Array(keys.to_vec()), why));
                }
            }
            if keys[..i].contains(key) {
                self.errors.push(FieldError::invalid(
                    &at,
                    Value::Array(keys.to_vec()),
                    "must not contain duplicate entries",
                ));
            }
        }
    }

    /// Members of lists that are told apart are there, and so are their keys.
    fn members(&mut self, items: &Value, keys: &[Value], (field, list): (&str, &str)) {
        if items["nullable"] == true {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
            self.forbid(field, "items.nullable", &why);
        }
        if list != "map" {
            return;
        }
        for key in keys {
            let name = key.as_str().unwrap_or_default();
            let Some(property) = items["properties"].get(name).filter(|p| !p.is_null()) else { continue };
            let at = format!("{field}.items.properties[{name}]");
            if !tree::list(items, "/required").contains(key) && !tree::has(property, "/default") {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(FieldError::required(format!("{at}.default"), why));
            }
            if property["nullable"] == true {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbid(&at, "nullable", why);
            }
        }
    }

    /// The form of rules; what they say is for their compiler.
    fn rules(&mut self, schema: &Value, field: &str) {
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        for (i, rule) in tree::list(schema, "/x-kubernetes-validations").iter().enumerate() {
            let text = |key: &str| tree::text(rule, &format!("/{key}"));
            let at = |key: &str| format!("{field}.x-kubernetes-validations[{i}].{key}");
            let breaks = |text: &str| text.contains(['\n', '\r']);
            let (expression, message) = (text("rule").trim(), text("message"));
            if expression.is_empty() {
                self.errors.push(FieldError::required(at("rule"), "rule is not specified"));
            } else if !message.is_empty() && message.trim().is_empty() {
                self.errors.push(FieldError::invalid(at("message"), message, "must be non-empty if specified"));
            } else if breaks(message.trim()) {
                self.errors.push(FieldError::invalid(at("message"), message, "must not contain line breaks"));
            } else if breaks(expression) && message.trim().is_empty() {
                let why = "message must be specified if rule contains line breaks";
                self.errors.push(FieldError::required(at("message"), why));
            }
            let made = text("messageExpression");
            if !made.is_empty() && made.trim().is_empty() {
                let why = "messageExpression must be non-empty if specified";
                self.errors.push(FieldError::required(at("messageExpression"), why));
            }
            if let Some(reason) = rule["reason"].as_str().filter(|r| !REASONS.contains(r)) {
                self.errors.push(FieldError::not_supported(at("reason"), reason, &REASONS));
            }
            let path = text("fieldPath");
            if path.is_empty() {
                continue;
            }
            for (bad, why) in [
                (path.trim().is_empty(), "must be non-empty if specified"),
                (breaks(path), "must not contain line breaks"),
                (
                    structural::unsupported(schema).is_none() && parts::follow(schema, path, true).is_err(),
                    "must be a valid path",
                ),
            ] {
                if bad {
                    self.errors.push(FieldError::invalid(at("fieldPath"), path, why));
                }
            }
        }
    }
}

/// Members of sets are one value each.
fn set_of(items: &Value, field: &str, errors: &mut Errors) {
    let of = |key: &str| items[key].as_str();
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    match of("type") {
        Some("array") if of("x-kubernetes-list-type").is_some_and(|t| t != "atomic") => {
            let given = items["x-kubernetes-list-type"].clone();
            errors.push(FieldError::invalid(format!("{field}.items.x-kubernetes-list-type"), given, why));
        }
        Some("object") if of("x-kubernetes-map-type") != Some("atomic") => {
            let given = items["x-kubernetes-list-type"].clone();
            errors.push(FieldError::invalid(format!("{field}.items.x-kubernetes-map-type"), given, why));
        }
        _ => {}
    }
}

/// Whether some schema in a schema satisfies a condition; all are asked until one does.
pub(super) fn any(schema: &Value, fits: &dyn Fn(&Value) -> bool) -> bool {
    let Some(map) = schema.as_object() else { return false };
    if fits(schema) {
        return true;
    }
    let one = |key: &str| map.get(key).is_some_and(|inner| any(inner, fits));
    let list = |key: &str| map.get(key).and_then(Value::as_array).is_some_and(|l| l.iter().any(|s| any(s, fits)));
    let named = |key: &str| map.get(key).and_then(Value::as_object).is_some_and(|m| m.values().any(|s| any(s, fits)));
    one("items")
        || list("items")
        || ["allOf", "anyOf", "oneOf"].iter().any(|key| list(key))
        || one("not")
        || named("properties")
        || one("additionalProperties")
        || named("patternProperties")
        || one("additionalItems")
        || named("definitions")
        || named("dependencies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: &Value, status: bool) -> Vec<String> {
        let mut errors = Errors::new();
        let grounds = Grounds { status, unchanged: false };
        check(&json!({"openAPIV3Schema": schema}), "v", grounds, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_supported_is_told() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "odd"}, "b": {"type": "string", "uniqueItems": true}, "c": {"type": "array", "items": [{}]}}});
        assert_eq!(
            texts(&schema, false),
            [
                "v.openAPIV3Schema.properties[a].type: Unsupported value: \"odd\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                "v.openAPIV3Schema.properties[b].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                "v.openAPIV3Schema.properties[c].items: Forbidden: items must be a schema object and not an array",
            ]
        );
        // A schema that cannot be made structural is told of only if nothing else is wrong.
        assert_eq!(
            texts(&json!({"type": "object", "$schema": "x"}), false),
            ["v.openAPIV3Schema: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"]
        );
    }

    #[test]
    fn keyed_lists_have_keys_that_are_there() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k", "k", "none"],
            "items": {"type": "object", "properties": {"k": {"type": "string", "nullable": true}}}}}});
        let found = texts(&schema, false);
        for text in [
            "must not contain duplicate entries",
            "entries must all be names of item properties",
            "so it must have a default or be a required property",
            "so it cannot be nullable",
        ] {
            assert!(found.iter().any(|f| f.contains(text)), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_root_is_plain_where_the_status_is_a_subresource() {
        assert!(texts(&json!({"type": "object", "required": ["spec"]}), true).is_empty());
        let found = texts(&json!({"type": "object", "maxProperties": 1}), true);
        assert!(found[0].starts_with("v.openAPIV3Schema: Invalid value: {\"ID\":\"\""), "{found:?}");
    }

    #[test]
    fn rules_have_a_form() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [
            {"rule": " "}, {"rule": "a\nb"}, {"rule": "a", "message": "x\ny"}, {"rule": "a", "fieldPath": ".b"},
            {"rule": "a", "reason": "Other"}]});
        assert_eq!(texts(&schema, false).len(), 5);
    }
}
