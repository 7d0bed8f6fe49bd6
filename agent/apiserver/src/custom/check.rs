//! What a CustomResourceDefinition has to be, and what it gets; pure.

use api::labels::is_dns_label;
use serde_json::{Value, json};

use crate::status::FieldError;
use crate::tree;

/// Fills in what follows from the rest of a definition.
pub(super) fn complete(definition: &mut Value) {
    let kind = tree::text(definition, "/spec/names/kind").to_owned();
    let names = tree::object_at(&mut definition["spec"], "names");
    let mut set = |key: &str, value: String| {
        if names.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
            names.insert(key.to_owned(), value.into());
        }
    };
    set("singular", kind.to_lowercase());
    set("listKind", format!("{kind}List"));
    if !tree::has(definition, "/spec/conversion/strategy") {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// The version that is stored joins those that were.
pub(super) fn note_stored_version(definition: &mut Value) {
    let versions = tree::list(definition, "/spec/versions").to_vec();
    let Some(name) = versions.iter().find(|v| v["storage"] == true).map(|v| v["name"].clone()) else { return };
    let status = tree::object_at(definition, "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(list) = stored.as_array_mut().filter(|list| !list.contains(&name)) {
        list.push(name);
    }
}

/// Everything that is wrong with a definition.
#[must_use]
pub fn check(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |pointer: &str| tree::text(definition, pointer);
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let name = text("/metadata/name");
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    match text("/spec/scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    let versions = tree::list(definition, "/spec/versions");
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", Value::Array(versions.to_vec()), why));
    }
    check_names(definition, &mut errors);
    check_versions(definition, &mut errors);
    if text("/spec/conversion/strategy") == "Webhook" && !tree::has(definition, "/spec/conversion/webhook/clientConfig")
    {
        let field = "spec.conversion.webhookClientConfig";
        errors.push(FieldError::required(field, "required when strategy is set to Webhook"));
    }
    if definition["spec"]["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    if tree::list(definition, "/status/storedVersions").is_empty() && !versions.iter().any(|v| v["storage"] == true) {
        errors.push(FieldError::invalid("status.storedVersions", Value::Null, "must have at least one stored version"));
    }
    errors
}

fn check_names(definition: &Value, errors: &mut Vec<FieldError>) {
    let text = |pointer: &str| tree::text(definition, pointer);
    for (key, lower) in [("plural", true), ("singular", true), ("kind", false), ("listKind", false)] {
        let (field, value) = (format!("spec.names.{key}"), text(&format!("/spec/names/{key}")));
        let valid = is_dns_label(&value.to_lowercase()) && (!lower || value == value.to_lowercase());
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if !valid {
            let why = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                       character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                       validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
            errors.push(FieldError::invalid(field, value, why));
        }
    }
    if text("/spec/names/kind") == text("/spec/names/listKind") && !text("/spec/names/kind").is_empty() {
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            text("/spec/names/listKind"),
            "kind and listKind may not be the same",
        ));
    }
}

fn check_versions(definition: &Value, errors: &mut Vec<FieldError>) {
    let versions = tree::list(definition, "/spec/versions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let name = tree::text(version, "/name");
        if !is_dns_label(name) {
            let why = "a DNS-1035 label must consist of lower case alphanumeric characters or '-'";
            errors.push(FieldError::invalid(format!("spec.versions[{i}].name"), name, why));
        }
        if seen.contains(&name) {
            let why = "must contain unique version names";
            errors.push(FieldError::invalid("spec.versions", Value::Array(versions.to_vec()), why));
        }
        seen.push(name);
        let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema").filter(|s| s.is_object()) {
            None => errors.push(FieldError::required(field, "schemas are required")),
            Some(schema) => {
                if schema["type"] != "object" {
                    let given = schema["type"].clone();
                    errors.push(if given.is_null() {
                        FieldError::required(format!("{field}.type"), "must not be empty at the root")
                    } else {
                        FieldError::invalid(format!("{field}.type"), given, "must be object at the root")
                    });
                }
                check_structure(schema, &field, errors);
            }
        }
    }
}

/// A structural schema says the type of every value.
fn check_structure(schema: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let typed = |inner: &Value| {
        !tree::text(inner, "/type").is_empty()
            || inner["x-kubernetes-int-or-string"] == true
            || inner["x-kubernetes-preserve-unknown-fields"] == true
    };
    let mut visit = |inner: &Value, field: String, what: &str| {
        if !inner.is_object() {
            return;
        }
        if !typed(inner) {
            errors
                .push(FieldError::required(format!("{field}.type"), format!("must not be empty for specified {what}")));
        }
        check_structure(inner, &field, errors);
    };
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        visit(inner, format!("{field}.properties[{key}]"), "object fields");
    }
    visit(&schema["items"], format!("{field}.items"), "array items");
    visit(&schema["additionalProperties"], format!("{field}.additionalProperties"), "object fields");
    if schema["type"] == "array" && !schema["items"].is_object() {
        errors.push(FieldError::required(format!("{field}.items"), "must be specified"));
    }
    if schema["properties"].is_object() && schema["additionalProperties"].is_object() {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(format!("{field}.additionalProperties"), why));
    }
}

/// What a definition asks for that is stored but has no effect here.
#[must_use]
pub(super) fn warnings(definition: &Value) -> Vec<String> {
    fn has(value: &Value, key: &str) -> bool {
        match value {
            Value::Object(map) => map.contains_key(key) || map.values().any(|v| has(v, key)),
            Value::Array(items) => items.iter().any(|v| has(v, key)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    let mut texts = Vec::new();
    for (i, version) in tree::list(definition, "/spec/versions").iter().enumerate() {
        if has(&version["schema"], "x-kubernetes-validations") {
            texts.push(format!(
                "spec.versions[{i}].schema: x-kubernetes-validations rules are stored but not evaluated by this server"
            ));
        }
        if !tree::list(version, "/selectableFields").is_empty() {
            texts.push(format!(
                "spec.versions[{i}].selectableFields are stored but cannot be selected by on this server"
            ));
        }
    }
    if definition["spec"]["conversion"]["strategy"] == "Webhook" {
        texts.push("spec.conversion: webhooks are not called by this server; objects are readable in their stored version only".to_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_completed_and_checked() {
        let mut definition = json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        complete(&mut definition);
        note_stored_version(&mut definition);
        assert_eq!(definition["spec"]["names"]["listKind"], "FooList");
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        assert!(check(&definition).is_empty());
        definition["metadata"]["name"] = "other".into();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
            json!({"spec": {"properties": {}}});
        let texts: Vec<String> = check(&definition).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
                "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ]
        );
    }
}
