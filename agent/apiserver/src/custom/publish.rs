//! OpenAPI schemas of custom resources; pure.

use serde_json::{Map, Value, json};

use super::{Definition, Version};
use crate::tree;

/// A schema under its name.
pub struct Document {
    /// Name among the schemas, such as `com.example.v1.Foo`.
    pub name: String,
    /// The schema.
    pub schema: Value,
}

/// The name of a kind's schema: its group backwards, its version, its kind.
#[must_use]
pub fn schema_name(kind: &api::Kind) -> String {
    let reversed: Vec<&str> = kind.group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Descriptions that every object's fields have, as upstream's documents carry them.
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                           convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                           More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
                    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
                        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: \
                             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const INNER_API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: \
                                 https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const INNER_KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: \
                          https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The version of OpenAPI, told by where references point to.
#[derive(Clone, Copy)]
struct Style<'a> {
    root: &'a str,
    is_v2: bool,
}

impl Style<'_> {
    fn reference(self, name: &str, description: &str) -> Value {
        let reference = json!({"$ref": format!("{}{name}", self.root)});
        // Beside a reference nothing counts in the newer version, so that it stands one level deeper there.
        if self.is_v2 {
            json!({"$ref": reference["$ref"], "description": description})
        } else {
            json!({"allOf": [reference], "description": description})
        }
    }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// The schemas of a version and of its list. `root` is where references point to.
#[must_use]
pub fn documents(definition: &Definition, version: &Version, root: &str) -> [Document; 2] {
    let name = schema_name(version.kind);
    let style = Style { root, is_v2: root == "#/definitions/" };
    let mut schema = version.schema.tree();
    let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if !schema.is_object() || style.is_v2 && keeps {
        // Clients would take everything that is not named for an error.
        schema = json!({"type": "object"});
    } else {
        simplify(&mut schema, style);
        let properties = tree::object_at(&mut schema, "properties");
        properties.insert("apiVersion".to_owned(), text(API_VERSION));
        properties.insert("kind".to_owned(), text(KIND));
        properties.insert("metadata".to_owned(), style.reference(META, METADATA));
        embed(&mut schema, style);
    }
    let gvk = |kind: &str| json!([{"group": version.kind.group, "version": version.kind.version, "kind": kind}]);
    let items = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        version.kind.plural
    );
    let mut list = json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}", definition.list_kind, version.kind.kind),
        "properties": {
            "apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": style.reference(LIST_META, LIST_METADATA),
            "items": {"type": "array", "description": items, "items": {"$ref": format!("{root}{name}")}},
        },
        "x-kubernetes-group-version-kind": gvk(&definition.list_kind),
    });
    schema["x-kubernetes-group-version-kind"] = gvk(version.kind.kind);
    if !version.selectable.is_empty() {
        let fields: Vec<Value> = version.selectable.iter().map(|field| json!({"fieldPath": field})).collect();
        schema["x-kubernetes-selectable-fields"] = json!(fields);
        list["x-kubernetes-selectable-fields"] = json!(fields);
    }
    [Document { name: name.clone(), schema }, Document { name: format!("{name}List"), schema: list }]
}

/// Makes a schema one that readers of the document's version understand.
fn simplify(schema: &mut Value, style: Style<'_>) {
    let Some(map) = schema.as_object_mut() else { return };
    if !style.is_v2 && map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        number_or_text(map);
    }
    if style.is_v2 {
        for key in ["oneOf", "anyOf", "allOf", "not"] {
            map.remove(key);
        }
        let keeps = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        let nullable = map.remove("nullable") == Some(Value::Bool(true));
        if nullable {
            map.remove("type");
        }
        if nullable || keeps {
            map.remove("items");
            map.remove("properties");
        }
        let ty = map.get("type").and_then(Value::as_str).unwrap_or_default();
        if ty == "array" && !map.contains_key("items") || ty == "object" && keeps {
            map.remove("type");
        }
        // What may be null need not be there.
        let optional: Vec<String> = map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(_, inner)| inner["nullable"] == true)
            .map(|(key, _)| key.clone())
            .collect();
        if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|key| !optional.iter().any(|o| key == o));
            if required.is_empty() {
                map.remove("required");
            }
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|p| simplify(p, style));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            simplify(inner, style);
        }
    }
}

/// Says in the schema's own words that values are numbers or texts.
fn number_or_text(map: &mut Map<String, Value>) {
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let first_of_all = map.get("allOf").and_then(|all| tree::at(all, "/0/anyOf")) == Some(&both);
    match map.get("anyOf") {
        Some(any) if *any == both => {}
        _ if first_of_all => {}
        None => {
            map.insert("anyOf".to_owned(), both);
        }
        Some(_) => {
            let all = map.entry("allOf").or_insert_with(|| json!([]));
            if let Some(all) = all.as_array_mut() {
                all.insert(0, json!({"anyOf": both}));
            }
        }
    }
}

/// Adds what embedded objects have beside what their schema says.
fn embed(schema: &mut Value, style: Style<'_>) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|p| embed(p, style));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            embed(inner, style);
        }
    }
    let is = |key: &str| map.get(key) == Some(&Value::Bool(true));
    if !is("x-kubernetes-embedded-resource") || style.is_v2 && is("x-kubernetes-preserve-unknown-fields") {
        return;
    }
    let properties = tree::object_at(schema, "properties");
    properties.insert("apiVersion".to_owned(), text(INNER_API_VERSION));
    properties.insert("kind".to_owned(), text(INNER_KIND));
    properties.insert("metadata".to_owned(), style.reference(META, METADATA));
    let required = tree::list_at(schema, "required");
    for key in ["kind", "apiVersion"] {
        if !required.iter().any(|r| r == key) {
            required.push(key.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: Style<'static> = Style { root: "#/definitions/", is_v2: true };
    const V3: Style<'static> = Style { root: "#/components/schemas/", is_v2: false };

    fn simple(schema: Value, style: Style<'_>) -> Value {
        let mut schema = schema;
        simplify(&mut schema, style);
        embed(&mut schema, style);
        schema
    }

    #[test]
    fn the_older_version_knows_neither_junctions_nor_nulls() {
        let schema = json!({"type": "object", "required": ["n", "m"], "anyOf": [{}], "properties": {
            "n": {"type": "object", "nullable": true, "properties": {"x": {"type": "string"}}},
            "m": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}, "p": {"x-kubernetes-int-or-string": true}}});
        assert_eq!(
            simple(schema, V2),
            json!({"type": "object", "required": ["m"], "properties": {
                "n": {}, "m": {"x-kubernetes-preserve-unknown-fields": true}, "p": {"x-kubernetes-int-or-string": true}}})
        );
    }

    #[test]
    fn numbers_or_texts_are_named_in_the_newer_version() {
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        assert_eq!(simple(json!({"x-kubernetes-int-or-string": true}), V3)["anyOf"], both);
        let other = simple(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"minimum": 1}]}), V3);
        assert_eq!(other["allOf"], json!([{"anyOf": both}]));
    }

    #[test]
    fn embedded_objects_have_their_own_names() {
        let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
        let published = simple(schema.clone(), V3);
        assert_eq!(published["required"], json!(["kind", "apiVersion"]));
        assert_eq!(published["properties"]["kind"]["type"], "string");
        assert!(simple(schema, V2)["properties"].is_null());
    }
}
