//! Whether an applied configuration of a custom resource fits its schema: fields are declared, values have their type,
//! and members of lists can be told apart.

use serde_json::Value;

use super::schema::{Target, Type};
use super::set::{Step, path_text};
use crate::codec;
use crate::custom::{self, Schema};

/// What does not fit, in the order of the fields.
pub(super) fn misfits(target: Target<'_>, config: &Value) -> Vec<String> {
    let mut walk = Walk { path: Vec::new(), found: Vec::new(), repeats: false };
    walk.value(target.ty(), config);
    walk.found
}

/// Whether it can be told who set what in an object; one that was stored may have members twice.
pub(super) fn is_typeable(target: Target<'_>, object: &Value) -> bool {
    let mut walk = Walk { path: Vec::new(), found: Vec::new(), repeats: true };
    walk.value(target.ty(), object);
    walk.found.is_empty()
}

struct Walk {
    path: Vec<Step>,
    found: Vec<String>,
    /// Whether members may be there twice.
    repeats: bool,
}

impl Walk {
    fn tell(&mut self, what: &str) {
        self.found.push(format!("{}: {what}", path_text(&self.path)));
    }

    fn value(&mut self, ty: Type<'_>, value: &Value) {
        match (ty, value) {
            (_, Value::Null) => {}
            (Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_), Value::Object(map)) => {
                for (key, inner) in map {
                    let step = Step::Field(key.into());
                    let below = ty.below(&step);
                    self.path.push(step);
                    if !is_known(ty, key) {
                        self.tell("field not declared in schema");
                    } else if let Some(schema) = schema_of(ty, key) {
                        self.by_schema(schema, inner);
                    } else {
                        self.value(below, inner);
                    }
                    self.path.pop();
                }
            }
            (Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_), other) => {
                self.tell(&format!("expected map, got &{{{}}}", codec::go_map(other)));
            }
            (Type::Keyed(..) | Type::Members(..) | Type::Set, Value::Array(items)) => self.members(ty, items),
            (Type::Keyed(..) | Type::Members(..) | Type::Set, other) => {
                self.tell(&format!("expected list, got &{{{}}}", codec::go_map(other)));
            }
            (Type::Leaf | Type::Deduced, _) => {}
        }
    }

    fn members(&mut self, ty: Type<'_>, items: &[Value]) {
        let mut seen: Vec<Step> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let unfit = match item {
                Value::Object(_) => Some("associative list without keys has an element that's a map type"),
                Value::Array(_) => Some("not supported: associative list with lists as elements"),
                _ => None,
            };
            if let Some(why) = unfit.filter(|_| matches!(ty, Type::Set)) {
                self.tell(&format!("element {i}: {why}"));
                continue;
            }
            let Some(step) = ty.item_step(item) else {
                self.tell("associative list without keys has an element that's a map type");
                continue;
            };
            if !self.repeats && seen.contains(&step) {
                let text = path_text(std::slice::from_ref(&step));
                self.tell(&format!("duplicate entries for key {text}"));
                continue;
            }
            let below = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(&step) };
            self.path.push(step.clone());
            self.value(below, item);
            self.path.pop();
            seen.push(step);
        }
    }

    /// A value of a custom resource: what is one value to those who merge is looked into, too.
    fn by_schema(&mut self, schema: &Schema, value: &Value) {
        if value.is_null() || schema.int_or_string {
            return;
        }
        match (schema.ty, value) {
            (custom::Type::String, other) if !other.is_string() => {
                self.tell(&format!("expected string, got &value.valueUnstructured{{Value:{other}}}"));
            }
            (custom::Type::Integer | custom::Type::Number, other) if !other.is_number() => {
                self.tell(&format!("expected numeric (int or float), got {}", codec::go_type(other)));
            }
            (custom::Type::Boolean, other) if !other.is_boolean() => {
                self.tell(&format!("expected boolean, got &{{{}}}", codec::go_map(other)));
            }
            (custom::Type::Array, Value::Array(items)) if is_one_value(&schema.list) => {
                for (i, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(i64::try_from(i).unwrap_or(i64::MAX)));
                    schema.items.iter().for_each(|schema| self.by_schema(schema, item));
                    self.path.pop();
                }
            }
            (custom::Type::Array, other) if is_one_value(&schema.list) => {
                self.tell(&format!("expected list, got &{{{}}}", codec::go_map(other)));
            }
            _ => self.value(Type::of_parts(schema), value),
        }
    }
}

fn is_one_value(list: &custom::List) -> bool {
    matches!(list, custom::List::Unset | custom::List::Atomic)
}

/// The schema that a custom resource's own gives the value of a key.
fn schema_of<'s>(ty: Type<'s>, key: &str) -> Option<&'s Schema> {
    match ty {
        Type::Object(_, true) if matches!(key, "metadata" | "apiVersion" | "kind") => None,
        Type::Object(schema, _) => schema.below(key).ok().flatten(),
        Type::Values(schema) => Some(schema),
        _ => None,
    }
}

fn is_known(ty: Type<'_>, key: &str) -> bool {
    match ty {
        Type::Struct(_) => ty.declares(key),
        Type::Object(schema, _) => ty.declares(key) || schema.preserve || schema.below(key).is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Part;
    use serde_json::json;

    #[test]
    fn what_is_not_declared_is_told_with_its_path() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "foo": {"type": "string"}, "n": {"type": "integer"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
            "rules": {"type": "array", "items": {"type": "object", "properties": {"on": {"type": "boolean"},
                "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}));
        let kind = api::kinds().find(|k| k.plural == "pods").unwrap();
        let target = Target { kind, part: Part::Main, schema: Some(&schema) };
        let config = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "nope": 1}, "other": 1,
            "spec": {"foo": 5, "bar": 1, "free": {"x": 1}, "n": "x", "whole": {"b": 1},
            "rules": [{"on": true}, {"on": 1, "off": 2, "names": ["a", "a"]}, null], "ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}});
        assert_eq!(
            misfits(target, &config),
            [
                ".metadata.nope: field not declared in schema",
                ".other: field not declared in schema",
                ".spec.bar: field not declared in schema",
                ".spec.foo: expected string, got &value.valueUnstructured{Value:5}",
                ".spec.n: expected numeric (int or float), got string",
                ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
                ".spec.rules[1].names: duplicate entries for key [=\"a\"]",
                ".spec.rules[1].off: field not declared in schema",
                ".spec.rules[1].on: expected boolean, got &{1}",
                ".spec.whole.b: field not declared in schema",
            ]
        );
    }
}
