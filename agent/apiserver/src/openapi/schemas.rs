//! Schemas of messages.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::Kind;
use api::schema::{Field, FieldType, ListType, MESSAGES, Message, Shape};
use serde_json::{Map, Value, json};

use super::Style;

/// The name of the schema of a patch body.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The name of the schema of `/version`, which is no message.
pub(super) const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";

/// Messages by the names of their schemas.
static BY_NAME: LazyLock<HashMap<&str, usize>> = LazyLock::new(|| {
    let named = MESSAGES.iter().enumerate().filter(|(_, m)| m.shape != Shape::List && !m.openapi.is_empty());
    named.rev().map(|(index, message)| (message.openapi, index)).collect()
});

/// Adds to the schemas of custom resources those of all messages that the paths and they lead to.
///
/// `versions` are the group versions that the document speaks for.
pub(super) fn complete(
    paths: &Map<String, Value>,
    schemas: &mut Map<String, Value>,
    (style, versions): (Style, &[(&str, &str)]),
) {
    let mut todo = Vec::new();
    paths.values().chain(schemas.values()).for_each(|value| references(value, style, &mut todo));
    let owners = owners();
    while let Some(name) = todo.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let mut schema = match BY_NAME.get(name.as_str()) {
            Some(index) => {
                let mut made = bare(*index, &owners, style);
                add_extensions(&name, &mut made, versions);
                made
            }
            None if name == VERSION_INFO => version_info(style),
            None if name == PATCH => json!({"type": "object"}),
            None => continue,
        };
        super::descriptions::add(&name, &mut schema);
        schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, p)| unwrap(p));
        references(&schema, style, &mut todo);
        schemas.insert(name, schema);
    }
}

/// A reference needs nothing around it where nothing stands beside it.
fn unwrap(property: &mut Value) {
    let Some(map) = property.as_object().filter(|map| map.len() == 1) else { return };
    if let Some([reference]) = map.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        *property = reference.clone();
    }
}

/// Fields whose parts have owners of their own though they could be told to be one.
const GRANULAR: [(&str, &str); 2] = [
    ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "allocatedResourceStatuses"),
    ("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef"),
];

/// Messages of which one field tells which of the others is set: message, that field, the others.
const UNIONS: [(&str, &str, &[&str]); 6] = [
    ("io.k8s.api.core.v1.AppArmorProfile", "type", &["localhostProfile"]),
    ("io.k8s.api.core.v1.PodSchedulingGroup", "", &["podGroupName"]),
    ("io.k8s.api.core.v1.SeccompProfile", "type", &["localhostProfile"]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &["queuing"]),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type", &["exempt", "limited"]),
    ("io.k8s.api.flowcontrol.v1.Subject", "kind", &["group", "serviceAccount", "user"]),
];

/// Maps whose values are of a few, which the tables do not tell.
const VALUES: [(&str, &str, &[&str]); 1] = [(
    "io.k8s.api.core.v1.PersistentVolumeClaimStatus",
    "allocatedResourceStatuses",
    &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ],
)];

/// What all groups have, and what only the unnamed one has, of kinds that are never stored.
const IN_ALL: [&str; 2] = ["DeleteOptions", "WatchEvent"];
const IN_CORE: [&str; 5] = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"];

fn add_extensions(name: &str, schema: &mut Value, versions: &[(&str, &str)]) {
    if let Some((_, teller, fields)) = UNIONS.iter().find(|(message, ..)| *message == name) {
        let fields: Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), super::operations::capital(field).into())).collect();
        let mut union = json!({ "fields-to-discriminateBy": fields });
        if !teller.is_empty() {
            union["discriminator"] = json!(teller);
        }
        schema["x-kubernetes-unions"] = json!([union]);
    }
    let Some(kind) = name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.") else { return };
    let shown = |(group, version): &(&str, &str)| json!({"group": group, "version": version, "kind": kind});
    let core = [("", "v1")];
    let own: &[(&str, &str)] = if IN_ALL.contains(&kind) { versions } else { &[] };
    if IN_ALL.contains(&kind) || IN_CORE.contains(&kind) {
        let all = core.iter().chain(own.iter().filter(|version| !core.contains(version)));
        schema["x-kubernetes-group-version-kind"] = all.map(shown).collect();
    }
}

