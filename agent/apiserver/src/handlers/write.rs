//! What all writes share: decoding, guarded changes, answers.

use std::sync::Arc;

use api::schema::Message;
use bytes::Bytes;
use serde_json::Value;
use stdx::quoted;

use crate::app::{Call, now_text};
use crate::cache::{Object, Storage, store_failure};
use crate::codec::{self, Encoded, Parsed, Renderer, Sort};
use crate::negotiate;
use crate::services::Taken;
use crate::status::{Failure, Result};
use crate::strategy::{self, Part};
use crate::{admission, managed, tree, validation};

/// What is said of an object in another namespace than the path has.
pub(super) const OTHER_NAMESPACE: &str =
    "the namespace of the provided object does not match the namespace sent on the request";

/// How often an unconditional change is tried again when others write the same object.
const MAX_ATTEMPTS: usize = 24;

/// What became of a change.
pub struct Changed {
    /// The object after it, or its last state.
    pub object: Object,
    /// Whether it was made by the change.
    pub created: bool,
}

fn parse<'b>(call: &Call, body: &'b [u8], message: &'static Message) -> Result<Parsed<'b>> {
    let encoding = negotiate::body_encoding(&call.headers)?;
    if crate::custom::is_custom(call.kind) && encoding == negotiate::Encoding::Protobuf {
        let text = "the body of the request was in an unknown format - accepted media types include: application/json, \
                    application/yaml";
        return Err(Failure::unsupported_media_type(text));
    }
    let parsed = codec::parse_body(body, encoding, message);
    let mut parsed = parsed.map_err(|failure| {
        // An envelope that could be opened has said what it holds.
        let opened = encoding == negotiate::Encoding::Protobuf && api::envelope::view(body).is_ok();
        if opened && body.len() > 4 {
            let kind = call.kind;
            let (name, why) = (kind.kind, failure.message());
            let text = format!("{name} in version {:?} cannot be handled as a {name}: {why}", kind.version);
            return Failure::bad_request(text);
        }
        unrecognized(call.kind.kind, body, failure.message())
    })?;
    if parsed.value.is_null() {
        parsed.value = Value::Object(Default::default());
    }
    Ok(parsed)
}

/// The failure of a body that does not even say what it is.
pub(super) fn unrecognized(kind: &str, body: &[u8], why: &str) -> Failure {
    let start = &body[..body.len().min(SHOWN_BYTES)];
    let mut shown = match start.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => stdx::hex(start),
    };
    if body.len() > SHOWN_BYTES {
        shown.push_str(" ...");
    }
    Failure::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
}

/// Reads a body as an object of the request's kind, in canonical form.
///
/// Complaints come in the order of upstream: a type that is none, a kind that is another, values of the wrong type,
/// and only then unknown fields.
pub fn decode_object(call: &Call, body: &[u8]) -> Result<Value> {
    let message = call.kind.schema();
    let mut parsed = parse(call, body, message)?;
    check_type_texts(call, &parsed.value, body)?;
    if crate::custom::is_custom(call.kind) {
        check_has_kind(call, &parsed.value, body)?;
    }
    check_type(call, &mut parsed.value)?;
    let value =
        codec::canonical_request(call.kind, &mut parsed).map_err(|issue| codec::bad_field(call.kind, &issue))?;
    check_fields(call, &parsed, message)?;
    crate::audited::object(call, &value);
    Ok(value)
}

/// Most of a body that a message shows.
const SHOWN_BYTES: usize = 30;

/// The Go type that the names of an object's type are read into.
const TYPE_NAMES: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

fn check_type_texts(call: &Call, value: &Value, body: &[u8]) -> Result<()> {
    match type_complaint(value) {
        Some(why) => Err(unrecognized(call.kind.kind, body, &why)),
        None => Ok(()),
    }
}

/// A custom resource says of what kind it is: nothing else does.
fn check_has_kind(call: &Call, value: &Value, body: &[u8]) -> Result<()> {
    if !tree::text(value, "/kind").is_empty() {
        return Ok(());
    }
    let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
    if call.query.get("fieldValidation") != "Ignore" {
        return Err(unrecognized(call.kind.kind, body, &why));
    }
    let (kind, version) = (call.kind.kind, quoted(call.kind.version));
    Err(Failure::bad_request(format!("{kind} in version {version} cannot be handled as a {kind}: {why}")))
}

