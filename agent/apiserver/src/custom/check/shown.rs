//! Versions and schemas as messages show them: in the field names and order that clients know from there.

use std::fmt::Write as _;

use serde_json::Value;

use super::Shared;
use crate::tree;

/// One field: its name there, its name here, and how it is shown.
type Row = (&'static str, &'static str, Shape);

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Flag,
    /// As it is; null if it is not there.
    Plain,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrList,
    SchemaOrFlag,
    Dependencies,
    Docs,
    Rules,
}

const SCHEMA: &[Row] = &[
    ("ID", "id", Shape::Text),
    ("Schema", "$schema", Shape::Text),
    ("Ref", "$ref", Shape::Plain),
    ("Description", "description", Shape::Text),
    ("Type", "type", Shape::Text),
    ("Nullable", "nullable", Shape::Flag),
    ("Format", "format", Shape::Text),
    ("Title", "title", Shape::Text),
    ("Default", "default", Shape::Plain),
    ("Maximum", "maximum", Shape::Plain),
    ("ExclusiveMaximum", "exclusiveMaximum", Shape::Flag),
    ("Minimum", "minimum", Shape::Plain),
    ("ExclusiveMinimum", "exclusiveMinimum", Shape::Flag),
    ("MaxLength", "maxLength", Shape::Plain),
    ("MinLength", "minLength", Shape::Plain),
    ("Pattern", "pattern", Shape::Text),
    ("MaxItems", "maxItems", Shape::Plain),
    ("MinItems", "minItems", Shape::Plain),
    ("UniqueItems", "uniqueItems", Shape::Flag),
    ("MultipleOf", "multipleOf", Shape::Plain),
    ("Enum", "enum", Shape::Plain),
    ("MaxProperties", "maxProperties", Shape::Plain),
    ("MinProperties", "minProperties", Shape::Plain),
    ("Required", "required", Shape::Plain),
    ("Items", "items", Shape::SchemaOrList),
    ("AllOf", "allOf", Shape::Schemas),
    ("OneOf", "oneOf", Shape::Schemas),
    ("AnyOf", "anyOf", Shape::Schemas),
    ("Not", "not", Shape::Schema),
    ("Properties", "properties", Shape::SchemaMap),
    ("AdditionalProperties", "additionalProperties", Shape::SchemaOrFlag),
    ("PatternProperties", "patternProperties", Shape::SchemaMap),
    ("Dependencies", "dependencies", Shape::Dependencies),
    ("AdditionalItems", "additionalItems", Shape::SchemaOrFlag),
    ("Definitions", "definitions", Shape::SchemaMap),
    ("ExternalDocs", "externalDocs", Shape::Docs),
    ("Example", "example", Shape::Plain),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Shape::Plain),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Shape::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Shape::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Shape::Plain),
    ("XListType", "x-kubernetes-list-type", Shape::Plain),
    ("XMapType", "x-kubernetes-map-type", Shape::Plain),
    ("XValidations", "x-kubernetes-validations", Shape::Rules),
];

/// The fields of a schema that may stand at the root where the status is a subresource.
pub(super) const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// The fields of a schema that are set, in order, by the names that messages use.
pub(super) fn set_fields(schema: &Value) -> impl Iterator<Item = &'static str> + '_ {
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    SCHEMA.iter().filter(move |(_, key, _)| schema.get(key).is_some_and(is_set)).map(|(name, ..)| *name)
}

/// A text in JSON as Go writes it.
fn text(value: &str, out: &mut String) {
    for part in Value::from(value).to_string().chars() {
        match part {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
}

fn plain(value: &Value, out: &mut String) {
    match value {
        Value::String(string) => text(string, out),
        Value::Array(items) => list(items, out, plain),
        Value::Object(map) => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text(key, out);
                out.push(':');
                plain(value, out);
            }
            out.push('}');
        }
        other => _ = write!(out, "{other}"),
    }
}

fn list(items: &[Value], out: &mut String, each: impl Fn(&Value, &mut String)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(']');
}

fn field(value: &Value, shape: Shape, out: &mut String) {
    let schemas = |map: &serde_json::Map<String, Value>, out: &mut String, each: &dyn Fn(&Value, &mut String)| {
        out.push('{');
        for (i, (key, value)) in map.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            text(key, out);
            out.push(':');
            each(value, out);
        }
        out.push('}');
    };
    match (shape, value) {
        (Shape::Text, value) => text(value.as_str().unwrap_or_default(), out),
        (Shape::Flag, value) => _ = write!(out, "{}", *value == true),
        (Shape::Plain, value) => plain(value, out),
        (_, Value::Null) => out.push_str("null"),
        (Shape::Schema, value) => schema_into(value, out),
        (Shape::Schemas, Value::Array(items)) => list(items, out, schema_into),
        (Shape::SchemaMap, Value::Object(map)) => schemas(map, out, &schema_into),
        (Shape::SchemaOrList, Value::Array(items)) => {
            out.push_str("{\"Schema\":null,\"JSONSchemas\":");
            list(items, out, schema_into);
            out.push('}');
        }
        (Shape::SchemaOrList, value) => {
            out.push_str("{\"Schema\":");
            schema_into(value, out);
            out.push_str(",\"JSONSchemas\":null}");
        }
        (Shape::SchemaOrFlag, Value::Bool(flag)) => _ = write!(out, "{{\"Allows\":{flag},\"Schema\":null}}"),
        (Shape::SchemaOrFlag, value) => {
            out.push_str("{\"Allows\":true,\"Schema\":");
            schema_into(value, out);
            out.push('}');
        }
        (Shape::Dependencies, Value::Object(map)) => schemas(map, out, &|value, out| match value {
            Value::Array(_) => {
                out.push_str("{\"Schema\":null,\"Property\":");
                plain(value, out);
                out.push('}');
            }
            schema => {
                out.push_str("{\"Schema\":");
                schema_into(schema, out);
                out.push_str(",\"Property\":null}");
            }
        }),
        (Shape::Docs, value) => {
            out.push_str("{\"Description\":");
            text(tree::text(value, "/description"), out);
            out.push_str(",\"URL\":");
            text(tree::text(value, "/url"), out);
            out.push('}');
        }
        (Shape::Rules, Value::Array(items)) => list(items, out, rule_into),
        (_, other) => plain(other, out),
    }
}

