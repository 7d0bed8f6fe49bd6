//! What all writes share: decoding, guarded changes, answers.

use std::sync::Arc;

use api::schema::Message;
use serde_json::Value;
use stdx::quoted;

use crate::app::{Call, now_text};
use crate::cache::{Object, Storage, store_failure};
use crate::codec::{self, Parsed};
use crate::negotiate;
use crate::services::Taken;
use crate::status::{Failure, Result};
use crate::strategy::{self, Part};
use crate::{admission, managed, tree, validation};

/// How often an unconditional change is tried again when others write the same object.
const MAX_ATTEMPTS: usize = 24;

/// What became of a change.
pub struct Changed {
    /// The object after it, or its last state.
    pub object: Object,
    /// Whether it was made by the change.
    pub created: bool,
}

fn parse(call: &Call, body: &[u8], message: &'static Message) -> Result<Parsed> {
    let encoding = negotiate::body_encoding(&call.headers)?;
    if body.is_empty() {
        return Err(Failure::bad_request("unexpected end of JSON input"));
    }
    if crate::custom::is_custom(call.kind) && encoding == negotiate::Encoding::Protobuf {
        let text = "the body of the request was in an unknown format - accepted media types include: application/json, \
                    application/yaml";
        return Err(Failure::unsupported_media_type(text));
    }
    codec::parse_body(body, encoding, message)
}

/// Reads a body as an object of the request's kind, in canonical form.
///
/// Complaints come in the order of upstream: a type that is none, a kind that is another, values of the wrong type,
/// and only then unknown fields.
pub fn decode_object(call: &Call, body: &[u8]) -> Result<Value> {
    let message = call.kind.schema();
    let mut parsed = parse(call, body, message)?;
    check_type_texts(call, &parsed.value, body)?;
    check_type(call, &mut parsed.value)?;
    let value = codec::canonical_request(call.kind, &parsed.value)?;
    check_fields(call, &parsed, message)?;
    Ok(value)
}

/// Most of a body that a message shows.
const SHOWN_BYTES: usize = 30;

fn check_type_texts(call: &Call, value: &Value, body: &[u8]) -> Result<()> {
    for key in ["apiVersion", "kind"] {
        let found = match &value[key] {
            Value::Null | Value::String(_) => continue,
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let start = &body[..body.len().min(SHOWN_BYTES)];
        let mut shown = match start.first() {
            Some(b'{') => String::from_utf8_lossy(start).into_owned(),
            _ => start.iter().map(|b| format!("{b:02x}")).collect(),
        };
        if body.len() > SHOWN_BYTES {
            shown.push_str(" ...");
        }
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: \
             json: cannot unmarshal {found} into Go struct field .{key} of type string ({shown})",
            call.kind.kind
        )));
    }
    Ok(())
}

/// Treats unknown and duplicate fields as the query says.
pub fn check_fields(call: &Call, parsed: &Parsed, message: &'static Message) -> Result<()> {
    let mode = call.query.get("fieldValidation");
    let complaints = || -> Result<Vec<String>> {
        if crate::custom::is_custom(call.kind) && std::ptr::eq(message, call.kind.schema()) {
            return crate::custom::complaints(call, parsed);
        }
        Ok(parsed.complaints(message))
    };
    match mode {
        "Ignore" => Ok(()),
        "" | "Warn" => {
            for complaint in complaints()? {
                call.warn(complaint);
            }
            Ok(())
        }
        "Strict" => {
            let complaints = complaints()?;
            if crate::custom::is_custom(call.kind) && !complaints.is_empty() {
                return Err(Failure::bad_request(format!("strict decoding error: {}", complaints.join(", "))));
            }
            if complaints.is_empty() {
                return Ok(());
            }
            let kind = message.name.rsplit('.').next().unwrap_or_default();
            Err(Failure::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                call.kind.version,
                complaints.join(", ")
            )))
        }
        other => Err(Failure::invalid(
            crate::status::Subject { group: "meta.k8s.io", resource: "CreateOptions" },
            "",
            &[crate::status::FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"])],
        )),
    }
}