/// Why nobody can say of what type a body is.
pub(super) fn type_complaint(value: &Value) -> Option<String> {
    let told = |found: &Value, target: &str| {
        let found = codec::json_type(found);
        Some(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go {target}"))
    };
    if !value.is_object() {
        return told(value, &format!("value of type {TYPE_NAMES}"));
    }
    for key in ["apiVersion", "kind"] {
        if !value[key].is_null() && !value[key].is_string() {
            return told(&value[key], &format!("struct field .{key} of type string"));
        }
    }
    let version = tree::text(value, "/apiVersion");
    (version.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {version}"))
}

/// Everything strict decoding objects to.
pub fn complaints(call: &Call, parsed: &Parsed<'_>, message: &'static Message) -> Result<Vec<String>> {
    if crate::custom::is_custom(call.kind) && std::ptr::eq(message, call.kind.schema()) {
        return crate::custom::complaints(call, parsed);
    }
    Ok(parsed.complaints(message))
}

/// A complaint as warnings: what is said of YAML are several, one a line.
pub fn complaint_lines(text: &str) -> impl Iterator<Item = &str> {
    text.strip_prefix("yaml: unmarshal errors:\n  ").unwrap_or(text).split("\n  ")
}

/// Treats unknown and duplicate fields as the query says.
pub fn check_fields(call: &Call, parsed: &Parsed<'_>, message: &'static Message) -> Result<()> {
    let mode = call.query.get("fieldValidation");
    let complaints = || complaints(call, parsed, message);
    match mode {
        "Ignore" => Ok(()),
        "" | "Warn" => {
            for complaint in complaints()? {
                complaint_lines(&complaint).for_each(|line| call.warn(line));
            }
            Ok(())
        }
        "Strict" => {
            let complaints = complaints()?;
            if complaints.is_empty() {
                return Ok(());
            }
            let own = crate::custom::is_custom(call.kind) && std::ptr::eq(message, call.kind.schema());
            let kind = if own { call.kind.kind } else { message.name.rsplit('.').next().unwrap_or_default() };
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

/// Why what names its type so cannot be made one of the kind.
pub(super) fn foreign(kind: &'static api::Kind, value: &Value) -> Option<String> {
    let name = api::TypeName { group: kind.group, version: kind.version, kind: kind.kind };
    foreign_to(name, !crate::custom::is_custom(kind), value)
}

/// The same of a type, which may be one among others that are built in.
pub(super) fn foreign_to(kind: api::TypeName, is_built_in: bool, value: &Value) -> Option<String> {
    let expected = kind.api_version();
    let (version, name) = (tree::text(value, "/apiVersion"), tree::text(value, "/kind"));
    let asked = if version.is_empty() { expected.as_str() } else { version };
    let of_kind = if name.is_empty() { kind.kind } else { name };
    let known = api::known_name(asked, of_kind).or_else(|| api::known_name(asked, of_kind.strip_suffix("List")?));
    if of_kind == kind.kind && (asked == expected || known.is_some()) {
        return None;
    }
    Some(match known {
        // A kind there is, but none that this one could be made of.
        Some(other) if is_built_in => format!(
            "converting ({}.{of_kind}) to ({}.{}): unknown conversion",
            other.version,
            go_package(kind.group),
            kind.kind
        ),
        _ => format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
            quoted(of_kind),
            quoted(asked)
        ),
    })
}

/// Checks the type names of a body against the resource of the path, and fills missing ones in.
pub fn check_type(call: &Call, value: &mut Value) -> Result<()> {
    let expected = (call.kind.api_version(), call.kind.kind);
    let foreign = foreign(call.kind, value);
    let Some(map) = value.as_object_mut() else {
        return Err(Failure::bad_request("the body of the request is no object"));
    };
    let text = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (version, kind) = (text(map, "apiVersion"), text(map, "kind"));
    let asked = if version.is_empty() { &expected.0 } else { &version };
    let of_kind = if kind.is_empty() { expected.1 } else { &kind };
    if crate::custom::is_custom(call.kind) && version == expected.0 && of_kind != expected.1 {
        let kind = of_kind.to_owned();
        return Err(other_kind(call, value, &kind));
    }
    if crate::custom::is_custom(call.kind) && version != expected.0 {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            expected.0
        )));
    }
    if let Some(why) = foreign {
        let short = asked.rsplit('/').next().unwrap_or_default();
        return Err(Failure::bad_request(format!(
            "{of_kind} in version {} cannot be handled as a {}: {why}",
            quoted(short),
            expected.1
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

/// Checks the type names of a custom resource that a patch left behind.
pub(super) fn check_patched_type(call: &Call, value: &mut Value) -> Result<()> {
    let version = tree::text(value, "/apiVersion");
    if !version.is_empty() && version != call.kind.api_version() {
        let kind = tree::text(value, "/kind").to_owned();
        return Err(other_kind(call, value, &kind));
    }
    check_type(call, value)
}

/// What is said of an object of another type than the custom resource of the path: it gets no defaults.
fn other_kind(call: &Call, value: &Value, kind: &str) -> Failure {
    let mut errors = Vec::new();
    let mut compare = |field: &str, given: &str, wanted: &str| {
        if given != wanted {
            errors.push(crate::status::FieldError::invalid(field, given, format!("must be {wanted}")));
        }
    };
    compare("kind", kind, call.kind.kind);
    compare("apiVersion", tree::text(value, "/apiVersion"), &call.kind.api_version());
    match crate::custom::rule_errors(call, value) {
        Ok(found) => errors.extend(found),
        Err(failure) => return failure,
    }
    let subject = crate::status::Subject { group: call.kind.group, resource: kind };
    Failure::invalid(subject, tree::text(value, "/metadata/name"), &errors)
}

/// The Go package of a group's own types.
pub(super) fn go_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        group => group.split('.').next().unwrap_or(group),
    }
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
        return Err(Failure::bad_request(OTHER_NAMESPACE));
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
    call.check_name()?;
    let key = storage.store_key(call.namespace(), &call.info.name);
    let mut old = match storage.get(call.namespace(), &call.info.name) {
        Some(object) => object,
        None => from_store(call, storage, &key).await?.ok_or_else(|| call.not_found())?,
    };
    let mut from_cache = true;
    for _ in 0..MAX_ATTEMPTS {
        let old_value = value_of(call, storage, &old).await?;
        let attempt = async {
            let mut new = change(&old_value)?;
            check_namespace(call, &mut new)?;
            check_version(call, &new, &old)?;
            prepare(call, part, new, (&old, &old_value)).await
        };
        let Prepared { value, encoded, taken } = match attempt.await {
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
        let written = write(call, storage, &key, (&old, &value, &encoded)).await;
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

/// An object's tree in the version of the request.
pub async fn value_of(call: &Call, storage: &Storage, object: &Arc<Object>) -> Result<Value> {
    let mut shown = [object.clone()];
    crate::custom::converted(&call.app, storage, call.kind, &mut shown).await?;
    codec::to_value(storage, call.kind, &shown[0])
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

/// A successor that may be written.
struct Prepared {
    value: Value,
    encoded: Encoded,
    /// What a Service took for itself.
    taken: Taken,
}

/// Everything between the client's wish and the bytes to store.
async fn prepare(call: &Call, part: Part, mut new: Value, (stored, old): (&Object, &Value)) -> Result<Prepared> {
    crate::defaults::apply(call.kind, &mut new);
    crate::custom::complete(call, &mut new)?;
    if part != Part::Internal {
        new = codec::settled(call.kind, new);
        // Who scales is booked with the Scale.
        if !call.is_apply() && call.info.subresource != "scale" {
            let schema = crate::custom::schema_of(call);
            let target = managed::Target { kind: call.kind, part, schema: schema.as_deref() };
            managed::track(target, Some(old), &mut new, (call.manager(), &now_text()));
        }
        managed::keep_times(call.kind, old, &mut new);
    }
    // What others make of a wish is still one: what it may change is looked at afterwards.
    admission::admit(call, admission::Operation::Update(part), &mut new, Some(old)).await?;
    strategy::drop_repeated_owners(call, &mut new, true);
    strategy::prepare_update(call.kind, part, &mut new, old, &call.app.config.features);
    let mut taken = Taken::default();
    if call.kind.plural == "services" && call.kind.group.is_empty() && part == Part::Main {
        taken = crate::services::begin(call, &mut new, Some(old)).await?;
    }
    match judge(call, part, &new, (stored, old)).await {
        Ok(encoded) => Ok(Prepared { value: new, encoded, taken }),
        Err(failure) => {
            taken.settle(call, false).await;
            Err(failure)
        }
    }
}

/// Whether a successor may be written, and its message.
async fn judge(call: &Call, part: Part, new: &Value, (stored, old): (&Object, &Value)) -> Result<Encoded> {
    let storage = call.storage()?;
    let mut errors = admission::claim_errors(call, part, new, Some(old));
    let encoded = Encoded::of(storage, call.kind, new)?;
    let before = Encoded::of_stored(storage, call.kind, stored, old)?;
    validation::metadata::of_change(call.kind, part, (&encoded.metadata()?, &before.metadata()?), &mut errors);
    let told = judge_body(call, part, (new, &encoded), Some((old, &before)))?;
    // Of Jobs upstream looks at the whole before it says for the second time what changed.
    let is_job = (call.kind.group, call.kind.plural, part) == ("batch", "jobs", Part::Main);
    let at = if is_job { errors.len() / 2 } else { errors.len() };
    errors.splice(at..at, told.errors);
    if errors.is_empty() {
        errors.extend(admission::signer_error(call, part, new, old));
    }
    if !errors.is_empty() {
        return Err(Failure::invalid(call.kind_subject(), &call.info.name, &errors));
    }
    for warning in told.warnings {
        call.warn(warning);
    }
    admission::check(call, admission::Operation::Update(part), new, Some(old)).await?;
    Ok(encoded)
}

/// A tree with its message.
pub type Judged<'a> = (&'a Value, &'a Encoded);

/// What is said of all but the metadata.
pub fn judge_body(call: &Call, part: Part, new: Judged<'_>, old: Option<Judged<'_>>) -> Result<validation::Judgement> {
    let kind = call.kind;
    if part == Part::Internal {
        return Ok(validation::Judgement::default());
    }
    if validation::covers(kind) {
        let is_stored_so = std::ptr::eq(kind, call.storage()?.kind);
        let given = if is_stored_so { new.0 } else { &Value::Null };
        let objects = ((new.1.raw(), given), old.map(|(_, encoded)| encoded.raw()));
        let context = validation::Context { features: &call.app.config.features, now: crate::app::now() };
        return validation::judge(kind, part, objects, context).map_err(Failure::internal);
    }
    let (new, old) = (new.0, old.map(|(tree, _)| tree));
    let mut errors = crate::custom::all_errors(call, part, new, old)?;
    errors.iter_mut().for_each(|error| error.complete(new));
    Ok(validation::Judgement { errors, warnings: crate::custom::warnings(call, new, old) })
}

enum Written {
    Done(Changed),
    Gone,
    Raced(Arc<Object>),
}

/// The stored form of a finished object.
pub async fn stored_form(call: &Call, storage: &Storage, (value, encoded): Judged<'_>) -> Result<Bytes> {
    if crate::custom::is_custom(call.kind) {
        return crate::custom::encode(&call.app, storage, call.kind, value).await;
    }
    encoded.to_stored(storage)
}

async fn write(
    call: &Call,
    storage: &Storage,
    key: &str,
    (old, new, encoded): (&Object, &Value, &Encoded),
) -> Result<Written> {
    let data = stored_form(call, storage, (new, encoded)).await?;
    let done = |revision: i64| {
        let object = storage.read_object(key, revision, data.clone());
        Written::Done(Changed { object, created: false })
    };
    let gone = strategy::is_finished(call.kind, new);
    // What lies there encrypted in an old way is written anew, also if it says the same.
    let is_same = data == old.data && !gone;
    if is_same
        && (call.is_dry_run()? || !call.app.cache.store().is_stale(key.as_bytes()).await.map_err(store_failure)?)
    {
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
            forget_forms(call, storage, old);
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

/// Forgets how an object was shown that was replaced or is gone.
fn forget_forms(call: &Call, storage: &Storage, old: &Object) {
    let renderer = Renderer { storage, kind: call.kind, cache: &call.app.forms };
    let keys = Sort::ALL.into_iter().filter_map(|sort| renderer.key(old, sort));
    keys.for_each(|key| call.app.forms.forget(&key));
}

/// How long objects of the kind are kept, where not for ever.
#[must_use]
pub fn ttl(call: &Call) -> Option<std::time::Duration> {
    (call.kind.plural == "events").then_some(call.app.config.event_ttl)
}
