//! A version's schema as requests walk it: compiled once, when the first request needs it; pure.

use std::sync::{Arc, OnceLock};

use api::transcode::Report;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::rules::Rules;
use crate::tree;

/// The JSON type that a schema asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Any.
    #[default]
    Unset,
    /// Object.
    Object,
    /// List.
    Array,
    /// Text.
    String,
    /// Whole number.
    Integer,
    /// Number.
    Number,
    /// Boolean.
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Self {
        match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Unset,
        }
    }
}

/// How lists merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum List {
    /// As one value, because nothing is said.
    #[default]
    Unset,
    /// As one value.
    Atomic,
    /// By their members.
    Set,
    /// By these keys of their members.
    Map(Vec<String>),
}

/// What a schema says about properties that it does not name.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing: they are unknown.
    #[default]
    Unset,
    /// Whether there may be any.
    Allowed(bool),
    /// They have this schema.
    Schema(Box<Schema>),
}

/// What is checked of values beside their type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Format; those that are not known are not kept.
    pub format: Option<Box<str>>,
    /// Bounds of numbers: the bound and whether it is excluded.
    pub maximum: Option<(f64, bool)>,
    /// The lower bound.
    pub minimum: Option<(f64, bool)>,
    /// What numbers have to be multiples of.
    pub multiple_of: Option<f64>,
    /// Lengths of texts in characters.
    pub max_length: Option<u64>,
    /// The least.
    pub min_length: Option<u64>,
    /// What texts have to match.
    pub pattern: Option<Box<str>>,
    /// Lengths of lists.
    pub max_items: Option<u64>,
    /// The least.
    pub min_items: Option<u64>,
    /// Sizes of objects.
    pub max_properties: Option<u64>,
    /// The least.
    pub min_properties: Option<u64>,
    /// Keys that have to be there.
    pub required: Vec<Box<str>>,
    /// The values that are allowed.
    pub allowed: Vec<Value>,
    /// All of these hold.
    pub all_of: Vec<Schema>,
    /// At least one of these holds.
    pub any_of: Vec<Schema>,
    /// Exactly one of these holds.
    pub one_of: Vec<Schema>,
    /// This does not hold.
    pub not: Option<Box<Schema>>,
}

/// A compiled schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Type of values.
    pub ty: Type,
    /// Whether null is a value.
    pub nullable: bool,
    /// Whether values are whole numbers or texts.
    pub int_or_string: bool,
    /// Whether unknown properties stay.
    pub preserve: bool,
    /// Whether values are objects of the API themselves.
    pub embedded: bool,
    /// Whether objects are one value to those who merge.
    pub atomic: bool,
    /// How lists merge.
    pub list: List,
    /// What is filled in.
    pub default: Option<Value>,
    /// Named properties, sorted.
    pub properties: Vec<(Box<str>, Schema)>,
    /// Others.
    pub additional: Additional,
    /// Members of lists.
    pub items: Option<Box<Schema>>,
    /// Other checks.
    pub checks: Option<Box<Checks>>,
}

impl Schema {
    /// Compiles the schema that a definition holds.
    #[must_use]
    pub fn parse(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let flag = |key: &str| value[key] == true;
        let keys = || tree::list(value, "/x-kubernetes-list-map-keys").iter().filter_map(Value::as_str);
        let inner = |key: &str| value.get(key).filter(|v| v.is_object()).map(|v| Box::new(Self::parse(v)));
        let properties = value["properties"].as_object().into_iter().flatten();
        Self {
            ty: Type::parse(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic: text("x-kubernetes-map-type") == "atomic",
            list: match text("x-kubernetes-list-type") {
                "atomic" => List::Atomic,
                "set" => List::Set,
                "map" => List::Map(keys().map(str::to_owned).collect()),
                _ => List::Unset,
            },
            default: value.get("default").filter(|d| !d.is_null()).cloned(),
            properties: properties.map(|(key, value)| (key.as_str().into(), Self::parse(value))).collect(),
            additional: match value.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
                Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(Self::parse(schema))),
                _ => Additional::Unset,
            },
            items: inner("items"),
            checks: Checks::parse(value).map(Box::new),
        }
    }

    /// The schema of a named property.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&Self> {
        let at = self.properties.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        Some(&self.properties[at].1)
    }

    /// The schema of a property, named or not; `Err` for one that is unknown.
    pub fn below(&self, key: &str) -> Result<Option<&Self>, ()> {
        match (self.property(key), &self.additional) {
            (Some(schema), _) => Ok(Some(schema)),
            (None, Additional::Schema(schema)) => Ok(Some(schema)),
            (None, Additional::Allowed(_)) => Ok(None),
            (None, Additional::Unset) => Err(()),
        }
    }

    /// The schema of the values of a map.
    #[must_use]
    pub fn values(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Schema(schema) => Some(schema),
            Additional::Unset | Additional::Allowed(_) => None,
        }
    }

    /// Whether null is dropped or replaced where this schema applies.
    pub(super) fn refuses_null(&self) -> bool {
        !self.nullable
    }

    /// Whether something in here satisfies a condition.
    #[must_use]
    pub fn any(&self, fits: &impl Fn(&Self) -> bool) -> bool {
        fits(self)
            || self.properties.iter().any(|(_, schema)| schema.any(fits))
            || self.values().is_some_and(|schema| schema.any(fits))
            || self.items.as_ref().is_some_and(|schema| schema.any(fits))
    }
}

