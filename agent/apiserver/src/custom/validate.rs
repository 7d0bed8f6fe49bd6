//! Validation by a schema, in the words that clients know; pure.
//!
//! What an update leaves as it was is not held against it: errors in a part that is equal to its old self are dropped.
//! Members of lists have an old self only in lists that merge by keys.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use api::transcode::go_json;
use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Map, Number, Value};
use stdx::go_float;

use super::formats;
use super::schema::{Additional, Checks, List, Schema, Type};
use crate::status::{FieldError, Shown};

/// Patterns that were compiled before. They come from definitions, so that their number is bounded.
static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Arc<Regex>>>>> = LazyLock::new(Mutex::default);

/// Most patterns that are kept.
const MAX_PATTERNS: usize = 10_000;

/// Where errors are told that belong to no field.
const NOWHERE: &str = "<nil>";

pub(super) fn pattern(text: &str) -> Option<Arc<Regex>> {
    let mut known = PATTERNS.lock();
    if known.len() > MAX_PATTERNS {
        known.clear();
    }
    known.entry(text.to_owned()).or_insert_with(|| cel::regexp::compile(text).ok().map(Arc::new)).clone()
}

/// What is wrong with a value, told below `field`. `old` is what it was.
#[must_use]
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>, field: &str) -> Vec<FieldError> {
    let found = Walk { field }.node(schema, value, old, "");
    found.errors.into_iter().map(|(_, error)| error).collect()
}

/// What came of a check: errors with their texts, and how much was found right.
#[derive(Default)]
struct Outcome {
    errors: Vec<(String, FieldError)>,
    matches: usize,
}

impl Outcome {
    fn add(&mut self, text: String, error: FieldError) {
        if !self.errors.iter().any(|(known, _)| *known == text) {
            self.errors.push((text, error));
        }
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        for (text, error) in other.errors {
            self.add(text, error);
        }
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

/// The type of a value in messages.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a number is whole, and one that clients of any language can read.
fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0
}

fn type_name(schema: &Schema) -> &'static str {
    if schema.int_or_string {
        return "integer,string";
    }
    match schema.ty {
        Type::Unset => "",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

/// The old member of a keyed list that a new one succeeds.
pub(super) fn correlated<'v>(schema: &Schema, new: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
    let List::Map(keys) = &schema.list else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == new.get(key));
    old?.as_array()?.iter().find(same)
}

/// Whether nothing changed; the order of keyed lists does not count.
pub(super) fn unchanged(schema: Option<&Schema>, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Array(a), Value::Array(b)) => {
            let Some(schema) = schema.filter(|s| matches!(s.list, List::Map(_))) else { return new == old };
            let item =
                |n: &Value| correlated(schema, n, Some(old)).is_some_and(|o| unchanged(schema.items.as_deref(), n, o));
            a.len() == b.len() && a.iter().all(item)
        }
        (Value::Object(a), Value::Object(b)) => {
            let below = |key: &str| schema.and_then(|s| s.below(key).ok().flatten());
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|o| unchanged(below(k), v, o)))
        }
        _ => new == old,
    }
}

struct Walk<'a> {
    field: &'a str,
}

