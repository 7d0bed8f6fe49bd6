//! Whether an applied configuration of a custom resource fits its schema: fields are declared, values have their type,
//! and members of lists can be told apart.

use serde_json::Value;

use super::schema::{Target, Type};
use super::set::{Step, path_text};
use crate::codec;
use crate::custom;

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
                    if is_known(ty, key) {
                        self.value(below, inner);
                        self.scalar(ty, key, inner);
                    } else {
                        self.tell("field not declared in schema");
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

    /// Values of a custom resource that are neither maps nor lists.
    fn scalar(&mut self, ty: Type<'_>, key: &str, value: &Value) {
        let schema = match ty {
            Type::Object(_, true) if matches!(key, "metadata" | "apiVersion" | "kind") => return,
            Type::Object(schema, _) => schema.below(key).ok().flatten(),
            Type::Values(schema) => Some(schema),
            _ => None,
        };
        let Some(schema) = schema.filter(|s| !s.int_or_string && !value.is_null()) else { return };
        match schema.ty {
            custom::Type::String if !value.is_string() => {
                self.tell(&format!("expected string, got &value.valueUnstructured{{Value:{value}}}"));
            }
            custom::Type::Integer | custom::Type::Number if !value.is_number() => {
                self.tell(&format!("expected numeric (int or float), got {}", codec::go_type(value)));
            }
            custom::Type::Boolean if !value.is_boolean() => {
                self.tell(&format!("expected boolean, got &{{{}}}", codec::go_map(value)));
            }
            custom::Type::Array
                if matches!(schema.list, custom::List::Unset | custom::List::Atomic) && !value.is_array() =>
            {
                self.tell(&format!("expected list, got &{{{}}}", codec::go_map(value)));
            }
            _ => {}
        }
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
    use crate::custom::Schema;
    use crate::strategy::Part;
    use serde_json::json;

    #[test]
    fn what_is_not_declared_is_told_with_its_path() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "foo": {"type": "string"}, "n": {"type": "integer"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}));
        let kind = api::kinds().find(|k| k.plural == "pods").unwrap();
        let target = Target { kind, part: Part::Main, schema: Some(&schema) };
        let config = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "nope": 1}, "other": 1,
            "spec": {"foo": 5, "bar": 1, "free": {"x": 1}, "n": "x", "ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}});
        assert_eq!(
            misfits(target, &config),
            [
                ".metadata.nope: field not declared in schema",
                ".other: field not declared in schema",
                ".spec.bar: field not declared in schema",
                ".spec.foo: expected string, got &value.valueUnstructured{Value:5}",
                ".spec.n: expected numeric (int or float), got string",
                ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
            ]
        );
    }
}
