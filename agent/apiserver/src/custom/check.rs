//! What a CustomResourceDefinition has to be, and what it gets; pure.
//!
//! Parts that all versions have in common are judged once, as parts of the whole, and told as if they stood there:
//! `spec.validation` for the schema of all versions. That is where clients look for them.

mod defaults;
mod openapi;
mod parts;
mod rules;
mod shown;
mod structural;

use serde_json::{Value, json};
use stdx::quoted;

use super::names::dns_1035;
pub(super) use parts::{approved, follow};

use super::formats;
use crate::status::{FieldError, Shown};
use crate::tree;
use crate::validation::names::dns1123_subdomain;

type Errors = Vec<FieldError>;

/// Fills in what follows from the rest of a definition.
pub(super) fn complete(definition: &mut Value) {
    let kind = tree::text(definition, "/spec/names/kind").to_owned();
    let names = tree::object_at(&mut definition["spec"], "names");
    let mut set = |key: &str, value: String| {
        if names.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() && !value.is_empty() {
            names.insert(key.to_owned(), value.into());
        }
    };
    set("singular", kind.to_lowercase());
    if !kind.is_empty() {
        set("listKind", format!("{kind}List"));
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
    if let Some(service) = definition.pointer_mut("/spec/conversion/webhook/clientConfig/service")
        && service.is_object()
        && service["port"].is_null()
    {
        service["port"] = 443.into();
    }
}

/// The version that is stored joins those that were.
pub(super) fn note_stored_version(definition: &mut Value) {
    let versions = tree::list(definition, "/spec/versions").to_vec();
    let Some(name) = versions.iter().find(|v| v["storage"] == true).map(|v| v["name"].clone()) else { return };
    let status = tree::object_at(definition, "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if stored.is_null() {
        *stored = json!([]);
    }
    if let Some(list) = stored.as_array_mut().filter(|list| !list.contains(&name)) {
        list.push(name);
    }
}

/// The parts that are the same in all versions, and those that each version has of its own.
struct Shared<'a> {
    versions: &'a [Value],
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl<'a> Shared<'a> {
    fn of(versions: &'a [Value]) -> Self {
        let same = |key: &str| versions.iter().all(|v| alike(&v[key], &versions[0][key]));
        Self {
            versions,
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }

    /// A part of the first version, for a part that all have in common.
    fn part(&self, shared: bool, key: &str) -> &'a Value {
        self.versions.first().filter(|_| shared).map_or(&Value::Null, |v| &v[key])
    }
}

/// Whether two parts say the same: what is absent and what is empty are one.
fn alike(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            // Each pair is compared once: comparing from both sides would double the work at every level.
            x.iter().all(|(key, value)| y.get(key).map_or_else(|| empty(value), |other| alike(value, other)))
                && y.iter().all(|(key, value)| x.contains_key(key) || empty(value))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| alike(a, b)),
        _ => a == b || empty(a) && empty(b),
    }
}

/// What a schema is judged by beside itself.
#[derive(Clone, Copy)]
struct Grounds {
    /// Whether the version has a subresource for its status.
    status: bool,
    /// Whether the version's schema is as it was.
    unchanged: bool,
}

/// Everything that is wrong with a definition. `old` is what is changed.
#[must_use]
pub fn check(definition: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let text = |pointer: &str| tree::text(definition, pointer);
    let name = text("/metadata/name");
    let wanted = format!("{}.{}", text("/spec/names/plural"), text("/spec/group"));
    for (key, given) in [("generateName", text("/metadata/generateName")), ("name", name)] {
        if old.is_none() && !given.is_empty() && given != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid(format!("metadata.{key}"), given, why));
        }
    }
    check_spec(definition, old, &mut errors);
    if let Some(old) = old {
        immutable(definition, old, &mut errors);
    }
    errors.extend(check_status(definition));
    stored_versions(definition, &mut errors);
    errors.extend(parts::approval(definition, old));
    if definition["spec"]["preserveUnknownFields"] == true
        && old.is_none_or(|o| o["spec"]["preserveUnknownFields"] != true)
    {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    errors
}

/// Everything that is wrong with the status of a definition.
#[must_use]
pub fn check_status(definition: &Value) -> Errors {
    names(&definition["status"]["acceptedNames"], "status.acceptedNames")
}

fn stored_versions(definition: &Value, errors: &mut Errors) {
    let field = "status.storedVersions";
    let stored = tree::list(definition, "/status/storedVersions");
    let versions = tree::list(definition, "/spec/versions");
    if stored.is_empty() {
        errors.push(FieldError::invalid(field, Value::Null, "must have at least one stored version"));
        return;
    }
    let mut left = stored.to_vec();
    for version in versions {
        let known = left.iter().position(|name| *name == version["name"]).map(|at| left.remove(at));
        if version["storage"] == true && known.is_none() {
            let why = format!("must have the storage version {}", tree::text(version, "/name"));
            errors.push(FieldError::invalid(field, Value::Array(stored.to_vec()), why));
        }
    }
    for (i, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| v["name"] == **name)) {
        let text = name.as_str().unwrap_or_default();
        let why = format!(
            "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {text} and removes {text} from status.storedVersions"
        );
        errors.push(FieldError::invalid(format!("{field}[{i}]"), text, why));
    }
}