/// The names of the schemas that are referred to.
fn references(value: &Value, style: Style, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match value {
            Value::String(text) if key == "$ref" => {
                out.extend(text.strip_prefix(style.root()).map(str::to_owned));
            }
            inner => references(inner, style, out),
        }),
        Value::Array(list) => list.iter().for_each(|inner| references(inner, style, out)),
        _ => {}
    }
}

/// All kinds with the messages they are.
fn owners() -> Vec<Owner> {
    let mut made: Vec<Owner> = Vec::new();
    for kind in api::all_kinds() {
        let mut add = |index: usize, (group, version, name): (&str, &str, &str)| {
            let owner = (index, [group, version, name].map(str::to_owned));
            if !made.contains(&owner) {
                made.push(owner);
            }
        };
        add(kind.shown, (kind.group, kind.version, kind.kind));
        if let Some(list) = kind.list_message {
            add(list, (kind.group, kind.version, &format!("{}List", kind.kind)));
        }
        for sub in kind.subresources.iter().filter(|sub| sub.kind != kind.kind) {
            let own = sub.version.is_empty();
            let (group, version) = if own { (kind.group, kind.version) } else { (sub.group, sub.version) };
            if let Some(index) = subresource_message(kind, sub) {
                add(index, (group, version, sub.kind));
            }
        }
    }
    made
}

fn version_info(style: Style) -> Value {
    const REQUIRED: [&str; 9] =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    const OTHERS: [&str; 4] = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    let mut properties: Map<String, Value> =
        OTHERS.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    let ty = if style == Style::V2 { json!({"type": "string"}) } else { json!({"type": "string", "default": ""}) };
    properties.extend(REQUIRED.iter().map(|name| ((*name).to_owned(), ty.clone())));
    json!({"type": "object", "required": REQUIRED, "properties": properties})
}

/// The message that a subresource's body is.
pub(super) fn subresource_message(kind: &Kind, sub: &api::Subresource) -> Option<usize> {
    let version = if sub.version.is_empty() { kind.version } else { sub.version };
    let group = if sub.version.is_empty() { kind.group } else { sub.group };
    if sub.kind == kind.kind && sub.version.is_empty() {
        return Some(kind.shown);
    }
    let group = match group.split('.').next() {
        None | Some("") => "core",
        Some(first) => first,
    };
    let name = format!("k8s.io.api.{group}.{version}.{}", sub.kind);
    MESSAGES.iter().position(|m| m.name == name)
}

/// A message that is a kind of its own, with group, version and name of the kind.
type Owner = (usize, [String; 3]);

