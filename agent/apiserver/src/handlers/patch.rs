//! PATCH.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::Value;

use super::write::{Changed, check_fields, check_type, modify};
use super::{create_object, read};
use crate::answer::Body;
use crate::app::{Call, now_text};
use crate::codec::{self, Parsed};
use crate::managed::{self, Applying};
use crate::negotiate::Encoding;
use crate::patch::{self, Patch};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::tree;

pub(super) async fn patch(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let changed = apply(call, Part::Main, &body).await?;
    let code = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    read::respond(call, code, changed.object).await
}

/// Reads the patch of a request.
pub(super) fn read_patch(call: &Call, body: &[u8]) -> Result<Patch> {
    let media = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let value = || codec::parse_patch(body);
    match media {
        "application/json-patch+json" => patch::json_patch(body),
        "application/merge-patch+json" => Ok(Patch::Merge(value()?)),
        "application/strategic-merge-patch+json" if crate::custom::is_custom(call.kind) => {
            Err(Failure::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ))
        }
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(value()?)),
        _ => Err(Failure::unsupported_media_type("415: Unsupported Media Type").with_empty_details()),
    }
}

/// What strict decoding says about the patch itself.
fn said_twice(call: &Call, patch: &Patch, body: &[u8]) -> Vec<String> {
    match patch {
        _ if call.query.get("fieldValidation") == "Ignore" => Vec::new(),
        Patch::Merge(_) => codec::patch_duplicates(body),
        Patch::Json(_) => {
            let operations: Value = serde_json::from_slice(body).unwrap_or_default();
            let known = |key: &String| matches!(key.as_str(), "op" | "path" | "value" | "from");
            let unknown = operations.as_array().into_iter().flatten().enumerate().flat_map(|(i, operation)| {
                let keys = operation.as_object().into_iter().flat_map(|o| o.keys());
                keys.filter(|k| !known(k)).map(move |key| format!("json patch unknown field \"[{i}].{key}\""))
            });
            codec::patch_duplicates(body).into_iter().map(|d| format!("json patch {d}")).chain(unknown).collect()
        }
        Patch::Strategic(_) => codec::patch_duplicates(body),
    }
}

/// Field validation of a patched object: strict complaints are about the patch.
fn check_patched(call: &Call, (patch, twice): (&Patch, &[String]), old: &Value, new: Value) -> Result<()> {
    let parsed = Parsed { value: new, duplicates: Vec::new() };
    if call.query.get("fieldValidation") != "Strict" {
        twice.iter().for_each(|text| call.warn(text.as_str()));
        return check_fields(call, &parsed, call.kind.schema());
    }
    let mut complaints = twice.to_vec();
    complaints.extend(super::write::complaints(call, &parsed, call.kind.schema())?);
    if complaints.is_empty() {
        return Ok(());
    }
    let shown = match patch {
        Patch::Strategic(value) => codec::go_map(value),
        Patch::Merge(patch) => merged_text(call, patch, old)?,
        Patch::Json(_) => parsed.value.to_string(),
    };
    let text = format!("strict decoding error: {}", complaints.join(", "));
    let error = FieldError::invalid("patch", shown, text);
    Err(Failure::invalid(Subject { group: "", resource: "" }, "", &[error]))
}

/// The JSON text of a merge: what the patch does not touch stays as the object is written.
fn merged_text(call: &Call, patch: &Value, old: &Value) -> Result<String> {
    let schema = call.kind.schema();
    let raw = api::transcode::value_to_proto(schema, old, &mut api::transcode::Report::default());
    let raw = raw.map_err(Failure::internal)?;
    let mut text = Vec::new();
    let version = call.kind.api_version();
    api::transcode::proto_to_json(schema, &raw, Some((&version, call.kind.kind)), &mut text)
        .map_err(Failure::internal)?;
    let mut parts: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&text).map_err(Failure::internal)?;
    for (key, value) in patch.as_object().into_iter().flatten() {
        let mut merged = old.get(key).cloned().unwrap_or_default();
        json_patch::merge(&mut merged, value);
        let raw = serde_json::value::to_raw_value(&merged).map_err(Failure::internal)?;
        parts.insert(key.clone(), raw);
    }
    serde_json::to_string(&parts).map_err(Failure::internal)
}