fn immutable(definition: &Value, old: &Value, errors: &mut Errors) {
    let established =
        tree::list(old, "/status/conditions").iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    let mut keep = |field: &str| {
        let pointer = format!("/{}", field.replace('.', "/"));
        let (new, old) = (tree::text(definition, &pointer), tree::text(old, &pointer));
        if new != old {
            errors.push(FieldError::invalid(field, new, "field is immutable"));
        }
    };
    if established {
        keep("spec.scope");
        keep("spec.names.kind");
    }
    keep("spec.group");
    keep("spec.names.plural");
}

fn check_spec(definition: &Value, old: Option<&Value>, errors: &mut Errors) {
    let text = |pointer: &str| tree::text(definition, pointer);
    let spec = &definition["spec"];
    let group = text("/spec/group");
    let bad_group = dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !bad_group.is_empty() {
        errors.push(FieldError::invalid("spec.group", group, bad_group.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    one_of("spec.scope", text("/spec/scope"), &["Cluster", "Namespaced"], errors);
    let versions = tree::list(definition, "/spec/versions");
    let shared = Shared::of(versions);
    for (i, version) in versions.iter().enumerate() {
        if !tree::has(version, "/schema/openAPIV3Schema") {
            errors.push(FieldError::required(format!("spec.versions[{i}].schema.openAPIV3Schema"), ""));
        }
    }
    let has_default = |v: &Value| openapi::any(&v["schema"]["openAPIV3Schema"], &|s| tree::has(s, "/default"));
    if spec["preserveUnknownFields"] == true && versions.iter().any(has_default) {
        let why = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}]");
        if let Some(why) = dns_1035(tree::text(version, "/name")) {
            errors.push(FieldError::invalid(format!("{field}.name"), tree::text(version, "/name"), why));
        }
        check_version(&shared, version, (&field, old), errors);
    }
    shape_of_versions(definition, &shared, errors);
    for key in ["plural", "singular", "kind", "listKind"] {
        if tree::text(spec, &format!("/names/{key}")).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    errors.extend(names(&spec["names"], "spec.names"));
    let status = versions.iter().any(|v| tree::has(v, "/subresources/status"));
    let first = versions.first().map_or("", |v| tree::text(v, "/name"));
    let grounds = Grounds { status, unchanged: is_unchanged(versions.first(), old) };
    openapi::check(shared.part(shared.schema, "schema"), "spec.validation", grounds, errors);
    parts::subresources(shared.part(shared.subresources, "subresources"), "spec.subresources", errors);
    parts::columns(shared.part(shared.columns, "additionalPrinterColumns"), "spec.additionalPrinterColumns", errors);
    let selectable = shared.part(shared.selectable, "selectableFields");
    if selectable.as_array().is_some_and(|s| !s.is_empty()) {
        let schema = shared.part(shared.schema, "schema");
        if schema.is_null() {
            let why = "may only be set when validations.schema is included";
            errors.push(FieldError::invalid("spec.selectableFields", "", why));
        } else {
            let keeps = parts::keeps_selectable(old, first, selectable);
            parts::selectable(selectable, &schema["openAPIV3Schema"], ("spec.selectableFields", keeps), errors);
        }
    }
    parts::conversion(definition, old, errors);
}

fn is_unchanged(version: Option<&Value>, old: Option<&Value>) -> bool {
    let (Some(version), Some(old)) = (version, old) else { return false };
    tree::list(old, "/spec/versions")
        .iter()
        .any(|o| o["name"] == version["name"] && alike(&o["schema"], &version["schema"]))
}

fn one_of(field: &str, value: &str, allowed: &[&str], errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(field, value, allowed));
    }
}

/// The parts of a version that are its own.
fn check_version(shared: &Shared<'_>, version: &Value, (field, old): (&str, Option<&Value>), errors: &mut Errors) {
    parts::deprecation(version, field, errors);
    if !shared.schema {
        let status = tree::has(version, "/subresources/status");
        let grounds = Grounds { status, unchanged: is_unchanged(Some(version), old) };
        openapi::check(&version["schema"], &format!("{field}.schema"), grounds, errors);
    }
    if !shared.subresources {
        parts::subresources(&version["subresources"], &format!("{field}.subresources"), errors);
    }
    if !shared.columns {
        let below = format!("{field}.additionalPrinterColumns");
        parts::columns(&version["additionalPrinterColumns"], &below, errors);
    }
    let selectable = &version["selectableFields"];
    if shared.selectable || tree::list(version, "/selectableFields").is_empty() {
        return;
    }
    let below = format!("{field}.selectableFields");
    if shared.schema || !tree::has(version, "/schema/openAPIV3Schema") {
        let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
        errors.push(FieldError::invalid(below, "", why));
        return;
    }
    let keeps = parts::keeps_selectable(old, tree::text(version, "/name"), selectable);
    parts::selectable(selectable, &version["schema"]["openAPIV3Schema"], (&below, keeps), errors);
}

