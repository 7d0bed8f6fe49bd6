//! PATCH.

use api::schema::Message;
use api::transcode::Report;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::Value;

use super::write::{Changed, check_fields, check_type, modify};
use super::{create_object, read};
use crate::answer::Body;
use crate::app::{Call, now_text};
use crate::codec::{self, Parsed};
use crate::managed::{self, Applying};
use crate::patch::{self, Change, Patch, Reading};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::tree;

pub(super) async fn patch(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let changed = apply(call, Part::Main, &body).await?;
    let code = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    read::respond(call, code, changed.object).await
}

/// Whether the body is a patch of a kind that there is.
fn check_media_type(call: &Call) -> Result<()> {
    match media_type(call) {
        "application/json-patch+json" | "application/merge-patch+json" => Ok(()),
        _ if crate::custom::is_custom(call.kind) => Err(Failure::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        "application/strategic-merge-patch+json" => Ok(()),
        _ => Err(Failure::unsupported_media_type("415: Unsupported Media Type").with_empty_details()),
    }
}

fn media_type(call: &Call) -> &str {
    let media = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim()
}

/// Reads the patch of a request.
pub(super) fn read_patch(call: &Call, body: &[u8]) -> Result<Patch> {
    check_media_type(call)?;
    let reading = if call.query.get("fieldValidation") == "Ignore" { Reading::Lenient } else { Reading::Strict };
    match media_type(call) {
        "application/json-patch+json" => patch::json_patch(body, reading),
        "application/merge-patch+json" => patch::merge_patch(body, reading),
        _ => patch::strategic_patch(body),
    }
}

/// The failure of a patch that makes something of an object that is none of its type, which has a schema and names.
pub(super) fn rejected(
    patch: &Patch,
    (schema, names): (&'static Message, (&str, &str)),
    old: &Value,
    why: &str,
) -> Result<Failure> {
    let raw = api::transcode::value_to_proto(schema, old, &mut Report::default()).map_err(Failure::internal)?;
    let mut text = Vec::new();
    api::transcode::proto_to_json(schema, &raw, Some(names), &mut text).map_err(Failure::internal)?;
    Ok(rejected_text(patch, &String::from_utf8_lossy(&text), why))
}

/// The same of an object as a text.
fn rejected_text(patch: &Patch, old: &str, why: &str) -> Failure {
    let error = FieldError::invalid("patch", patch.shown(old), why);
    Failure::invalid(Subject { group: "", resource: "" }, "", &[error])
}

/// The patched object in canonical form, or why it is none.
fn decode_patched(call: &Call, patch: &Patch, old: &Value, mut patched: Value) -> Result<Value> {
    let kind = call.kind;
    let is_custom = crate::custom::is_custom(kind);
    let rejected = |why: &str| match is_custom {
        true => Ok(rejected_text(patch, &old.to_string(), why)),
        false => rejected(patch, (kind.schema(), (&kind.api_version(), kind.kind)), old, why),
    };
    if is_custom {
        super::write::check_patched_type(call, &mut patched)?;
    } else {
        if !matches!(patch.change, Change::Strategic(_)) {
            match super::write::type_complaint(&patched).or_else(|| super::write::foreign(kind, &patched)) {
                Some(why) => return Err(rejected(&why)?),
                // Of no type it has no name either.
                None if tree::text(&patched, "/apiVersion").is_empty() => same_name(call, &Value::Null)?,
                None => {}
            }
        }
        // What a strategic patch says of the type is not looked at.
        patched["apiVersion"] = kind.api_version().into();
        patched["kind"] = kind.kind.into();
    }
    let mut parsed = Parsed { value: patched, ..Parsed::default() };
    let new = match codec::canonical_request(kind, &mut parsed) {
        Ok(new) => new,
        Err(issue) if is_custom => return Err(codec::bad_field(kind, &issue)),
        Err(issue) => {
            if !matches!(patch.change, Change::Strategic(_)) {
                return Err(rejected(&codec::complaint(&issue))?);
            }
            match converted(kind, &parsed.value) {
                Ok(new) => new,
                Err(why) => return Err(rejected(&why)?),
            }
        }
    };
    match call.query.get("fieldValidation") {
        "" | "Warn" | "Strict" => {
            let unknown = super::write::complaints(call, &parsed, kind.schema())?;
            strictly(call, patch, unknown).map_or(Ok(()), |why| Err(rejected(&why)?))?;
        }
        _ => check_fields(call, &parsed, kind.schema())?,
    }
    Ok(new)
}

/// Warns of fields that a patch says twice or that are not known; or why it is refused, if the query is strict.
pub(super) fn strictly(call: &Call, patch: &Patch, mut unknown: Vec<String>) -> Option<String> {
    if matches!(patch.change, Change::Strategic(_)) {
        unknown.sort();
    }
    let complaints: Vec<String> = patch.complaints.iter().cloned().chain(unknown).collect();
    match call.query.get("fieldValidation") {
        "Strict" if !complaints.is_empty() => Some(format!("strict decoding error: {}", complaints.join(", "))),
        "" | "Warn" => {
            complaints.into_iter().for_each(|complaint| call.warn(complaint));
            None
        }
        _ => None,
    }
}

/// Server-side apply.
async fn apply_configuration(call: &Call, part: Part, body: &[u8]) -> Result<Changed> {
    let parsed = codec::parse_apply(body)?;
    let schema = crate::custom::schema_of(call);
    let target = managed::Target { kind: call.kind, part, schema: schema.as_deref() };
    let now = now_text();
    let config = if crate::custom::is_custom(call.kind) {
        match &schema {
            Some(_) => check_duplicates(call, &parsed)?,
            None => check_fields(call, &parsed, call.kind.schema())?,
        }
        custom_configuration(call, target, parsed.value)?
    } else {
        check_duplicates(call, &parsed)?;
        configuration(call, target, parsed.value)?
    };
    let applying = || Applying { config: &config, manager: call.manager(), force: call.query.flag("force"), now: &now };
    let changed = modify(call, part, |old| {
        let mut new = managed::apply(target, Some(old), &applying())?.object;
        new["metadata"]["resourceVersion"] = config
            .pointer("/metadata/resourceVersion")
            .or(old.pointer("/metadata/resourceVersion"))
            .cloned()
            .unwrap_or_default();
        let new = applied(call, (&config, Some(old)), &new)?;
        same_name(call, &new)?;
        Ok(new)
    });
    match changed.await {
        Err(failure) if failure.code() == StatusCode::NOT_FOUND && part == Part::Main => {
            let new = managed::apply(target, None, &applying())?.object;
            let new = applied(call, (&config, None), &new)?;
            same_name(call, &new)?;
            let uid = tree::text(&config, "/metadata/uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(Failure::conflict(call.subject(), &call.info.name, &why));
            }
            let created = create_object(call, new).await?;
            Ok(Changed { object: created.object, created: true })
        }
        other => other,
    }
}

/// The configuration in a body, checked against the schema.
fn configuration(call: &Call, target: managed::Target<'_>, config: Value) -> Result<Value> {
    let kind = call.kind;
    let config = if config.is_null() { Value::Object(Default::default()) } else { config };
    let (group, version) =
        tree::text(&config, "/apiVersion").rsplit_once('/').unwrap_or(("", tree::text(&config, "/apiVersion")));
    let name = tree::text(&config, "/kind");
    if (group, version, name) != (kind.group, kind.version, kind.kind) {
        return Err(Failure::bad_request(format!("invalid object type: {group}/{version}, Kind={name}")));
    }
    // What is no list of entries counts as none.
    let entries = config.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entry = codec::schema("k8s.io.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry");
    let is_entry = |value: &Value| value.is_object() && codec::misfit(entry, value).is_none();
    if entries.is_some_and(|entries| entries.iter().all(is_entry)) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    check_typed(call, target, &config)?;
    Ok(config)
}

/// Fails on what is not in the schema or has another type there.
fn check_typed(call: &Call, target: managed::Target<'_>, config: &Value) -> Result<()> {
    let Some(why) = managed::misfits(target, config) else { return Ok(()) };
    let text = format!("failed to create typed patch object ({}): {why}", in_texts(call.kind, config));
    Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text))
}

