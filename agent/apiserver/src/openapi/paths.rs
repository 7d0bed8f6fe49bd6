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

/// What deletions of collections take: how to select, and how to delete.
const DELETE_COLLECTION: &[(&str, &str)] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
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
    Operation { method: "delete", action: "deletecollection", verb: "deletecollection", parameters: DELETE_COLLECTION },
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
            subresource: "",
            everywhere: false,
            style,
        };
        if kind.namespaced && kind.has_verb("list") {
            let everywhere = Target { everywhere: true, ..target };
            paths.insert(kind.path(None), everywhere.item(&COLLECTION[..1], kind.verbs, &[]));
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
                subresource: sub.name,
                everywhere: false,
                style,
            };
            let operations = if sub.verbs.contains(&"create") { &COLLECTION[1..2] } else { ITEM };
            let item = target.item(operations, sub.verbs, &name_parameters(kind, style));
            paths.insert(format!("{collection}/{{name}}/{}", sub.name), item);
        }
    }
    paths
}

#[derive(Clone, Copy)]
struct Target<'a> {
    kind: &'a Kind,
    group: &'a str,
    version: &'a str,
    name: &'a str,
    message: Option<usize>,
    subresource: &'a str,
    /// Whether it is over all namespaces of a kind that is in some.
    everywhere: bool,
    style: Style,
}

impl Target<'_> {
    fn item(&self, operations: &[Operation], verbs: &[&str], parameters: &[Value]) -> Value {
        let mut item = Map::new();
        for operation in operations.iter().filter(|o| verbs.contains(&o.verb)) {
            item.insert(operation.method.to_owned(), self.operation(operation));
        }
        let mut shared = parameters.to_vec();
        shared.push(parameter("query", "pretty", "string", self.style));
        // What all operations of a path take stands with the path.
        if let (1, Some(Value::Object(only))) = (item.len(), item.values_mut().next())
            && let Some(Value::Array(own)) = only.remove("parameters")
        {
            let (own, bodies): (Vec<Value>, Vec<Value>) = own.into_iter().partition(|p| p["in"] != "body");
            if !bodies.is_empty() {
                only.insert("parameters".to_owned(), Value::Array(bodies));
            }
            shared.extend(own);
        }
        shared.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        item.insert("parameters".to_owned(), Value::Array(shared));
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
            "tags": [self.tag()],
            "operationId": self.operation_id(operation.action),
            "responses": self.responses(operation.action, answer),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": self.group, "version": self.version, "kind": self.name},
        });
        match (body, self.style) {
            (Some(body), Style::V2) => {
                let mut body = json!({"name": "body", "in": "body", "schema": self.style.reference(body)});
                if !operation.action.starts_with("delete") {
                    body["required"] = json!(true);
                }
                parameters.insert(0, body);
            }
            (Some(body), Style::V3) => made["requestBody"] = self.request_body(operation.action, body),
            (None, _) => {}
        }
        if !parameters.is_empty() {
            made["parameters"] = Value::Array(parameters);
        }
        if self.style == Style::V2 {
            made["consumes"] = if operation.action == "patch" { json!(self.patch_types()) } else { json!(["*/*"]) };
            made["produces"] = json!(self.media_types(operation.action));
            made["schemes"] = json!(["https"]);
        }
        made
    }

    /// `apps_v1`, `rbacAuthorization_v1`.
    fn tag(&self) -> String {
        let group = group_name(self.kind.group);
        let mut letters = group.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        format!("{}{}_{}", first.unwrap_or_default(), letters.as_str(), self.kind.version)
    }

    /// `listAppsV1NamespacedDeployment`.
    fn operation_id(&self, action: &str) -> String {
        let word = match action {
            "post" => "create",
            "get" => "read",
            "put" => "replace",
            "deletecollection" => "delete",
            other => other,
        };
        let collection = if action == "deletecollection" { "Collection" } else { "" };
        let namespaced = if self.kind.namespaced && !self.everywhere { "Namespaced" } else { "" };
        let everywhere = if self.everywhere { "ForAllNamespaces" } else { "" };
        let (group, version) = (group_name(self.kind.group), capital(self.kind.version));
        let (kind, sub) = (self.kind.kind, capital(self.subresource));
        format!("{word}{group}{version}{collection}{namespaced}{kind}{sub}{everywhere}")
    }

    fn is_custom(&self) -> bool {
        crate::custom::is_custom(self.kind)
    }

    fn patch_types(&self) -> Vec<&'static str> {
        let strategic = "application/strategic-merge-patch+json";
        PATCH_TYPES.into_iter().filter(|ty| !self.is_custom() || *ty != strategic).collect()
    }

    /// What answers are written in.
    fn media_types(&self, action: &str) -> Vec<&'static str> {
        let mut types = vec!["application/json", "application/yaml"];
        if !self.is_custom() {
            types.push("application/vnd.kubernetes.protobuf");
            if action == "list" {
                types.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
            }
        }
        types
    }

    fn request_body(&self, action: &str, schema: &str) -> Value {
        let schema = json!({"schema": Style::V3.reference(schema)});
        let types = if action == "patch" { self.patch_types() } else { vec!["*/*"] };
        let content: Map<String, Value> = types.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
        if action.starts_with("delete") {
            json!({"content": content})
        } else {
            json!({"content": content, "required": true})
        }
    }

    fn responses(&self, action: &str, schema: &str) -> Value {
        let codes: &[(&str, &str)] = match action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let schema = self.style.reference(schema);
        let mut made = Map::new();
        for (code, description) in codes {
            let response = match self.style {
                Style::V2 => json!({"description": description, "schema": schema}),
                Style::V3 => {
                    let content =
                        self.media_types(action).into_iter().map(|ty| (ty.to_owned(), json!({"schema": schema})));
                    json!({"description": description, "content": content.collect::<Map<_, _>>()})
                }
            };
            made.insert((*code).to_owned(), response);
        }
        made.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(made)
    }
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`.
fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group.strip_suffix(".k8s.io").unwrap_or(group).split('.').map(capital).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters.as_str().chars()).collect()
}

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

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