/// Checks the type names of a body against the resource of the path, and fills missing ones in.
pub fn check_type(call: &Call, value: &mut Value) -> Result<()> {
    let expected = (call.kind.api_version(), call.kind.kind);
    let Some(map) = value.as_object_mut() else {
        return Err(Failure::bad_request("the body of the request is no object"));
    };
    let text = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (version, kind) = (text(map, "apiVersion"), text(map, "kind"));
    let asked = if version.is_empty() { &expected.0 } else { &version };
    let of_kind = if kind.is_empty() { expected.1 } else { &kind };
    if *asked != expected.0 && api::kind_by_name(asked, of_kind).is_none() || of_kind != expected.1 {
        let short = asked.rsplit('/').next().unwrap_or_default();
        return Err(Failure::bad_request(format!(
            "{of_kind} in version {} cannot be handled as a {}: no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            quoted(short),
            expected.1,
            quoted(of_kind),
            quoted(asked)
        )));
    }
    if !version.is_empty() && version != expected.0 {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            expected.0
        )));
    }
    map.insert("apiVersion".into(), expected.0.into());
    map.insert("kind".into(), expected.1.into());
    Ok(())
}

/// Checks the namespace of a body against the one in the path.
pub fn check_namespace(call: &Call, value: &mut Value) -> Result<()> {
    let meta = tree::object_at(value, "metadata");
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !call.kind.namespaced {
        meta.remove("namespace");
        return Ok(());
    }
    let own = call.namespace();
    if given.is_empty() {
        meta.insert("namespace".into(), own.into());
    } else if given != own {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Changes an object as [`modify`] does, by a change that need not leave it in canonical form.
pub async fn modify_tree(call: &Call, part: Part, change: impl Fn(&Value) -> Result<Value>) -> Result<Changed> {
    modify(call, part, |old| codec::canonical(call.kind, &change(old)?)).await
}

/// Changes an object: reads it, lets `change` make its successor, and writes that unless somebody else was faster, in
/// which case it starts over. The successor is in canonical form. A successor that names a resource version is only written over that very version.
pub async fn modify(call: &Call, part: Part, change: impl Fn(&Value) -> Result<Value>) -> Result<Changed> {
    let storage = call.storage()?;
    let key = storage.store_key(call.namespace(), &call.info.name);
    let mut old = match storage.get(call.namespace(), &call.info.name) {
        Some(object) => object,
        None => from_store(call, storage, &key).await?.ok_or_else(|| call.not_found())?,
    };
    let mut from_cache = true;
    for _ in 0..MAX_ATTEMPTS {
        let old_value = codec::to_value(storage, call.kind, &old)?;
        let attempt = async {
            let new = change(&old_value)?;
            check_version(call, &new, &old)?;
            prepare(call, part, new, &old_value).await
        };
        let (new, taken) = match attempt.await {
            // What the cache shows may be a moment old: judge by what the store holds.
            Err(failure) if from_cache && failure.code() != http::StatusCode::NOT_FOUND => {
                from_cache = false;
                let stored = from_store(call, storage, &key).await?.ok_or_else(|| call.not_found())?;
                if stored.revision == old.revision {
                    return Err(failure);
                }
                old = stored;
                continue;
            }
            other => other?,
        };
        let written = write(call, storage, &key, (&old, &new)).await;
        taken.settle(call, matches!(written, Ok(Written::Done(_)))).await;
        match written? {
            Written::Done(changed) => return Ok(changed),
            Written::Gone => return Err(call.not_found()),
            Written::Raced(current) => old = current,
        }
        from_cache = false;
    }
    Err(Failure::modified(call.subject(), &call.info.name))
}

/// The object as the store holds it.
pub async fn from_store(call: &Call, storage: &Storage, key: &str) -> Result<Option<Arc<Object>>> {
    let result = call.app.cache.store().get(key.as_bytes(), None).await.map_err(store_failure)?;
    Ok(result.kv.map(|kv| Arc::new(storage.read_object(key, kv.mod_revision, kv.value))))
}

fn check_version(call: &Call, new: &Value, old: &Object) -> Result<()> {
    let given = tree::text(new, "/metadata/resourceVersion");
    if given.is_empty() || given == "0" && call.kind.plural != "leases" {
        if !strategy::allows_unconditional_update(call.kind) {
            let error =
                crate::status::FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(Failure::invalid(call.subject(), &call.info.name, &[error]));
        }
        return Ok(());
    }
    if let Some(why) = bad_number(given) {
        let text = format!("strconv.ParseUint: parsing {}: {why}", quoted(given));
        return Err(Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text));
    }
    if given == old.revision.to_string() { Ok(()) } else { Err(Failure::modified(call.subject(), &call.info.name)) }
}

/// Why a text is no version.
fn bad_number(text: &str) -> Option<&'static str> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Some("invalid syntax");
    }
    text.parse::<u64>().is_err().then_some("value out of range")
}