fn rows(value: &Value, rows: &[Row], out: &mut String) {
    out.push('{');
    for (i, (name, key, shape)) in rows.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        _ = write!(out, "\"{name}\":");
        field(&value[*key], *shape, out);
    }
    out.push('}');
}

fn schema_into(schema: &Value, out: &mut String) {
    rows(schema, SCHEMA, out);
}

fn rule_into(rule: &Value, out: &mut String) {
    const RULE: &[Row] = &[
        ("Rule", "rule", Shape::Text),
        ("Message", "message", Shape::Text),
        ("MessageExpression", "messageExpression", Shape::Text),
        ("Reason", "reason", Shape::Plain),
        ("FieldPath", "fieldPath", Shape::Text),
        ("OptionalOldSelf", "optionalOldSelf", Shape::Plain),
    ];
    rows(rule, RULE, out);
}

/// A schema as messages show it.
pub(super) fn schema(value: &Value) -> String {
    let mut out = String::new();
    schema_into(value, &mut out);
    out
}

/// A rule as messages show it.
pub(super) fn rule(value: &Value) -> String {
    let mut out = String::new();
    rule_into(value, &mut out);
    out
}

/// The versions of a definition as messages show them, without what they have in common.
pub(super) fn versions(shared: &Shared<'_>) -> String {
    if shared.versions.is_empty() {
        return "null".to_owned();
    }
    let mut out = String::new();
    list(shared.versions, &mut out, |version, out| {
        out.push_str("{\"Name\":");
        text(tree::text(version, "/name"), out);
        for (name, key) in [("Served", "served"), ("Storage", "storage"), ("Deprecated", "deprecated")] {
            _ = write!(out, ",\"{name}\":{}", version[key] == true);
        }
        out.push_str(",\"DeprecationWarning\":");
        plain(&version["deprecationWarning"], out);
        out.push_str(",\"Schema\":");
        own(shared.schema, &version["schema"], out, |value, out| {
            out.push_str("{\"OpenAPIV3Schema\":");
            field(&value["openAPIV3Schema"], Shape::Schema, out);
            out.push('}');
        });
        out.push_str(",\"Subresources\":");
        own(shared.subresources, &version["subresources"], out, subresources);
        out.push_str(",\"AdditionalPrinterColumns\":");
        own(shared.columns, &version["additionalPrinterColumns"], out, |value, out| {
            list(value.as_array().map_or(&[], Vec::as_slice), out, column);
        });
        out.push_str(",\"SelectableFields\":");
        own(shared.selectable, &version["selectableFields"], out, |value, out| {
            list(value.as_array().map_or(&[], Vec::as_slice), out, |f, out| {
                rows(f, &[("JSONPath", "jsonPath", Shape::Text)], out);
            });
        });
        out.push('}');
    });
    out
}

fn own(shared: bool, value: &Value, out: &mut String, show: impl Fn(&Value, &mut String)) {
    if shared || value.is_null() { out.push_str("null") } else { show(value, out) }
}

fn subresources(value: &Value, out: &mut String) {
    out.push_str(if value["status"].is_null() { "{\"Status\":null,\"Scale\":" } else { "{\"Status\":{},\"Scale\":" });
    own(false, &value["scale"], out, |scale, out| {
        const SCALE: &[Row] = &[
            ("SpecReplicasPath", "specReplicasPath", Shape::Text),
            ("StatusReplicasPath", "statusReplicasPath", Shape::Text),
            ("LabelSelectorPath", "labelSelectorPath", Shape::Plain),
        ];
        rows(scale, SCALE, out);
    });
    out.push('}');
}

fn column(value: &Value, out: &mut String) {
    out.push('{');
    for (name, key) in [("Name", "name"), ("Type", "type"), ("Format", "format"), ("Description", "description")] {
        _ = write!(out, "\"{name}\":");
        text(tree::text(value, &format!("/{key}")), out);
        out.push(',');
    }
    _ = write!(out, "\"Priority\":{},\"JSONPath\":", value["priority"].as_i64().unwrap_or(0));
    text(tree::text(value, "/jsonPath"), out);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_shown_without_what_they_share() {
        let versions = [json!({"name": "v<1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {}}})];
        assert_eq!(
            super::versions(&Shared::of(&versions)),
            "[{\"Name\":\"v\\u003c1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\
             \"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]"
        );
        let text = schema(&json!({"type": "object", "properties": {"a": {"type": "string"}}}));
        assert!(text.starts_with("{\"ID\":\"\",\"Schema\":\"\",\"Ref\":null,\"Description\":\"\",\"Type\":\"object\""));
        assert!(text.contains("\"Properties\":{\"a\":{\"ID\""));
        assert_eq!(set_fields(&json!({"type": "object", "required": ["a"]})).collect::<Vec<_>>(), ["Type", "Required"]);
    }
}
