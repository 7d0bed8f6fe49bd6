//! Operations of kinds: what clients look up to find out which verbs, parameters and types a kind has.

use api::Kind;
use api::schema::MESSAGES;
use serde_json::{Map, Value, json};

use super::Style;
use super::schemas::{PATCH, subresource_message};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const APPLY: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// One operation: HTTP method, action in upstream's words, verb it needs, query parameters.
struct Operation {
    method: &'static str,
    action: &'static str,
    verb: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

const COLLECTION: &[Operation] = &[
    Operation { method: "get", action: "list", verb: "list", parameters: LIST },
    Operation { method: "post", action: "post", verb: "create", parameters: WRITE },
    Operation { method: "delete", action: "deletecollection", verb: "deletecollection", parameters: LIST },
];
const ITEM: &[Operation] = &[
    Operation { method: "get", action: "get", verb: "get", parameters: &[] },
    Operation { method: "put", action: "put", verb: "update", parameters: WRITE },
    Operation { method: "patch", action: "patch", verb: "patch", parameters: APPLY },
    Operation { method: "delete", action: "delete", verb: "delete", parameters: DELETE },
];

/// The path items of these kinds.
pub(super) fn of<'a>(kinds: impl Iterator<Item = &'a Kind>, style: Style) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let namespace = kind.namespaced.then_some("{namespace}");
        let collection = kind.path(namespace);
        let target = Target {
            kind,
            group: kind.group,
            version: kind.version,
            name: kind.kind,
            message: Some(kind.message),
            style,
        };
        if kind.namespaced && kind.has_verb("list") {
            paths.insert(kind.path(None), target.item(&COLLECTION[..1], kind.verbs, &[]));
        }
        paths.insert(collection.clone(), target.item(COLLECTION, kind.verbs, &namespace_parameter(kind, style)));
        if kind.has_verb("get") {
            paths
                .insert(format!("{collection}/{{name}}"), target.item(ITEM, kind.verbs, &name_parameters(kind, style)));
        }
        for sub in kind.subresources {
            let own = !sub.version.is_empty();
            let target = Target {
                kind,
                group: if own { sub.group } else { kind.group },
                version: if own { sub.version } else { kind.version },
                name: sub.kind,
                message: subresource_message(kind, sub),
                style,
            };
            let operations = if sub.verbs.contains(&"create") { &COLLECTION[1..2] } else { ITEM };
            let item = target.item(operations, sub.verbs, &name_parameters(kind, style));
            paths.insert(format!("{collection}/{{name}}/{}", sub.name), item);
        }
    }
    paths
}

struct Target<'a> {
    kind: &'a Kind,
    group: &'a str,
    version: &'a str,
    name: &'a str,
    message: Option<usize>,
    style: Style,
}

impl Target<'_> {
    fn item(&self, operations: &[Operation], verbs: &[&str], parameters: &[Value]) -> Value {
        let mut item = Map::new();
        for operation in operations.iter().filter(|o| verbs.contains(&o.verb)) {
            item.insert(operation.method.to_owned(), self.operation(operation));
        }
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), json!(parameters));
        }
        Value::Object(item)
    }

    fn operation(&self, operation: &Operation) -> Value {
        let own = self.message.map_or(STATUS, |index| MESSAGES[index].openapi);
        let custom = (crate::custom::is_custom(self.kind) && self.message == Some(self.kind.message))
            .then(|| crate::custom::schema_name(self.kind));
        let custom_list = custom.as_ref().map(|name| format!("{name}List"));
        let own = custom.as_deref().unwrap_or(own);
        let list = self.kind.list_message.map_or(own, |index| MESSAGES[index].openapi);
        let list = custom_list.as_deref().unwrap_or(list);
        let answer = match operation.action {
            "list" => list,
            "delete" | "deletecollection" => STATUS,
            _ => own,
        };
        let body = match operation.action {
            "post" | "put" => Some(own),
            "patch" => Some(PATCH),
            "delete" | "deletecollection" => Some(DELETE_OPTIONS),
            _ => None,
        };
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|(name, ty)| parameter("query", name, ty, self.style)).collect();
        let mut made = json!({
            "operationId": format!("{}{}{}", operation.verb, self.kind.kind, self.name),
            "responses": {"200": response(answer, self.style), "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": self.group, "version": self.version, "kind": self.name},
        });
        match (body, self.style) {
            (Some(body), Style::V2) => {
                parameters.push(json!({"name": "body", "in": "body", "schema": self.style.reference(body)}));
            }
            (Some(body), Style::V3) => made["requestBody"] = request_body(operation.action, body),
            (None, _) => {}
        }
        if !parameters.is_empty() {
            made["parameters"] = Value::Array(parameters);
        }
        if self.style == Style::V2 && operation.action == "patch" {
            made["consumes"] = json!(PATCH_TYPES);
        }
        made
    }
}

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

fn request_body(action: &str, schema: &str) -> Value {
    let schema = json!({"schema": Style::V3.reference(schema)});
    let types: &[&str] = if action == "patch" { &PATCH_TYPES } else { &["*/*"] };
    let content: Map<String, Value> = types.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
    json!({"content": content})
}

fn response(schema: &str, style: Style) -> Value {
    match style {
        Style::V2 => json!({"description": "OK", "schema": style.reference(schema)}),
        Style::V3 => json!({"description": "OK", "content": {"application/json": {"schema": style.reference(schema)}}}),
    }
}

fn namespace_parameter(kind: &Kind, style: Style) -> Vec<Value> {
    if kind.namespaced { vec![parameter("path", "namespace", "string", style)] } else { Vec::new() }
}

fn name_parameters(kind: &Kind, style: Style) -> Vec<Value> {
    let mut parameters = vec![parameter("path", "name", "string", style)];
    parameters.extend(namespace_parameter(kind, style));
    parameters
}

fn parameter(place: &str, name: &str, ty: &str, style: Style) -> Value {
    let mut made = match style {
        Style::V2 => json!({"name": name, "in": place, "type": ty, "uniqueItems": true}),
        Style::V3 => json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}}),
    };
    if place == "path" {
        made["required"] = json!(true);
    }
    made
}