/// Everything between the client's wish and the bytes to store.
async fn prepare(call: &Call, part: Part, mut new: Value, old: &Value) -> Result<(Value, Taken)> {
    check_namespace(call, &mut new)?;
    crate::defaults::apply(call.kind, &mut new);
    crate::custom::complete(call, &mut new)?;
    if part != Part::Internal {
        if !call.is_apply() {
            managed::track(call.kind, part, Some(old), &mut new, (call.manager(), &now_text()));
        }
        managed::keep_times(old, &mut new);
    }
    strategy::prepare_update(call.kind, part, &mut new, old)?;
    admission::admit(call, admission::Operation::Update(part), &mut new, Some(old)).await?;
    strategy::drop_repeated_owners(call, &mut new, true);
    let mut taken = Taken::default();
    if call.kind.plural == "services" && call.kind.group.is_empty() && part == Part::Main {
        taken = crate::services::begin(call, &mut new, Some(old)).await?;
    }
    match judge(call, part, &new, old).await {
        Ok(()) => Ok((new, taken)),
        Err(failure) => {
            taken.settle(call, false).await;
            Err(failure)
        }
    }
}

/// Whether a successor may be written.
async fn judge(call: &Call, part: Part, new: &Value, old: &Value) -> Result<()> {
    let mut errors = validation::Errors::new();
    let metas = (&validation::metadata::of(new)?, &validation::metadata::of(old)?);
    validation::metadata::of_change(call.kind, part, metas, &mut errors);
    let told = judge_body(call, part, new, Some(old))?;
    errors.extend(told.errors);
    if !errors.is_empty() {
        return Err(Failure::invalid(call.kind_subject(), &call.info.name, &errors));
    }
    for warning in told.warnings {
        call.warn(warning);
    }
    admission::check(call, admission::Operation::Update(part), new, Some(old)).await
}

/// What is said of all but the metadata.
pub fn judge_body(call: &Call, part: Part, new: &Value, old: Option<&Value>) -> Result<validation::Judgement> {
    let kind = call.kind;
    if part == Part::Internal {
        return Ok(validation::Judgement::default());
    }
    if validation::covers(kind) {
        let storage = call.storage()?;
        return validation::judge(kind, part, (new, old), |tree| codec::to_stored_proto(storage, kind, tree));
    }
    let mut errors = strategy::validate(kind, new);
    errors.extend(crate::custom::all_errors(call, new)?);
    Ok(validation::Judgement { errors, warnings: Vec::new() })
}

enum Written {
    Done(Changed),
    Gone,
    Raced(Arc<Object>),
}

async fn write(call: &Call, storage: &Storage, key: &str, (old, new): (&Object, &Value)) -> Result<Written> {
    let data = codec::to_stored(storage, call.kind, new)?;
    let done = |revision: i64| {
        let object = storage.read_object(key, revision, data.clone());
        Written::Done(Changed { object, created: false })
    };
    let gone = strategy::is_finished(call.kind, new);
    if data == old.data && !gone {
        return Ok(done(old.revision));
    }
    if call.is_dry_run()? {
        let object = storage.read_object(key, old.revision, data).tried(true);
        return Ok(Written::Done(Changed { object, created: false }));
    }
    let store = call.app.cache.store();
    let result = if gone {
        store.delete(key.to_owned().into(), old.revision).await
    } else {
        store.update(key.to_owned().into(), data.clone(), old.revision, ttl(call)).await
    };
    match result.map_err(store_failure)? {
        store::WriteResult::Committed { revision } => {
            if gone {
                crate::services::after_delete(call, new).await;
            }
            if gone {
                // An object that goes with its last finalizer is answered with the version it had.
                let object = storage.read_object(key, old.revision, data.clone()).tried(true);
                return Ok(Written::Done(Changed { object, created: false }));
            }
            Ok(done(revision))
        }
        store::WriteResult::Conflict { current: None, .. } => Ok(Written::Gone),
        store::WriteResult::Conflict { current: Some(kv), .. } => {
            Ok(Written::Raced(Arc::new(storage.read_object(key, kv.mod_revision, kv.value))))
        }
    }
}

/// How long objects of the kind are kept, where not for ever.
#[must_use]
pub fn ttl(call: &Call) -> Option<std::time::Duration> {
    (call.kind.plural == "events").then_some(call.app.config.event_ttl)
}