impl Walk<'_> {
    /// The name of a field in a `Status`.
    fn at(&self, path: &str) -> String {
        let path = path.trim_start_matches('.');
        match (self.field.is_empty(), path.is_empty()) {
            (true, true) => NOWHERE.to_owned(),
            (true, false) => path.to_owned(),
            (false, true) => self.field.to_owned(),
            (false, false) => format!("{}.{path}", self.field),
        }
    }

    /// Where errors are told that name their field in their text.
    fn around(&self) -> &str {
        if self.field.is_empty() { NOWHERE } else { self.field }
    }

    fn invalid(&self, path: &str, value: impl Into<Shown>, text: String) -> (String, FieldError) {
        (text.clone(), FieldError::invalid(self.at(path), value, text))
    }

    fn general(&self, text: String) -> (String, FieldError) {
        (text.clone(), FieldError::invalid(self.around(), "", text))
    }

    fn node(&self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let found = self.run(schema, value, old, path);
        if !found.is_valid() && old.is_some_and(|old| unchanged(Some(schema), value, old)) {
            return Outcome::default();
        }
        found
    }

    fn run(&self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut out = Outcome::default();
        let add = |out: &mut Outcome, found: Option<Outcome>| {
            if let Some(found) = found {
                out.merge(found);
            }
            out.matches += 1;
        };
        let empty = Checks::default();
        let checks = schema.checks.as_deref().unwrap_or(&empty);
        if value.is_null() {
            out.merge(self.of_type(schema, checks, value, path));
            out.merge(self.of_enum(checks, value, path));
            return out;
        }
        if schema.ty != Type::Unset || schema.int_or_string || checks.format.is_some() {
            add(&mut out, Some(self.of_type(schema, checks, value, path)));
        }
        add(&mut out, Some(self.junctions(checks, (value, old), path)));
        match value {
            Value::String(text) => {
                add(&mut out, self.text(checks, text, path));
                if checks.format.is_some() {
                    add(&mut out, self.format(checks, text, path));
                }
            }
            Value::Number(number) => add(&mut out, Some(self.number(schema, checks, number, path))),
            Value::Array(items) => add(&mut out, Some(self.list(schema, checks, (items, old), path))),
            Value::Null | Value::Bool(_) | Value::Object(_) => {}
        }
        add(&mut out, Some(self.of_enum(checks, value, path)));
        if let Value::Object(map) = value {
            add(&mut out, Some(self.object(schema, checks, (map, old), path)));
        }
        out.matches += 1;
        out
    }

    fn of_type(&self, schema: &Schema, checks: &Checks, value: &Value, path: &str) -> Outcome {
        let mut out = Outcome { matches: 1, ..Outcome::default() };
        let mut refuse = |wanted: &str, given: &str| {
            let text = format!("{path} in body must be of type {wanted}: {given:?}");
            out = Outcome::default();
            out.add(text.clone(), FieldError::type_invalid(self.at(path), given, text));
        };
        let wanted = type_name(schema);
        let given = type_of(value);
        if value.is_null() {
            if !wanted.is_empty() && !schema.nullable {
                refuse(wanted, "null");
            }
            return out;
        }
        let whole = wanted.contains("integer") && value.as_f64().is_some_and(|n| !value.is_i64() && is_whole(n));
        let fits = wanted.split(',').any(|w| w == given) || whole || (given == "integer" && wanted == "number");
        let textual = value.is_string() || value.is_array();
        if let Some(format) = &checks.format {
            let own = match given {
                "integer" => "int64",
                "number" => "float64",
                _ => "",
            };
            if !textual && !fits && own != &**format {
                refuse(format, own);
                return out;
            }
            if textual && !wanted.contains("number") && !wanted.contains("integer") {
                return out;
            }
        }
        if !fits {
            refuse(wanted, given);
        }
        out
    }

    fn of_enum(&self, checks: &Checks, value: &Value, path: &str) -> Outcome {
        let mut out = Outcome::default();
        let equal = |allowed: &Value| match (allowed, value) {
            // A number is made one of the other's type first.
            (Value::Number(a), Value::Number(b)) if a.is_i64() => a.as_f64() == b.as_f64().map(f64::trunc),
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            _ => !value.is_null() && allowed == value,
        };
        if !checks.allowed.is_empty() && !checks.allowed.iter().any(equal) {
            let names: Vec<String> =
                checks.allowed.iter().map(|a| a.as_str().map_or_else(|| go_json(a), str::to_owned)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let error = FieldError::not_supported(self.at(path), value.clone(), &names);
            out.add(format!("{path} in body should be one of {names:?}"), error);
        }
        out
    }

    fn text(&self, checks: &Checks, text: &str, path: &str) -> Option<Outcome> {
        let mut out = Outcome::default();
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            let error = FieldError::too_long(self.at(path), usize::try_from(max).unwrap_or(usize::MAX));
            out.add(format!("{path} in body should be at most {max} chars long"), error);
            return Some(out);
        }
        let why = match (checks.min_length.filter(|min| length < *min), &checks.pattern) {
            (Some(min), _) => format!("{path} in body should be at least {min} chars long"),
            (None, Some(wanted)) => match pattern(wanted) {
                Some(pattern) if !pattern.is_match(text) => format!("{path} in body should match '{wanted}'"),
                _ => return None,
            },
            (None, None) => return None,
        };
        let (text, error) = self.invalid(path, text, why);
        out.add(text, error);
        Some(out)
    }

    fn format(&self, checks: &Checks, text: &str, path: &str) -> Option<Outcome> {
        let format = checks.format.as_ref().filter(|format| !formats::has(text, format))?;
        let mut out = Outcome::default();
        let why = format!("{path} in body must be of type {format}: {text:?}");
        out.add(why.clone(), FieldError::type_invalid(self.at(path), text, why));
        Some(out)
    }

    fn number(&self, schema: &Schema, checks: &Checks, number: &Number, path: &str) -> Outcome {
        let mut out = Outcome { matches: 1, ..Outcome::default() };
        let integer = schema.ty == Type::Integer && !schema.int_or_string;
        let format = checks.format.as_deref().filter(|_| !schema.int_or_string).unwrap_or_default();
        let value = number.as_f64().unwrap_or_default();
        let fits = |value: f64, whole: Option<i64>| match (integer, format) {
            (true, "int32") => whole.is_some_and(|n| i32::try_from(n).is_ok()),
            (true, _) => whole.is_some(),
            (false, "float") => value.abs() <= f64::from(f32::MAX),
            (false, _) => true,
        };
        let mut check = |what: &str, value: f64, whole: Option<i64>| {
            if fits(value, whole) {
                return;
            }
            let ty = if integer { "integer" } else { "number" };
            let suffix =
                if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
            let (text, error) = self.general(format!("{what} value must be of type {ty} {suffix} in {path}"));
            out.add(text, error);
        };
        let whole = number.as_i64().or_else(|| whole_of(value));
        check("Checked", value, whole);
        for (what, bound) in [
            ("MultipleOf", checks.multiple_of),
            ("Minimum boundary", checks.minimum.map(|m| m.0)),
            ("Maximum boundary", checks.maximum.map(|m| m.0)),
        ] {
            if let Some(bound) = bound {
                check(what, bound, whole_of(bound));
            }
        }
        for (value, why) in bounds(checks, number, path) {
            let (text, error) = self.invalid(path, value, why);
            out.add(text, error);
        }
        out
    }

    fn list(&self, schema: &Schema, checks: &Checks, (items, old): (&[Value], Option<&Value>), path: &str) -> Outcome {
        let mut out = Outcome { matches: 1, ..Outcome::default() };
        if let Some(inner) = &schema.items {
            for (i, item) in items.iter().enumerate() {
                let old = correlated(schema, item, old);
                out.merge(self.node(inner, item, old, &format!("{path}[{i}]")));
            }
        }
        let count = items.len() as u64;
        if let Some(min) = checks.min_items.filter(|min| count < *min) {
            let (text, error) = self.invalid(path, count, format!("{path} in body should have at least {min} items"));
            out.add(text, error);
        }
        if let Some(max) = checks.max_items.filter(|max| count > *max) {
            let error = FieldError::too_many(self.at(path), items.len(), max);
            out.add(format!("{path} in body should have at most {max} items"), error);
        }
        out
    }

    fn object(
        &self,
        schema: &Schema,
        checks: &Checks,
        (map, old): (&Map<String, Value>, Option<&Value>),
        path: &str,
    ) -> Outcome {
        let mut out = Outcome::default();
        let count = map.len() as u64;
        if let Some(min) = checks.min_properties.filter(|min| count < *min) {
            let (text, error) =
                self.invalid(path, count, format!("{path} in body should have at least {min} properties"));
            out.add(text, error);
        }
        if let Some(max) = checks.max_properties.filter(|max| count > *max) {
            let error = FieldError::too_many(self.at(path), map.len(), max);
            out.add(format!("{path} in body should have at most {max} properties"), error);
        }
        // What a type says of itself is the same in both, whatever it was before.
        let old_of = |key: &str| old.filter(|_| !(path.is_empty() && matches!(key, "kind" | "apiVersion")))?.get(key);
        for (key, value) in map.iter().filter(|(key, _)| schema.property(key).is_none()) {
            match &schema.additional {
                Additional::Schema(inner) => {
                    out.merge(self.node(inner, value, old_of(key), &format!("{path}.{key}")));
                }
                Additional::Allowed(false) => {
                    let text = format!("{path}.{key} in body is a forbidden property");
                    out.add(text.clone(), FieldError::invalid(self.at(path), "", text));
                }
                Additional::Unset | Additional::Allowed(true) => {}
            }
        }
        for (key, inner) in &schema.properties {
            let Some(value) = map.get(&**key) else { continue };
            let below = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            out.merge(self.node(inner, value, old_of(key), &below));
        }
        for key in checks.required.iter().filter(|key| !map.contains_key(&***key)) {
            let below = format!("{path}.{key}");
            out.add(format!("{below} in body is required"), FieldError::required(self.at(&below), ""));
        }
        out
    }

    fn junctions(&self, checks: &Checks, (value, old): (&Value, Option<&Value>), path: &str) -> Outcome {
        let mut out = Outcome::default();
        let run = |schema: &Schema| self.run(schema, value, old, path);
        let refuse = |out: &mut Outcome, text: String| {
            let (text, error) = self.general(text);
            out.add(text, error);
        };
        if !checks.any_of.is_empty() {
            let (valid, chosen) = alternatives(&checks.any_of, &run, true);
            if valid == 0 {
                refuse(&mut out, format!("{path:?} must validate at least one schema (anyOf)"));
            }
            out.merge(chosen);
        }
        if !checks.one_of.is_empty() {
            let (valid, chosen) = alternatives(&checks.one_of, &run, false);
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            if valid != 1 {
                refuse(&mut out, format!("{path:?} must validate one and only one schema (oneOf). {found}"));
            }
            if valid < 2 {
                out.merge(chosen);
            }
        }
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for schema in &checks.all_of {
                let found = run(schema);
                valid += usize::from(found.is_valid());
                out.merge(found);
            }
            if valid < checks.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                refuse(&mut out, format!("{path:?} must validate all the schemas (allOf){none}"));
            }
        }
        if checks.not.as_ref().is_some_and(|schema| run(schema).is_valid()) {
            refuse(&mut out, format!("{path:?} must not validate the schema (not)"));
        }
        out.matches += 1;
        out
    }
}

