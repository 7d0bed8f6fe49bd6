//! What definitions hold beside their schemas: conversion, columns, subresources, selectable fields.

use http::Uri;
use serde_json::Value;
use stdx::quoted;

use super::{Errors, one_of};
use crate::status::FieldError;
use crate::tree;
use crate::validation::names::{dns1035_label, dns1123_subdomain};
use crate::validation::shown;

const APPROVED: &str = "api-approved.kubernetes.io";

/// What a definition says of its approval by the Kubernetes project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

impl Approval {
    fn of(note: &str) -> Self {
        let is_url = || note.parse::<Uri>().is_ok_and(|u| u.scheme().is_some() && u.host().is_some());
        match note {
            "" => Self::Missing,
            note if note.starts_with("unapproved") => Self::Bypassed,
            _ if is_url() => Self::Approved,
            _ => Self::Invalid,
        }
    }

    /// In words.
    fn told(self, note: &str) -> String {
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        let must = format!("protected groups must have approval annotation {APPROVED:?}");
        match self {
            Self::Missing => format!("{must}, {see}"),
            Self::Bypassed => format!("not approved: {}", quoted(note)),
            Self::Approved => format!("approved in {note}"),
            Self::Invalid => format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"),
        }
    }
}

fn approval_note(definition: &Value) -> &str {
    definition["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default()
}

/// Groups of the Kubernetes project are for definitions that it approved.
fn is_protected(definition: &Value) -> bool {
    let group = tree::text(definition, "/spec/group");
    let protected = ["k8s.io", "kubernetes.io"];
    protected.iter().any(|p| group == *p || group.strip_suffix(p).is_some_and(|rest| rest.ends_with('.')))
}

/// Refuses a definition that lacks the approval that its group asks for.
pub(super) fn approval(definition: &Value, old: Option<&Value>) -> Option<FieldError> {
    if !is_protected(definition) {
        return None;
    }
    let note = approval_note(definition);
    let state = Approval::of(note);
    if old.is_some_and(|old| Approval::of(approval_note(old)) == state) {
        return None;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match state {
        Approval::Missing => Some(FieldError::required(field, state.told(note))),
        Approval::Invalid => Some(FieldError::invalid(field, note, state.told(note))),
        Approval::Bypassed | Approval::Approved => None,
    }
}

/// The status, reason and message of the condition about the approval; none where no group asks for it.
pub(in crate::custom) fn approved(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    let note = approval_note(definition);
    let state = Approval::of(note);
    let (status, reason) = match state {
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    is_protected(definition).then(|| (status, reason, state.told(note)))
}

/// The warning of a deprecated version.
pub(super) fn deprecation(version: &Value, field: &str, errors: &mut Errors) {
    let Some(text) = version["deprecationWarning"].as_str() else { return };
    let mut refuse =
        |why: &str| errors.push(FieldError::invalid(format!("{field}.deprecationWarning"), shown::word(text), why));
    if version["deprecated"] != true {
        refuse("can only be set for deprecated versions");
        return;
    }
    if text.len() > 256 {
        refuse("must be <= 256 characters long");
    }
    if text.is_empty() {
        refuse("must not be an empty string");
    }
    let odd = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
    if let Some((at, _)) = text.char_indices().find(|(_, c)| odd(*c)) {
        refuse(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

pub(super) fn subresources(subresources: &Value, field: &str, errors: &mut Errors) {
    let Some(scale) = subresources.get("scale").filter(|s| s.is_object()) else { return };
    for (key, roots, why) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let (field, path) = (format!("{field}.scale.{key}"), tree::text(scale, &format!("/{key}")));
        if path.is_empty() {
            if key != "labelSelectorPath" {
                errors.push(FieldError::required(field, ""));
            }
        } else if !path.starts_with('.') {
            errors.push(FieldError::invalid(field, path, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| path.starts_with(root)) {
            errors.push(FieldError::invalid(field, path, why));
        }
    }
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub(super) fn columns(columns: &Value, field: &str, errors: &mut Errors) {
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        let text = |key: &str| tree::text(column, &format!("/{key}")).to_owned();
        let at = |key: &str| format!("{field}[{i}].{key}");
        if text("name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let (ty, format, path) = (text("type"), text("format"), text("jsonPath"));
        let why = format!("must be one of {}", COLUMN_TYPES.join(","));
        if ty.is_empty() {
            errors.push(FieldError::required(at("type"), why));
        } else if !COLUMN_TYPES.contains(&ty.as_str()) {
            errors.push(FieldError::invalid(at("type"), ty, why));
        }
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format.as_str()) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(at("format"), format, why));
        }
        if path.is_empty() {
            errors.push(FieldError::required(at("JSONPath"), ""));
        } else if !path.starts_with('.') {
            errors.push(FieldError::invalid(at("JSONPath"), path, "must be a simple json path starting with ."));
        }
    }
}

/// Most fields that selectors may name.
const MAX_SELECTABLE: usize = 8;

/// Whether more fields than allowed were there before, and are the same.
pub(super) fn keeps_selectable(old: Option<&Value>, version: &str, fields: &Value) -> bool {
    let versions = old.map_or(&[][..], |old| tree::list(old, "/spec/versions"));
    let before = versions.iter().find(|v| v["name"] == version).map(|v| &v["selectableFields"]);
    before.is_some_and(|b| b == fields && b.as_array().is_some_and(|b| b.len() > MAX_SELECTABLE))
}

pub(super) fn selectable(fields: &Value, schema: &Value, (field, keeps): (&str, bool), errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, selectable) in fields.as_array().into_iter().flatten().enumerate() {
        let field = format!("{field}[{i}].jsonPath");
        let path = tree::text(selectable, "/jsonPath");
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let found = match follow(schema, path, false) {
            Ok((found, _)) => found,
            Err(why) => {
                errors.push(FieldError::invalid(field, path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if path.split('.').nth(1) == Some("metadata") {
            errors.push(FieldError::invalid(&field, path, "must not point to fields in metadata"));
        }
        if !matches!(tree::text(found, "/type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(FieldError::invalid(&field, path, why));
        }
        if seen.contains(&path) {
            errors.push(FieldError::duplicate(field, path));
        } else {
            seen.push(path);
        }
    }
    if seen.len() > MAX_SELECTABLE && !keeps {
        errors.push(FieldError::too_many(field, seen.len(), MAX_SELECTABLE as u64));
    }
}

/// The schema that a path like `.spec['a.b'].c` leads to, and the path as errors name it.
pub(in crate::custom) fn follow<'s>(
    schema: &'s Value,
    path: &str,
    brackets: bool,
) -> Result<(&'s Value, String), String> {
    let mut at = schema;
    let mut told = String::new();
    let mut rest = path;
    let end = || "unexpected end of JSON path".to_owned();
    let unknown = || "does not refer to a valid field".to_owned();
    while let Some(first) = rest.chars().next() {
        let name = match first {
            '.' => {
                let after = &rest[1..];
                let stop = after.find(['.', '[', ']']).unwrap_or(after.len()).max(usize::from(!after.is_empty()));
                let stop =
                    after.char_indices().map(|(i, _)| i).chain([after.len()]).find(|i| *i >= stop).unwrap_or(stop);
                if after.is_empty() {
                    return Err(end());
                }
                rest = &after[stop..];
                after[..stop].to_owned()
            }
            '[' if !brackets => return Err("array notation is not allowed".to_owned()),
            '[' => {
                let after = &rest[1..];
                if after.is_empty() {
                    return Err(end());
                }
                let Some(quoted) = after.strip_prefix('\'') else {
                    let token = &after[..after.find(['.', '[', ']']).unwrap_or(after.len())];
                    return Err(format!("expected single quoted string but got {token}"));
                };
                let close =
                    quoted.find('\'').ok_or_else(|| format!("expected single quoted string but got {after}"))?;
                let following = &quoted[close + 1..];
                rest = following.strip_prefix(']').ok_or_else(|| {
                    if following.is_empty() { end() } else { format!("expected ] but got {following}") }
                })?;
                quoted[..close].to_owned()
            }
            _ => {
                let token = &rest[..rest.find(['.', '[', ']']).unwrap_or(rest.len())];
                return Err(format!("expected [ or . but got: {token}"));
            }
        };
        at = match (at["properties"].as_object(), at.get("additionalProperties")) {
            (Some(properties), _) if !properties.is_empty() => {
                told.push_str(if told.is_empty() { "" } else { "." });
                told.push_str(&name);
                properties.get(&name).ok_or_else(unknown)?
            }
            (_, Some(inner)) if !inner.is_null() => {
                told.push_str(&format!("[{name}]"));
                inner
            }
            _ => return Err(unknown()),
        };
    }
    Ok((at, told))
}

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn conversion(definition: &Value, old: Option<&Value>, errors: &mut Errors) {
    let conversion = &definition["spec"]["conversion"];
    if !conversion.is_object() {
        return;
    }
    let strategy = tree::text(conversion, "/strategy");
    if strategy != "None" && definition["spec"]["preserveUnknownFields"] == true {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid("spec.conversion.strategy", strategy, why));
    }
    if strategy.is_empty() {
        errors.push(FieldError::required("spec.conversion.strategy", ""));
    } else {
        one_of("spec.conversion.strategy", strategy, &["None", "Webhook"], errors);
    }
    let client = &conversion["webhook"]["clientConfig"];
    let reviews = tree::list(conversion, "/webhook/conversionReviewVersions");
    let field = "spec.conversion.webhookClientConfig";
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if !client.is_null() {
            errors.push(FieldError::forbidden(field, why));
        }
        if !reviews.is_empty() {
            errors.push(FieldError::forbidden("spec.conversion.conversionReviewVersions", why));
        }
        return;
    }
    if client.is_null() {
        errors.push(FieldError::required(field, "required when strategy is set to Webhook"));
    } else {
        client_config(client, field, errors);
    }
    review_versions(reviews, old, errors);
}

fn review_versions(reviews: &[Value], old: Option<&Value>, errors: &mut Errors) {
    let field = "spec.conversion.conversionReviewVersions";
    if reviews.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    let known = |v: &Value| v.as_str().is_some_and(|v| REVIEWS.contains(&v));
    for (i, review) in reviews.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let text = review.as_str().unwrap_or_default();
        if reviews[..i].contains(review) {
            errors.push(FieldError::invalid(field, text, "duplicate version"));
            continue;
        }
        errors.extend(dns1035_label(text).into_iter().map(|why| FieldError::invalid(&field, text, why)));
    }
    let before = old.map_or(&[][..], |old| tree::list(old, "/spec/conversion/webhook/conversionReviewVersions"));
    let lenient = !before.is_empty() && !before.iter().any(known);
    if !lenient && !reviews.iter().any(known) {
        let why = format!("must include at least one of {}", REVIEWS.join(", "));
        errors.push(FieldError::invalid(field, Value::Array(reviews.to_vec()), why));
    }
}

fn client_config(client: &Value, field: &str, errors: &mut Errors) {
    match (client["url"].as_str(), client.get("service").filter(|s| s.is_object())) {
        (Some(url), None) => url_of(url, &format!("{field}.url"), errors),
        (None, Some(service)) => service_of(service, &format!("{field}.service"), errors),
        _ => errors.push(FieldError::required(field, "exactly one of url or service is required")),
    }
}

fn url_of(url: &str, field: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let scheme = if is_scheme { scheme.to_lowercase() } else { String::new() };
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(field, scheme.as_str(), why));
    }
    let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let authority = if scheme.is_empty() { "" } else { before.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        errors.push(FieldError::invalid(field, "", format!("host must be specified{FORM}")));
    }
    for (text, what) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !text.is_empty() {
            errors.push(FieldError::invalid(field, text, what));
        }
    }
}

fn service_of(service: &Value, field: &str, errors: &mut Errors) {
    // Upstream takes the two names for each other here.
    for (key, told) in [("namespace", "name"), ("name", "namespace")] {
        if tree::text(service, &format!("/{key}")).is_empty() {
            errors.push(FieldError::required(format!("{field}.{told}"), ""));
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{field}.port"), port, why));
    }
    let path = tree::text(service, "/path");
    let mut refuse = |why: String| errors.push(FieldError::invalid(format!("{field}.path"), path, why));
    match path {
        "" | "/" => return,
        "//" => return refuse("segment[0] may not be empty".to_owned()),
        _ => {}
    }
    if !path.starts_with('/') {
        refuse("must start with a '/'".to_owned());
    }
    let mut inner = path.chars();
    inner.next();
    let inner = inner.as_str();
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (i, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
            continue;
        }
        dns1123_subdomain(step).into_iter().for_each(|why| refuse(format!("segment[{i}]: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectable_fields_are_scalars_outside_of_metadata() {
        let schema = json!({"properties": {"spec": {"type": "object", "properties": {"color": {"type": "string"},
            "list": {"type": "array"}}}, "metadata": {"properties": {"name": {"type": "string"}}}}});
        let fields = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.color"}, {"jsonPath": ".spec.list"},
            {"jsonPath": ".spec.none"}, {"jsonPath": "spec"}, {"jsonPath": ".metadata.name"}, {"jsonPath": ""}]);
        let mut errors = Errors::new();
        selectable(&fields, &schema, ("f", false), &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "f[1].jsonPath: Duplicate value: \".spec.color\"",
                "f[2].jsonPath: Invalid value: \".spec.list\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                "f[3].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
                "f[4].jsonPath: Invalid value: \"spec\": is an invalid path: expected [ or . but got: spec",
                "f[5].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
                "f[6].jsonPath: Required value",
            ]
        );
    }

    #[test]
    fn paths_may_quote_names() {
        let schema = json!({"properties": {"a.b": {"additionalProperties": {"type": "string"}}}});
        let (found, told) = follow(&schema, "['a.b'].x", true).unwrap();
        assert_eq!((found["type"].as_str(), told.as_str()), (Some("string"), "a.b[x]"));
        assert_eq!(follow(&schema, "['a.b']", false).unwrap_err(), "array notation is not allowed");
        assert_eq!(follow(&schema, "[a]", true).unwrap_err(), "expected single quoted string but got a");
    }

    #[test]
    fn webhooks_have_an_address_of_one_kind() {
        let mut errors = Errors::new();
        url_of("http://user@host/x?y#z", "u", &mut errors);
        assert_eq!(errors.len(), 4);
        errors.clear();
        service_of(&json!({"name": "a", "namespace": "b", "port": 0, "path": "x//y"}), "s", &mut errors);
        assert_eq!(errors.len(), 4);
        errors.clear();
        url_of("https://host:443/x", "u", &mut errors);
        service_of(&json!({"name": "a", "namespace": "b", "path": "/x/y/"}), "s", &mut errors);
        client_config(&json!({}), "c", &mut errors);
        assert_eq!(texts(&errors), ["c: Required value: exactly one of url or service is required"]);
    }

    #[test]
    fn groups_of_the_project_need_its_approval() {
        let definition = |note: &str| json!({"spec": {"group": "a.k8s.io"}, "metadata": {"annotations": {"api-approved.kubernetes.io": note}}});
        assert!(approval(&definition(""), None).is_some() && approval(&definition("x"), None).is_some());
        assert!(approval(&definition("unapproved, trying"), None).is_none());
        assert!(approval(&definition("https://a.b/c"), None).is_none());
        assert!(approval(&definition(""), Some(&definition(""))).is_none());
    }
}
