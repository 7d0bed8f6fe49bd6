//! POST.

use http::{Response, StatusCode};
use serde_json::Value;

use super::write::{Judged, check_namespace, decode_object, stored_form, ttl};
use super::{read, subresource};
use crate::answer::Body;
use crate::app::{Call, now_text, random_suffix};
use crate::cache::{Object, Storage, store_failure};
use crate::codec::Encoded;
use crate::status::{Failure, Result};
use crate::strategy::{self, Part};
use crate::{admission, codec, managed, tree, validation};

/// Names that are tried for an object with a generateName.
const NAME_ATTEMPTS: usize = 8;

/// An object that was made.
pub struct Creation {
    /// As it is stored.
    pub object: Object,
}

pub(super) async fn create(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    if call.kind.etcd_prefix.is_empty() {
        return subresource::create_review(call, &body).await;
    }
    super::options::check(call, "CreateOptions")?;
    let mut value = decode_object(call, &body)?;
    strategy::drop_repeated_owners(call, &mut value, false);
    let created = create_object(call, value).await?;
    read::respond(call, StatusCode::CREATED, created.object).await
}

/// Makes an object out of a tree in canonical form: the whole way from defaults to the store.
pub async fn create_object(call: &Call, mut value: Value) -> Result<Creation> {
    if call.kind.namespaced && call.namespace().is_empty() {
        return Err(Failure::bad_request("an empty namespace may not be set during creation"));
    }
    check_namespace(call, &mut value)?;
    // What is only tried is told as it was sent.
    if !call.is_dry_run()? && !names_version(&value) {
        tree::remove(&mut value["metadata"], "resourceVersion");
    }
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "uid", "creationTimestamp"] {
        tree::remove(&mut value["metadata"], key);
    }
    let generated = tree::text(&value, "/metadata/name").is_empty();
    let base = tree::text(&value, "/metadata/generateName").to_owned();
    let shares_labels = strategy::shares_labels(call.kind, &value);
    crate::defaults::apply(call.kind, &mut value);
    crate::custom::check_create(call, tree::text(&value, "/metadata/name"))?;
    crate::custom::complete(call, &mut value)?;
    if !call.is_apply() {
        let schema = crate::custom::schema_of(call);
        let target = managed::Target { kind: call.kind, part: Part::Main, schema: schema.as_deref() };
        managed::track(target, None, &mut value, (call.manager(), &now_text()));
    }
    if shares_labels {
        tree::remove(&mut value["metadata"], "labels");
    }
    // What others make of a wish is still one: name, identity and status come after it.
    admission::admit(call, admission::Operation::Create, &mut value, None).await?;
    strategy::drop_repeated_owners(call, &mut value, true);
    strategy::adopt_annotations(call.kind, &mut value).into_iter().for_each(|text| call.warn(text));
    if !generated || base.is_empty() {
        return create_named(call, value).await;
    }
    for attempt in 1.. {
        let mut candidate = value.clone();
        candidate["metadata"]["name"] = generated_name(&base).into();
        match create_named(call, candidate).await {
            Err(f) if f.reason() == "AlreadyExists" && attempt < NAME_ATTEMPTS => {}
            other => return other,
        }
    }
    Err(Failure::internal("no free name was found"))
}

/// Whether an object says that it is stored already. What is no number, or 0, says nothing.
fn names_version(value: &Value) -> bool {
    tree::text(value, "/metadata/resourceVersion").parse::<u64>().is_ok_and(|version| version != 0)
}

/// Longest base that leaves room for the suffix.
const MAX_BASE: usize = 63 - SUFFIX_LEN;
const SUFFIX_LEN: usize = 5;

fn generated_name(base: &str) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix(SUFFIX_LEN))
}

async fn create_named(call: &Call, mut value: Value) -> Result<Creation> {
    strategy::prepare_create(call.kind, &mut value, &call.user, &call.app.config.features);
    if !(call.kind.plural == "services" && call.kind.group.is_empty()) {
        return finish(call, value).await;
    }
    let taken = crate::services::begin(call, &mut value, None).await?;
    let result = finish(call, value).await;
    taken.settle(call, result.is_ok()).await;
    result
}

/// Looks at an object and stores it.
async fn finish(call: &Call, mut value: Value) -> Result<Creation> {
    let storage = call.storage()?;
    let mut errors = admission::claim_errors(call, strategy::Part::Main, &value, None);
    let mut encoded = Encoded::of(storage, call.kind, &value)?;
    let meta = encoded.metadata()?;
    validation::metadata::of_new(call.kind, &meta, &mut errors);
    let told = super::write::judge_body(call, strategy::Part::Main, (&value, &encoded), None)?;
    errors.extend(told.errors);
    let name = tree::text(&value, "/metadata/name").to_owned();
    if errors.is_empty() {
        validation::metadata::of_any_new(call.kind, &meta, &mut errors);
    }
    if !errors.is_empty() {
        return Err(Failure::invalid(call.kind_subject(), &name, &errors));
    }
    for warning in told.warnings {
        call.warn(warning);
    }
    admission::check(call, admission::Operation::Create, &value, None).await?;
    if strategy::complete_new(call.kind, &mut value) {
        encoded = Encoded::of(storage, call.kind, &value)?;
    }
    store(call, storage, &name, (&value, &encoded)).await
}

async fn store(call: &Call, storage: &Storage, name: &str, made: Judged<'_>) -> Result<Creation> {
    let key = storage.store_key(call.namespace(), name);
    let exists = || {
        let failure = Failure::already_exists(call.subject(), name);
        let old = storage.get(call.namespace(), name).and_then(|old| codec::to_value(storage, call.kind, &old).ok());
        if old.is_some_and(|old| tree::has(&old, "/metadata/deletionTimestamp")) {
            return failure.prefixed("object is being deleted: ");
        }
        failure
    };
    if call.is_dry_run()? {
        if storage.get(call.namespace(), name).is_some() {
            return Err(exists());
        }
        let data = crate::custom::encode_tried(&call.app, storage, call.kind, made.0).await?;
        let object = storage.read_object(&key, 0, data).tried(true);
        return Ok(Creation { object });
    }
    if names_version(made.0) {
        // Told last, by the store: whoever may not make it at all hears that.
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text));
    }
    let data = stored_form(call, storage, made).await?;
    let written = call.app.cache.store().create(key.clone().into(), data.clone(), ttl(call)).await;
    match written.map_err(store_failure)? {
        store::WriteResult::Committed { revision } => {
            Ok(Creation { object: storage.read_object(&key, revision, data) })
        }
        store::WriteResult::Conflict { .. } => Err(exists()),
    }
}