fn shape_of_versions(definition: &Value, shared: &Shared<'_>, errors: &mut Errors) {
    let versions = tree::list(definition, "/spec/versions");
    let all = || shown::versions(shared);
    let refuse =
        |errors: &mut Errors, why: &str| errors.push(FieldError::invalid("spec.versions", Shown::spelled(all()), why));
    let twice = |(i, v): (usize, &Value)| versions[..i].iter().any(|o| o["name"] == v["name"]);
    if versions.iter().enumerate().any(twice) {
        refuse(errors, "must contain unique version names");
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        refuse(errors, "must have exactly one version marked as storage version");
    }
    let first = versions.first().map_or("", |v| tree::text(v, "/name"));
    if let Some(why) = dns_1035(first).filter(|_| !first.is_empty()) {
        errors.push(FieldError::invalid("spec.version", first, why));
    }
}

fn names(names: &Value, field: &str) -> Errors {
    let mut errors = Errors::new();
    let text = |key: &str| names[key].as_str().unwrap_or_default();
    for (key, mixed) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let given = text(key);
        if given.is_empty() {
            continue;
        }
        let found = if mixed { dns_1035(&given.to_lowercase()) } else { dns_1035(given) };
        if let Some(why) = found {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(FieldError::invalid(format!("{field}.{key}"), given, format!("{prefix}{why}")));
        }
    }
    let list = |key: &str, errors: &mut Errors| {
        for (i, name) in tree::list(names, &format!("/{key}")).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if let Some(why) = dns_1035(name) {
                errors.push(FieldError::invalid(format!("{field}.{key}[{i}]"), name, why));
            }
        }
    };
    list("shortNames", &mut errors);
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{field}.listKind"), text("listKind"), why));
    }
    list("categories", &mut errors);
    errors
}

/// Formats of a definition that mean nothing to this server, and did not mean anything before either.
#[must_use]
pub(super) fn warnings(definition: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(unknown_formats).unwrap_or_default();
    let found = unknown_formats(definition).into_iter().filter(|format| !before.contains(format));
    found.map(|format| format!("unrecognized format {}", quoted(&format))).collect()
}

fn unknown_formats(definition: &Value) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    let versions = tree::list(definition, "/spec/versions");
    let shared = Shared::of(versions).schema;
    for version in versions.iter().take(if shared { 1 } else { usize::MAX }) {
        openapi::any(&version["schema"]["openAPIV3Schema"], &|schema| {
            let format = tree::text(schema, "/format");
            if !format.is_empty() && !formats::is_known(format, tree::text(schema, "/type")) {
                found.borrow_mut().push(format.to_owned());
            }
            false
        });
    }
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        let mut definition = json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        complete(&mut definition);
        note_stored_version(&mut definition);
        definition
    }

    fn texts(definition: &Value, old: Option<&Value>) -> Vec<String> {
        check(definition, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_definition_is_completed_and_checked() {
        let mut definition = definition();
        assert_eq!(definition["spec"]["names"]["listKind"], "FooList");
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        assert!(check(&definition, None).is_empty());
        definition["metadata"]["name"] = "other".into();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
            json!({"spec": {"properties": {}}});
        assert_eq!(
            texts(&definition, None),
            [
                "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
                "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ]
        );
    }

    #[test]
    fn versions_with_schemas_of_their_own_are_told_one_by_one() {
        let mut definition = definition();
        let mut second = definition["spec"]["versions"][0].clone();
        second["name"] = "v2".into();
        second["storage"] = false.into();
        second["schema"]["openAPIV3Schema"]["properties"] = json!({"a": {}});
        definition["spec"]["versions"].as_array_mut().unwrap().push(second);
        assert_eq!(
            texts(&definition, None),
            [
                "spec.versions[1].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields"
            ]
        );
    }

    #[test]
    fn names_stay_once_they_are_in_use() {
        let mut old = definition();
        let mut new = old.clone();
        new["spec"]["scope"] = "Cluster".into();
        assert!(texts(&new, Some(&old)).is_empty());
        old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        assert_eq!(texts(&new, Some(&old)), ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
    }

    #[test]
    fn formats_without_meaning_are_told_once() {
        let mut new = definition();
        new["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
            json!({"a": {"type": "string", "format": "odd"}, "b": {"type": "string", "format": "date"}});
        assert_eq!(warnings(&new, None), ["unrecognized format \"odd\""]);
        assert!(warnings(&new, Some(&new)).is_empty());
    }
}
