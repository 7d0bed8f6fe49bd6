//! Metadata: what the server sets, what never changes, what a name may be.

use api::Kind;
use api::labels::{is_dns_label, is_label_value, is_qualified_name};
use serde_json::Value;

use super::Errors;
use crate::app::now_text;
use crate::status::FieldError;
use crate::tree;

pub(super) fn prepare_create(value: &mut Value) {
    let meta = tree::object_at(value, "metadata");
    for key in ["selfLink", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(key);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), now_text().into());
}

/// What only the server changes.
const KEPT: [&str; 5] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    let given_uid = tree::text(new, "/metadata/uid").to_owned();
    for key in KEPT {
        if let Some(meta) = new.get_mut("metadata") {
            tree::copy_key(meta, &old["metadata"], key);
        }
    }
    // A uid that is not the object's own is told by validation.
    if !given_uid.is_empty() {
        new["metadata"]["uid"] = given_uid.into();
    }
    tree::remove(&mut new["metadata"], "selfLink");
    if tree::text(new, "/metadata/generateName").is_empty()
        && let Some(meta) = new.get_mut("metadata")
    {
        tree::copy_key(meta, &old["metadata"], "generateName");
    }
}

/// Errors in the metadata of a new object.
#[must_use]
pub fn validate_meta(kind: &'static Kind, value: &Value) -> Errors {
    let mut errors = Vec::new();
    let name = tree::text(value, "/metadata/name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = bad_name(kind, name) {
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    errors.extend(common(value));
    errors
}

fn common(value: &Value) -> Errors {
    let mut errors = Vec::new();
    // Some kinds take any qualified name.
    let known_only = !matches!(value["kind"].as_str(), Some("APIService" | "PodDisruptionBudget" | "Event"));
    for key in ["labels", "annotations"] {
        let Some(map) = value["metadata"][key].as_object() else { continue };
        let field = format!("metadata.{key}");
        for (name, text) in map {
            let lower = if key == "annotations" { name.to_lowercase() } else { name.clone() };
            if !is_qualified_name(&lower) {
                errors.push(FieldError::invalid(&field, name.as_str(), QUALIFIED));
            }
            let text = text.as_str().unwrap_or_default();
            if key == "labels" && !is_label_value(text) {
                errors.push(FieldError::invalid(&field, text, bad_label_value(text)));
            }
        }
    }
    let size: usize = value["metadata"]["annotations"]
        .as_object()
        .map_or(0, |m| m.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum());
    if size > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATION_BYTES));
    }
    for owner in tree::list(value, "/metadata/ownerReferences") {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if owner[key].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences.{key}");
                let what = if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                let text = if key == "apiVersion" { what.to_owned() } else { format!("{key} {what}") };
                errors.push(FieldError::invalid(field, "", text));
            }
        }
    }
    for (i, finalizer) in tree::list(value, "/metadata/finalizers").iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !is_qualified_name(text) {
            if text.is_empty() {
                errors.push(FieldError::invalid("metadata.finalizers", text, "name part must be non-empty"));
            }
            errors.push(FieldError::invalid("metadata.finalizers", text, QUALIFIED));
        } else if known_only && !text.contains('/') && !matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), text, why));
        }
    }
    errors
}

/// Most bytes in all annotations of an object.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// Errors in the change of an object's metadata.
#[must_use]
pub fn validate_meta_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    for key in ["name", "namespace", "uid", "creationTimestamp"] {
        if !tree::same(&new["metadata"][key], &old["metadata"][key]) {
            let field = format!("metadata.{key}");
            errors.push(FieldError::invalid(field, new["metadata"][key].clone(), "field is immutable"));
        }
    }
    let before = tree::list(old, "/metadata/finalizers");
    if tree::has(old, "/metadata/deletionTimestamp") {
        let added: Vec<String> = tree::list(new, "/metadata/finalizers")
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(|f| f.as_str().map(|t| format!("{t:?}")))
            .collect();
        if !added.is_empty() {
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", text));
        }
    }
    errors.extend(common(new));
    errors
}

/// What is wrong with a qualified name.
pub(super) fn qualified_complaint(name: &str) -> String {
    if name.is_empty() { format!("name part must be non-empty; {QUALIFIED}") } else { QUALIFIED.to_owned() }
}

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn bad_label_value(text: &str) -> &'static str {
    if text.len() > 63 {
        "must be no more than 63 bytes"
    } else {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    }
}

/// Why a name is not allowed for the kind.
fn bad_name(kind: &Kind, name: &str) -> Option<&'static str> {
    match (kind.group, kind.plural) {
        // RBAC names are path segments: anything but dots alone, slashes and percent signs.
        ("rbac.authorization.k8s.io", _) => match name {
            "." => Some("may not be '.'"),
            ".." => Some("may not be '..'"),
            _ if name.contains('/') => Some("may not contain '/'"),
            _ if name.contains('%') => Some("may not contain '%'"),
            _ => None,
        },
        ("", "namespaces") if name.len() > 63 => Some("must be no more than 63 bytes"),
        ("", "namespaces") => (!is_dns_label(name)).then_some(LABEL),
        ("", "services") if name.len() > 63 => Some("must be no more than 63 bytes"),
        // Service names may begin with a digit since the check was relaxed.
        ("", "services") => (!is_dns_label(name) || name.as_bytes()[0].is_ascii_digit()).then_some(LABEL_1035),
        ("networking.k8s.io", "ipaddresses") => {
            name.parse::<std::net::IpAddr>().is_err().then_some("must be a valid IP address")
        }
        ("policy", _)
        | ("", "events")
        | ("events.k8s.io", _)
        | ("certificates.k8s.io", _)
        | ("apiregistration.k8s.io", _) => None,
        _ if name.len() > 253 => Some("must be no more than 253 bytes"),
        _ => (!name.split('.').all(is_dns_label_part)).then_some(SUBDOMAIN),
    }
}

fn is_dns_label_part(part: &str) -> bool {
    let word = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(word) && bytes.last().is_some_and(word) && bytes.iter().all(|c| word(c) || *c == b'-')
}
