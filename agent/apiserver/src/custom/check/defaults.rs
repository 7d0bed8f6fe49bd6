//! Defaults have to be values that their schema allows.

use serde_json::Value;

use super::Errors;
use crate::custom::rules::Rules;
use crate::custom::schema::{Additional, prune_value};
use crate::custom::{Schema, invariants, validate};
use crate::status::FieldError;

/// Checks every default in a schema.
pub(super) fn check(schema: &Value, field: &str, errors: &mut Errors) {
    walk(schema, field, (true, false), errors);
}

fn walk(schema: &Value, field: &str, (is_root, in_metadata): (bool, bool), errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    if let Some(value) = schema.get("default").filter(|d| !d.is_null()) {
        one(schema, value, (&format!("{field}.default"), is_root, in_metadata), errors);
    }
    walk(&schema["items"], &format!("{field}.items"), (false, in_metadata), errors);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let named = matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let of_object = is_root || schema["x-kubernetes-embedded-resource"] == true;
        walk(inner, &format!("{field}.properties[{name}]"), (false, in_metadata || of_object && named), errors);
    }
}

fn one(schema: &Value, value: &Value, (field, is_root, in_metadata): (&str, bool, bool), errors: &mut Errors) {
    let compiled = Schema::parse(schema);
    if !in_metadata {
        let mut pruned = value.clone();
        prune_value(&compiled, &mut pruned);
        if pruned != *value {
            errors.push(FieldError::invalid(field, value.clone(), "must not have unknown fields"));
        }
    }
    let mut embedded = Errors::new();
    let of_object = is_root || schema["x-kubernetes-embedded-resource"] == true;
    if of_object {
        invariants::object(&compiled, value, field, &mut embedded);
    } else {
        embedded.extend(invariants::embedded(&compiled, value).into_iter().map(|e| e.below(field)));
    }
    if !embedded.is_empty() {
        errors.extend(embedded);
        return;
    }
    let found = validate::validate(&untyped(&compiled), value, None, field);
    if found.is_empty()
        && let Some(rules) = Rules::compile(schema, of_object)
    {
        // As a value that stays, and as one that is new.
        for old in [Some(value), None] {
            if errors.is_empty() {
                errors.extend(rules.validate(&compiled, (value, old), field, &mut Vec::new()));
            }
        }
    }
    errors.extend(found);
}

/// The schema of a default: what may be a number or a text has no type at all there.
fn untyped(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    loosen(&mut schema);
    schema
}

fn loosen(schema: &mut Schema) {
    schema.int_or_string = false;
    schema.properties.iter_mut().for_each(|(_, inner)| loosen(inner));
    schema.items.as_deref_mut().into_iter().for_each(loosen);
    if let Additional::Schema(inner) = &mut schema.additional {
        loosen(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_values_of_their_schema() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": 5},
            "b": {"type": "object", "default": {"x": 1}, "properties": {"y": {"type": "integer"}}},
            "c": {"type": "integer", "default": 5, "minimum": 1}}});
        let mut errors = Errors::new();
        check(&schema, "s", &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "s.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"",
                "s.properties[b].default: Invalid value: {\"x\":1}: must not have unknown fields",
            ]
        );
    }
}