/// How many alternatives hold, and what one of them found: the first that holds, or else the nearest.
fn alternatives(schemas: &[Schema], run: &impl Fn(&Schema) -> Outcome, first_only: bool) -> (usize, Outcome) {
    let mut valid = 0;
    let mut chosen: Option<Outcome> = None;
    for schema in schemas {
        let found = run(schema);
        if found.is_valid() {
            if valid == 0 {
                chosen = Some(found);
            }
            valid += 1;
            if first_only {
                break;
            }
        } else if valid == 0 && chosen.as_ref().is_none_or(|best| found.matches > best.matches) {
            chosen = Some(found);
        }
    }
    (valid, chosen.unwrap_or_default())
}

#[allow(clippy::cast_possible_truncation, reason = "the number is whole and checked to fit")]
fn whole_of(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9.2e18).then_some(value as i64)
}

/// What is wrong with the size of a number, each time with the number at fault.
fn bounds(checks: &Checks, number: &Number, path: &str) -> Vec<(Value, String)> {
    let mut out = Vec::new();
    let own = || Value::Number(number.clone());
    let value = number.as_f64().unwrap_or_default();
    // Whole numbers are compared with the whole part of a bound.
    let bound = |bound: f64| if number.is_i64() { bound.trunc() } else { bound };
    if let Some(step) = checks.multiple_of.map(bound) {
        if step <= 0.0 {
            let why = format!("factor MultipleOf declared for {path} must be positive: {}", go_float(step));
            out.push((step.into(), why));
        } else {
            let times = if step < 1.0 { 1.0 / step * value } else { value / step };
            if !is_whole(times) {
                out.push((own(), format!("{path} in body should be a multiple of {}", go_float(step))));
            }
        }
    }
    if let Some((min, excluded)) = checks.minimum.map(|(b, e)| (bound(b), e))
        && (value < min || excluded && value <= min)
    {
        let than = if excluded { "greater than" } else { "greater than or equal to" };
        out.push((own(), format!("{path} in body should be {than} {}", go_float(min))));
    }
    if let Some((max, excluded)) = checks.maximum.map(|(b, e)| (bound(b), e))
        && (value > max || excluded && value >= max)
    {
        let than = if excluded { "less than" } else { "less than or equal to" };
        out.push((own(), format!("{path} in body should be {than} {}", go_float(max))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
        validate(&Schema::parse(schema), object, old, "").iter().map(ToString::to_string).collect()
    }

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["r"], "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 10},
            "s": {"type": "string", "pattern": "^a+$"},
            "e": {"type": "string", "enum": ["x", "y"]},
            "q": {"x-kubernetes-int-or-string": true},
            "l": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "k": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        }}}})
    }

    #[test]
    fn errors_read_like_upstreams() {
        let object = json!({"spec": {"n": 0, "s": "b", "e": "z", "q": true, "l": ["a", "a"]}});
        let texts = texts(&schema(), &object, None);
        for text in [
            "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
            "spec.s: Invalid value: \"b\": spec.s in body should match '^a+$'",
            "spec.e: Unsupported value: \"z\": supported values: \"x\", \"y\"",
            "spec.q: Invalid value: \"boolean\": spec.q in body must be of type integer,string: \"boolean\"",
            "spec.l: Too many: 2: must have at most 1 item",
            "spec.r: Required value",
        ] {
            assert!(texts.iter().any(|t| t == text), "{text} is not in {texts:#?}");
        }
        assert_eq!(texts.len(), 6);
    }

    #[test]
    fn types_are_told_once() {
        let found = texts(&schema(), &json!({"spec": {"n": "one", "r": 1}}), None);
        assert_eq!(found, ["spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\""]);
        assert!(texts(&schema(), &json!({"spec": {"r": 1, "n": 3, "q": 1}}), None).is_empty());
        assert!(texts(&schema(), &json!({"spec": {"r": 1, "n": 3.0}}), None).is_empty());
    }

    #[test]
    fn junctions_name_the_nearest_alternative() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "object",
            "oneOf": [{"required": ["x"]}, {"required": ["y"]}], "not": {"required": ["z"]}}}});
        let found = texts(&schema, &json!({"a": {"z": 1}}), None);
        assert_eq!(
            found,
            [
                "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found none valid",
                "a.x: Required value",
                "<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)",
            ]
        );
        let found = texts(&schema, &json!({"a": {"x": 1, "y": 1}}), None);
        assert_eq!(
            found,
            [
                "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
            ]
        );
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_held_against_it() {
        let old = json!({"spec": {"n": 0, "r": 1, "k": [{"k": "a", "v": "bad"}, {"k": "b", "v": 1}]}});
        let mut new = old.clone();
        new["spec"]["s"] = "aa".into();
        new["spec"]["k"][1]["v"] = 2.into();
        assert!(texts(&schema(), &new, Some(&old)).is_empty());
        new["spec"]["n"] = 11.into();
        assert_eq!(texts(&schema(), &new, Some(&old)).len(), 1);
        // A member without its old self is judged anew.
        new["spec"]["n"] = 0.into();
        new["spec"]["k"][0]["k"] = "c".into();
        assert_eq!(texts(&schema(), &new, Some(&old)).len(), 1);
    }
}