impl Checks {
    /// The checks that a schema names; none if it names none.
    fn parse(value: &Value) -> Option<Self> {
        const KEYS: [&str; 18] = [
            "format",
            "maximum",
            "minimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "maxProperties",
            "minProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "uniqueItems",
        ];
        if !value.as_object()?.keys().any(|key| KEYS.contains(&key.as_str())) {
            return None;
        }
        let count = |key: &str| value[key].as_u64();
        let bound = |key: &str, excluded: &str| Some((value[key].as_f64()?, value[excluded] == true));
        let list = |key: &str| value[key].as_array().into_iter().flatten();
        let schemas = |key: &str| list(key).map(Schema::parse).collect();
        let text = |key: &str| value[key].as_str().filter(|t| !t.is_empty());
        let format = text("format").filter(|f| super::formats::is_known(f, value["type"].as_str().unwrap_or_default()));
        Some(Self {
            format: format.map(Into::into),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: value["multipleOf"].as_f64(),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: text("pattern").map(Into::into),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: list("required").filter_map(Value::as_str).map(Into::into).collect(),
            allowed: list("enum").cloned().collect(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: value.get("not").filter(|n| n.is_object()).map(|n| Box::new(Schema::parse(n))),
        })
    }
}

/// A schema that is compiled when it is first asked for. Until then it is the definition's own bytes.
#[derive(Debug, Default)]
pub struct Lazy {
    source: Bytes,
    compiled: OnceLock<Arc<Schema>>,
    rules: OnceLock<Option<Rules>>,
}

impl Lazy {
    /// Over the JSON text of a schema; empty for none.
    #[must_use]
    pub fn new(source: Bytes) -> Self {
        Self { source, compiled: OnceLock::new(), rules: OnceLock::new() }
    }

    /// The JSON text.
    #[must_use]
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// The schema as a tree.
    #[must_use]
    pub fn tree(&self) -> Value {
        serde_json::from_slice(&self.source).unwrap_or_default()
    }

    /// The compiled schema.
    #[must_use]
    pub fn get(&self) -> &Arc<Schema> {
        self.compiled.get_or_init(|| Arc::new(Schema::parse(&self.tree())))
    }

    /// The rules that the schema has for its values, if it has any.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::compile(&self.tree(), true)).as_ref()
    }
}

/// What every object has beside what its schema says.
const OBJECT_KEYS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema of an object does not know, and notes the paths.
pub fn prune(schema: &Schema, object: &mut Value, dropped: &mut Report) {
    let mut walk = Prune { path: String::new(), dropped };
    walk.value(Some(schema), (true, false), object);
    dropped.unknown.sort();
}

/// A value inside a schema, as the default of one is: nothing is special about its root.
pub fn prune_value(schema: &Schema, value: &mut Value) {
    Prune { path: String::new(), dropped: &mut Report::default() }.value(Some(schema), (schema.embedded, false), value);
}

struct Prune<'a> {
    path: String,
    dropped: &'a mut Report,
}