/// Server-side apply.
async fn apply_configuration(call: &Call, part: Part, body: &[u8]) -> Result<Changed> {
    check_options(call)?;
    let parsed = codec::parse_body(body, Encoding::Yaml, call.kind.schema())?;
    let schema = crate::custom::schema_of(call);
    let target = managed::Target { kind: call.kind, part, schema: schema.as_deref() };
    match &schema {
        Some(_) => check_duplicates(call, &parsed)?,
        None => check_fields(call, &parsed, call.kind.schema())?,
    }
    let mut config = parsed.value;
    if tree::has(&config, "/metadata/managedFields") {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    check_type(call, &mut config)?;
    if config["metadata"].is_null() {
        config["metadata"] = Value::Object(Default::default());
    }
    if schema.is_some() {
        check_typed(call, target, &config)?;
    }
    let config = codec::declared(call.kind, &config)?;
    let now = now_text();
    let applying = || Applying { config: &config, manager: call.manager(), force: call.query.flag("force"), now: &now };
    let changed = modify(call, part, |old| {
        let mut new = managed::apply(target, Some(old), &applying())?.object;
        new["metadata"]["resourceVersion"] = config
            .pointer("/metadata/resourceVersion")
            .or(old.pointer("/metadata/resourceVersion"))
            .cloned()
            .unwrap_or_default();
        let new = codec::canonical(call.kind, &new)?;
        same_name(call, &new)?;
        Ok(new)
    });
    match changed.await {
        Err(failure) if failure.code() == StatusCode::NOT_FOUND && part == Part::Main => {
            let mut new = managed::apply(target, None, &applying())?.object;
            if tree::text(&new, "/metadata/name").is_empty() {
                new["metadata"]["name"] = call.info.name.as_str().into();
            }
            let new = codec::canonical(call.kind, &new)?;
            same_name(call, &new)?;
            let created = create_object(call, new).await?;
            Ok(Changed { object: created.object, created: true })
        }
        other => other,
    }
}

/// An applied configuration of a custom resource is looked at closely anyway; only what it says twice is left.
fn check_duplicates(call: &Call, parsed: &Parsed) -> Result<()> {
    for text in &parsed.duplicates {
        match call.query.get("fieldValidation") {
            "Ignore" => {}
            "Strict" => {
                let text = format!("error strict decoding YAML: error converting YAML to JSON: {text}");
                return Err(Failure::bad_request(text));
            }
            _ => super::write::complaint_lines(text).for_each(|line| call.warn(line)),
        }
    }
    Ok(())
}

/// Fails on what is not in the schema or has another type there.
fn check_typed(call: &Call, target: managed::Target<'_>, config: &Value) -> Result<()> {
    let found = managed::misfits(target, config);
    let text = match found.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let name = format!("{}/{}", call.namespace(), tree::text(config, "/metadata/name"));
    let about = format!("{name}; {}, Kind={}", call.kind.api_version(), call.kind.kind);
    let text = format!("failed to create typed patch object ({about}): {text}");
    Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text))
}

fn check_options(call: &Call) -> Result<()> {
    if !call.query.get("fieldManager").is_empty() {
        return Ok(());
    }
    let subject = Subject { group: "meta.k8s.io", resource: "PatchOptions" };
    let error = FieldError::required("fieldManager", "is required for apply patch");
    Err(Failure::invalid(subject, "", &[error]))
}

/// The object in a body is the one that the path names.
pub(super) fn same_name(call: &Call, new: &Value) -> Result<()> {
    let name = tree::text(new, "/metadata/name");
    if name == call.info.name {
        return Ok(());
    }
    if name.is_empty() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.info.name
        )));
    }
    Err(Failure::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({})",
        call.info.name
    )))
}

/// Applies the patch of a request to a part of its object.
pub async fn apply(call: &Call, part: Part, body: &[u8]) -> Result<Changed> {
    if call.is_apply() {
        return apply_configuration(call, part, body).await;
    }
    let patch = read_patch(call, body)?;
    if call.query.has("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Failure::invalid(Subject { group: "meta.k8s.io", resource: "PatchOptions" }, "", &[error]));
    }
    let twice = said_twice(call, &patch, body);
    modify(call, part, |old| {
        let mut patched = patch.apply(call.kind.schema(), old)?;
        check_type(call, &mut patched)?;
        let new = codec::canonical_request(call.kind, &patched)?;
        check_patched(call, (&patch, &twice), old, patched)?;
        same_name(call, &new)?;
        Ok(new)
    })
    .await
}