/// An applied configuration is looked at closely anyway; only what it says twice is left.
fn check_duplicates(call: &Call, parsed: &Parsed<'_>) -> Result<()> {
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

/// The configuration of a custom resource.
fn custom_configuration(call: &Call, target: managed::Target<'_>, mut config: Value) -> Result<Value> {
    if tree::has(&config, "/metadata/managedFields") {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    check_type(call, &mut config)?;
    if config["metadata"].is_null() {
        config["metadata"] = Value::Object(Default::default());
    }
    if target.schema.is_some() {
        check_typed(call, target, &config)?;
    }
    codec::declared(call.kind, &config)
}

/// An object that is applied, as error texts name it.
fn in_texts(kind: &api::Kind, config: &Value) -> String {
    let text = |pointer: &str| tree::text(config, pointer);
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}, Kind={}", go_version(kind), kind.kind)
}

/// Group and version as Go prints them within a kind: with a slash even where there is no group.
fn go_version(kind: &api::Kind) -> String {
    format!("{}/{}", kind.group, kind.version)
}

/// The canonical form of what the converter takes though the decoder does not, or why neither does.
fn converted(kind: &'static api::Kind, tree: &Value) -> std::result::Result<Value, String> {
    if let Some(why) = codec::misfit(kind.schema(), tree) {
        return Err(why);
    }
    let mut tree = tree.clone();
    codec::fit_numbers(kind.schema(), &mut tree);
    codec::try_canonical(kind, &tree, &mut Report::default()).map_err(|issue| codec::complaint(&issue))
}

/// What an apply made of `old`, in canonical form.
fn applied(call: &Call, (config, old): (&Value, Option<&Value>), new: &Value) -> Result<Value> {
    let kind = call.kind;
    match codec::try_canonical(kind, new, &mut Report::default()) {
        Ok(new) => return Ok(new),
        Err(issue) if crate::custom::is_custom(kind) => return Err(codec::bad_field(kind, &issue)),
        Err(_) => {}
    }
    converted(kind, new).map_err(|why| {
        // For managers of another version it is converted to theirs first.
        let managers = old.map_or(&[][..], |old| tree::list(old, "/metadata/managedFields"));
        let what = if managers.iter().any(|manager| manager["apiVersion"] != *kind.api_version()) {
            String::new()
        } else {
            format!(" ({}) to proper version", in_texts(kind, config))
        };
        let text = format!(
            "failed to convert new object{what}: unable to convert unstructured object to {}, Kind={}: {why}",
            go_version(kind),
            kind.kind
        );
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
    })
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
        super::options::check(call, "PatchOptions")?;
        crate::audited::patch(call, body);
        return apply_configuration(call, part, body).await;
    }
    check_media_type(call)?;
    super::options::check(call, "PatchOptions")?;
    crate::audited::patch(call, body);
    // What is not there is told before what is wrong with its patch.
    let patch = read_patch(call, body);
    modify(call, part, |old| {
        let patch = patch.as_ref().map_err(Clone::clone)?;
        let patched = patch.apply(call.kind.schema(), old)?;
        let new = decode_patched(call, patch, old, patched)?;
        same_name(call, &new)?;
        Ok(new)
    })
    .await
}
