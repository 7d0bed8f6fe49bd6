//! Parameters of operations, and where they stand: with the operation, with its path, or shared by all paths.

use std::collections::BTreeMap;

use api::schema::{FieldType, Message};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::{Style, descriptions};
use crate::answer::ordered;

/// Name and type of query parameters.
pub(super) type Query = &'static [(&'static str, &'static str)];

pub(super) const WRITE: Query = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
pub(super) const APPLY: Query =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
pub(super) const DELETE: Query = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
pub(super) const LIST: Query = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
/// What deletions of collections take: how to select, and how to delete.
pub(super) const DELETE_COLLECTION: Query = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
];
/// Of custom resources.
pub(super) const VERSION: Query = &[("resourceVersion", "string")];

/// A parameter of a path or a query that many operations have.
pub(super) fn parameter(place: &str, name: &str, ty: &str, style: Style) -> Value {
    described((place, name, ty), descriptions::parameter(name, false), style)
}

/// The parameters of a query.
pub(super) fn query(query: Query, is_patch: bool, style: Style) -> impl Iterator<Item = Value> {
    query.iter().map(move |(name, ty)| described(("query", name, ty), descriptions::parameter(name, is_patch), style))
}

fn described((place, name, ty): (&str, &str, &str), description: Option<String>, style: Style) -> Value {
    let mut made = match style {
        Style::V2 => json!({"name": name, "in": place, "type": ty, "uniqueItems": true}),
        Style::V3 => json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}}),
    };
    if place == "path" {
        made["required"] = json!(true);
    }
    if let Some(description) = description {
        made["description"] = description.into();
    }
    made
}

/// The parameter with an object's name.
pub(super) fn name(kind: &str, style: Style) -> Value {
    let mut made = parameter("path", "name", "string", style);
    made["description"] = format!("name of the {kind}").into();
    made
}

/// The fields of options that are sent in a query: those with simple values.
pub(super) fn of_message(message: &Message, style: Style) -> Vec<Value> {
    let fields = message.fields.iter().filter_map(|field| {
        let ty = match field.ty {
            FieldType::String => "string",
            FieldType::Bool => "boolean",
            FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 => "integer",
            FieldType::Bytes | FieldType::Double | FieldType::Map(_) | FieldType::Message(_) => return None,
        };
        Some(described(("query", field.json, ty), descriptions::option(message.openapi, field.json), style))
    });
    fields.collect()
}

fn key(parameter: &Value) -> (String, String) {
    let text = |key: &str| parameter[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("in"))
}

/// A path item of these operations: what all of them take stands with the path.
pub(super) fn path_item(mut operations: Vec<(&'static str, Map<String, Value>, Vec<Value>)>) -> Value {
    let mut shared: Vec<Value> = Vec::new();
    if let Some((_, _, first)) = operations.first() {
        let is_everywhere =
            |p: &&Value| p["in"] != "body" && operations.iter().all(|(_, _, others)| others.contains(p));
        shared.extend(first.iter().filter(is_everywhere).cloned());
    }
    let mut item = Map::new();
    for (method, mut operation, mut own) in operations.drain(..) {
        own.retain(|p| !shared.contains(p));
        own.sort_by_key(key);
        if !own.is_empty() {
            operation.insert("parameters".to_owned(), Value::Array(own));
        }
        item.insert(method.to_owned(), Value::Object(operation));
    }
    if !shared.is_empty() {
        shared.sort_by_key(key);
        item.insert("parameters".to_owned(), Value::Array(shared));
    }
    Value::Object(item)
}

/// Puts parameters that are not about one kind alone into a place of their own, as the older version has it. Some are
/// left where they are, because clients look for them there.
pub(super) fn share(paths: &mut Map<String, Value>) -> Map<String, Value> {
    let mut names: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for item in paths.values_mut() {
        for (method, part) in item.as_object_mut().into_iter().flatten() {
            let list = if method == "parameters" { Some(part) } else { part.get_mut("parameters") };
            for parameter in list.and_then(Value::as_array_mut).into_iter().flatten() {
                if !is_shareable(parameter) {
                    continue;
                }
                let text = text_of(parameter);
                let (name, _) = names.entry(text).or_insert_with_key(|text| {
                    let name = format!("{}-{}", parameter["name"].as_str().unwrap_or_default(), hash(text));
                    (name, parameter.clone())
                });
                *parameter = json!({"$ref": format!("#/parameters/{name}")});
            }
        }
    }
    names.into_values().collect()
}

fn is_shareable(parameter: &Value) -> bool {
    let schema = parameter["schema"]["$ref"].as_str().unwrap_or_default();
    match (parameter["in"].as_str().unwrap_or_default(), parameter["name"].as_str().unwrap_or_default()) {
        (_, "name") | ("query", "fieldValidation" | "dryRun") => false,
        ("body", "body") => schema.starts_with("#/definitions/io.k8s.apimachinery"),
        _ => true,
    }
}

/// The JSON of a parameter in upstream's order of keys, which its name is made of.
fn text_of(parameter: &Value) -> String {
    const KEYS: [&str; 7] = ["uniqueItems", "type", "description", "name", "in", "required", "schema"];
    ordered(KEYS.iter().filter_map(|key| Some((*key, parameter.get(key)?.to_string()))))
}

/// The first bytes of the FNV-1 sum.
fn hash(text: &str) -> String {
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| sum.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte));
    URL_SAFE.encode(&sum.to_be_bytes()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shared_parameters_are_upstreams() {
        let body = |options: &str| {
            json!({"name": "body", "in": "body",
                "schema": {"$ref": format!("#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.{options}")}})
        };
        assert_eq!(hash(&text_of(&body("DeleteOptions"))), "2Y1dVQaQ");
        let mut patch = body("Patch");
        patch["required"] = json!(true);
        assert_eq!(hash(&text_of(&patch)), "78PwaGsr");
    }

    #[test]
    fn what_all_operations_take_stands_with_the_path() {
        let of = |name: &str| parameter("query", name, "string", Style::V3);
        let item =
            path_item(vec![("get", Map::new(), vec![of("b"), of("a")]), ("put", Map::new(), vec![of("a"), of("c")])]);
        assert_eq!(item["parameters"], json!([of("a")]));
        assert_eq!((&item["get"]["parameters"], &item["put"]["parameters"]), (&json!([of("b")]), &json!([of("c")])));
    }
}
