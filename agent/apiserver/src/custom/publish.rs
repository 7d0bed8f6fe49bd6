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

/// The schemas of a version and of its list. `root` is where references point to.
#[must_use]
pub fn documents(definition: &Definition, version: &Version, root: &str) -> [Document; 2] {
    let name = schema_name(version.kind);
    let old = root == "#/definitions/";
    let mut schema = version.schema.tree();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    simplify(&mut schema, old);
    let reference = |name: &str| {
        if old {
            json!({"$ref": format!("{root}{name}")})
        } else {
            json!({"allOf": [{"$ref": format!("{root}{name}")}]})
        }
    };
    let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true && schema["properties"].is_null();
    let with_names = |properties: &mut Map<String, Value>, meta: Value| {
        for key in ["apiVersion", "kind"] {
            properties.insert(key.to_owned(), json!({"type": "string"}));
        }
        properties.insert("metadata".to_owned(), meta);
    };
    if !(old && preserves) {
        with_names(tree::object_at(&mut schema, "properties"), reference(META));
    }
    let gvk = |kind: &str| json!([{"group": version.kind.group, "version": version.kind.version, "kind": kind}]);
    schema["x-kubernetes-group-version-kind"] = gvk(version.kind.kind);
    let mut list = json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}", definition.list_kind, version.kind.kind),
        "properties": {"items": {"type": "array", "items": {"$ref": format!("{root}{name}")}}},
        "x-kubernetes-group-version-kind": gvk(&definition.list_kind),
    });
    with_names(tree::object_at(&mut list, "properties"), reference(LIST_META));
    [Document { name: name.clone(), schema }, Document { name: format!("{name}List"), schema: list }]
}

/// Drops what readers of the document's version do not understand.
fn simplify(schema: &mut Value, old: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    if old {
        for key in ["oneOf", "anyOf", "allOf", "not", "x-kubernetes-validations"] {
            map.remove(key);
        }
        if map.remove("nullable") == Some(Value::Bool(true)) {
            for key in ["type", "items", "properties"] {
                map.remove(key);
            }
        }
        if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            map.remove("type");
        }
        if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            map.remove("items");
            map.remove("properties");
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|p| simplify(p, old));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            simplify(inner, old);
        }
    }
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) && !old {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            for key in ["apiVersion", "kind"] {
                properties.entry(key).or_insert_with(|| json!({"type": "string"}));
            }
            properties
                .entry("metadata")
                .or_insert_with(|| json!({"allOf": [{"$ref": format!("#/components/schemas/{META}")}]}));
        }
    }
}