impl Prune<'_> {
    /// `skips`: what is unknown right here stays, because a list around it keeps it.
    fn value(&mut self, schema: Option<&Schema>, (embedded, skips): (bool, bool), value: &mut Value) {
        let keeps = skips || schema.is_some_and(|s| s.preserve);
        match value {
            Value::Object(map) => self.map(schema, (embedded, keeps), map),
            Value::Array(items) => {
                let inner = schema.and_then(|s| s.items.as_deref());
                if keeps && inner.is_none() {
                    return;
                }
                for (i, item) in items.iter_mut().enumerate() {
                    let mark = self.path.len();
                    self.path.push_str(&format!("[{i}]"));
                    self.value(inner, (inner.is_some_and(|s| s.embedded), keeps), item);
                    self.path.truncate(mark);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn map(&mut self, schema: Option<&Schema>, (embedded, keeps): (bool, bool), map: &mut Map<String, Value>) {
        let mut gone = Vec::new();
        for (key, value) in map.iter_mut() {
            if embedded && OBJECT_KEYS.contains(&key.as_str()) {
                continue;
            }
            let mark = self.path.len();
            if mark > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            match schema.map_or(Err(()), |s| s.below(key)) {
                Ok(inner) => self.value(inner, (inner.is_some_and(|s| s.embedded), false), value),
                Err(()) if keeps => {}
                Err(()) => {
                    if mark > 0 || !OBJECT_KEYS.contains(&key.as_str()) {
                        self.dropped.note(|| self.path.clone());
                    }
                    gone.push(key.clone());
                }
            }
            self.path.truncate(mark);
        }
        for key in gone {
            map.remove(&key);
        }
    }
}

/// Drops nulls where they are no values and no default takes their place.
pub fn drop_nulls(schema: Option<&Schema>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let below = |key: &str| schema.and_then(|s| s.below(key).ok().flatten());
            map.retain(|key, value| {
                !value.is_null() || !below(key).is_some_and(|s| s.refuses_null() && s.default.is_none())
            });
            for (key, value) in map.iter_mut() {
                drop_nulls(below(key), value);
            }
        }
        Value::Array(items) => {
            let inner = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(inner, item));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Sets what is missing and has a default.
pub fn default(schema: &Schema, value: &mut Value) {
    let replaced = |schema: &Schema, value: &mut Value| {
        if value.is_null() && schema.refuses_null() {
            *value = schema.default.clone().unwrap_or_default();
        }
    };
    match value {
        Value::Object(map) => {
            for (key, inner) in &schema.properties {
                let Some(wanted) = &inner.default else { continue };
                if map.get(&**key).is_none_or(|v| v.is_null() && inner.refuses_null()) {
                    map.insert(key.to_string(), wanted.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(inner) = schema.property(key) {
                    default(inner, value);
                } else if let Some(inner) = schema.values() {
                    replaced(inner, value);
                    default(inner, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return };
            for item in items {
                replaced(inner, item);
                default(inner, item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_told() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object"}}},
            }},
        }}));
        let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "labels": {}}, "other": 1,
            "spec": {"list": [{"a": "1", "b": 2}], "map": {"k": {"a": 1, "b": 2}}, "free": {"x": 1, "known": {"y": 1}}}});
        let mut dropped = Report::default();
        prune(&schema, &mut object, &mut dropped);
        assert_eq!(dropped.unknown, ["other", "spec.free.known.y", "spec.list[0].b", "spec.map.k.b"]);
        assert_eq!(object["spec"]["free"]["x"], 1);
        assert_eq!(object["metadata"]["name"], "a");
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let schema = Schema::parse(&json!({"properties": {
            "spec": {"default": {}, "properties": {"n": {"default": 1}, "m": {"default": 2}, "o": {"default": 3, "nullable": true}}},
            "list": {"items": {"properties": {"x": {"default": "y"}}}},
        }}));
        let mut object = json!({"list": [{}], "spec": {"m": null, "o": null}});
        default(&schema, &mut object);
        assert_eq!(object, json!({"list": [{"x": "y"}], "spec": {"n": 1, "m": 2, "o": null}}));
        let mut empty = json!({});
        default(&schema, &mut empty);
        assert_eq!(empty["spec"], json!({"n": 1, "m": 2, "o": 3}));
    }

    #[test]
    fn nulls_go_where_they_are_no_values() {
        let schema = Schema::parse(&json!({"properties": {
            "a": {"type": "string"}, "b": {"type": "string", "nullable": true}, "c": {"type": "string", "default": "x"},
            "m": {"additionalProperties": {"type": "string"}},
        }}));
        let mut object = json!({"a": null, "b": null, "c": null, "m": {"k": null, "l": "1"}});
        drop_nulls(Some(&schema), &mut object);
        assert_eq!(object, json!({"b": null, "c": null, "m": {"l": "1"}}));
    }
}