fn bare(index: usize, owners: &[Owner], style: Style) -> Value {
    let message = &MESSAGES[index];
    if message.shape != Shape::Struct {
        return shape(message, style);
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    if message.type_meta {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
    }
    add_fields(message, style, &mut properties, &mut required);
    let mut made = Map::new();
    made.insert("type".to_owned(), json!("object"));
    if !required.is_empty() {
        made.insert("required".to_owned(), json!(required));
    }
    if !properties.is_empty() {
        made.insert("properties".to_owned(), Value::Object(properties));
    }
    if message.atomic {
        made.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    let of_kinds: Vec<Value> = owners
        .iter()
        .filter(|(owner, _)| *owner == index)
        .map(|(_, [group, version, kind])| json!({"group": group, "version": version, "kind": kind}))
        .collect();
    if !of_kinds.is_empty() {
        made.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(of_kinds));
    }
    Value::Object(made)
}

fn add_fields(message: &Message, style: Style, properties: &mut Map<String, Value>, required: &mut Vec<&'static str>) {
    for field in message.fields {
        match field.ty.message() {
            Some(inner) if field.inline => add_fields(inner, style, properties, required),
            _ => {
                if field.required {
                    required.push(field.json);
                }
                let mut made = property(field, style);
                if GRANULAR.contains(&(message.openapi, field.json)) {
                    made["x-kubernetes-map-type"] = json!("granular");
                }
                if let Some((.., values)) =
                    VALUES.iter().find(|(of, name, _)| (*of, *name) == (message.openapi, field.json))
                {
                    made["additionalProperties"]["enum"] = json!(values);
                }
                properties.insert(field.json.to_owned(), made);
            }
        }
    }
}

fn property(field: &Field, style: Style) -> Value {
    let mut made = Map::new();
    if let FieldType::Map(value) = field.ty {
        made.insert("type".to_owned(), json!("object"));
        let mut inner = member(*value, style);
        if !field.values.is_empty() {
            inner["enum"] = json!(field.values);
        }
        made.insert("additionalProperties".to_owned(), inner);
        if field.atomic {
            made.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
    } else if field.repeated {
        made.insert("type".to_owned(), json!("array"));
        let mut items = member(field.ty, style);
        if !field.values.is_empty() {
            items["enum"] = json!(field.values);
        }
        made.insert("items".to_owned(), items);
        add_list_type(field, &mut made);
    } else {
        made = single(field, style);
    }
    if !field.merge_key.is_empty() {
        made.insert("x-kubernetes-patch-merge-key".to_owned(), json!(field.merge_key));
    }
    if !field.patch.is_empty() {
        made.insert("x-kubernetes-patch-strategy".to_owned(), json!(field.patch.join(",")));
    }
    Value::Object(made)
}

fn single(field: &Field, style: Style) -> Map<String, Value> {
    let default: Option<Value> = serde_json::from_str(field.default).ok().filter(|_| style == Style::V3);
    let message = field.ty.message().filter(|m| m.shape != Shape::List);
    let mut made = match (message, default) {
        (Some(message), Some(default)) => {
            let mut made = Map::new();
            made.insert("default".to_owned(), default);
            made.insert("allOf".to_owned(), json!([style.reference(message.openapi)]));
            return made;
        }
        // A reference has room for more beside it only within a list.
        (Some(message), None) if style == Style::V3 => {
            Map::from_iter([("allOf".to_owned(), json!([style.reference(message.openapi)]))])
        }
        (Some(message), None) => as_map(style.reference(message.openapi)),
        (None, default) => {
            let mut made = as_map(item(field.ty, style));
            made.remove("default");
            if let Some(default) = default {
                made.insert("default".to_owned(), default);
            }
            made
        }
    };
    if !field.values.is_empty() {
        made.insert("enum".to_owned(), json!(field.values));
    }
    add_list_type(field, &mut made);
    if field.atomic && field.ty.message().is_none() {
        made.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    made
}

fn add_list_type(field: &Field, made: &mut Map<String, Value>) {
    let (name, keys): (&str, &[&str]) = match field.list {
        ListType::Unset => return,
        ListType::Atomic => ("atomic", &[]),
        ListType::Set => ("set", &[]),
        ListType::Map(keys) => ("map", keys),
    };
    if !keys.is_empty() {
        made.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
    }
    made.insert("x-kubernetes-list-type".to_owned(), json!(name));
}

fn item(ty: FieldType, style: Style) -> Value {
    match ty {
        FieldType::String if style == Style::V3 => json!({"type": "string", "default": ""}),
        FieldType::String => json!({"type": "string"}),
        FieldType::Bytes => json!({"type": "string", "format": "byte"}),
        FieldType::Int32 => whole("int32", style),
        FieldType::Int64 | FieldType::Uint64 => whole("int64", style),
        FieldType::Bool if style == Style::V3 => json!({"type": "boolean", "default": false}),
        FieldType::Bool => json!({"type": "boolean"}),
        FieldType::Double => json!({"type": "number", "format": "double"}),
        FieldType::Map(value) => json!({"type": "object", "additionalProperties": item(*value, style)}),
        // Named lists have no schema of their own.
        FieldType::Message(index) if MESSAGES[index].shape == Shape::List => shape(&MESSAGES[index], style),
        FieldType::Message(index) => style.reference(MESSAGES[index].openapi),
    }
}

fn whole(format: &str, style: Style) -> Value {
    let mut made = json!({"type": "integer", "format": format});
    if style == Style::V3 {
        made["default"] = 0.into();
    }
    made
}

fn shape(message: &Message, style: Style) -> Value {
    match message.shape {
        Shape::List => json!({"type": "array", "items": item(message.fields[0].ty, style)}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::Duration => json!({"type": "string"}),
        Shape::Quantity if style == Style::V2 => json!({"type": "string"}),
        Shape::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Shape::IntOrString if style == Style::V2 => json!({"type": "string", "format": "int-or-string"}),
        Shape::IntOrString => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        Shape::RawJson if message.name.ends_with("JSON") => json!({}),
        Shape::RawJson | Shape::Struct => json!({"type": "object"}),
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => json!({}),
    }
}

/// A member of a list or map: structs are empty unless said otherwise.
fn member(ty: FieldType, style: Style) -> Value {
    match ty.message() {
        Some(message) if style == Style::V3 && message.shape == Shape::Struct => {
            json!({"default": {}, "allOf": [style.reference(message.openapi)]})
        }
        _ => item(ty, style),
    }
}

fn as_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}
