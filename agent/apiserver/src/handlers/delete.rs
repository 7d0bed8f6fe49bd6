//! DELETE of one object and of collections.

use std::sync::Arc;

use api::schema::Message;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{list, read};
use crate::answer::{self, Body};
use crate::app::{Call, now};
use crate::cache::{Object, Storage, store_failure};
use crate::negotiate;
use crate::request::Query;
use crate::status::{Failure, FieldError, Result, Subject};
use crate::{codec, services, strategy, tree};

/// Attempts against others who write the same object.
const MAX_ATTEMPTS: usize = 24;

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds an object gets to end by itself.
    pub grace: Option<i64>,
    /// `Orphan`, `Background`, `Foreground` or empty.
    pub propagation: String,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The version that the object must have.
    pub version: Option<String>,
    /// Whether it is only tried.
    pub dry_run: bool,
    /// Whether what depends on it is to go with it in the words of old clients, who are told when that takes time.
    pub cascades: bool,
}

/// What became of a deletion.
struct Deleted {
    object: Object,
    gone: bool,
}

impl DeleteOptions {
    fn parse(call: &Call, body: &[u8]) -> Result<Self> {
        let schema = codec::schema("k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions");
        // Where there is a body, nothing counts that the query says.
        let value = if body.is_empty() { of_query(&call.query)? } else { read_body(call, body, schema)? };
        check(&value)?;
        if !body.is_empty() {
            crate::audited::message(call, schema, &value);
        }
        let propagation = match (tree::text(&value, "/propagationPolicy"), value["orphanDependents"].as_bool()) {
            ("", Some(true)) => "Orphan",
            ("", Some(false)) => "Background",
            (policy, _) => policy,
        };
        let text = |pointer: &str| tree::at(&value, pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            grace: value["gracePeriodSeconds"].as_i64(),
            propagation: propagation.to_owned(),
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            dry_run: !tree::list(&value, "/dryRun").is_empty(),
            cascades: value["orphanDependents"] == false,
        })
    }
}

/// The options in a query. What is to be deleted there stands beside them, not below preconditions.
fn of_query(query: &Query) -> Result<Value> {
    let policy = query.has("propagationPolicy").then(|| query.get("propagationPolicy"));
    let mut options = json!({
        "gracePeriodSeconds": query.integer("gracePeriodSeconds")?,
        "propagationPolicy": policy,
        "orphanDependents": query.optional_flag("orphanDependents"),
        "dryRun": query.all("dryRun"),
    });
    for key in ["uid", "resourceVersion"].into_iter().filter(|key| !query.get(key).is_empty()) {
        options["preconditions"][key] = query.get(key).into();
    }
    Ok(options)
}

/// The options in a body.
fn read_body(call: &Call, body: &[u8], schema: &'static Message) -> Result<Value> {
    let mut value = codec::parse_body(body, negotiate::body_encoding(&call.headers)?, schema)?.value;
    if value.is_null() {
        value = Value::Object(Default::default());
    }
    if let Some(why) = super::write::type_complaint(&value) {
        return Err(Failure::bad_request(why));
    }
    check_kind(call, &value)?;
    match codec::mistyped(schema, &value) {
        None => Ok(value),
        Some(why) => Err(Failure::bad_request(why)),
    }
}

impl DeleteOptions {
    /// As a client would write them.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace {
            value["gracePeriodSeconds"] = seconds.into();
        }
        for (key, wanted) in [("uid", &self.uid), ("resourceVersion", &self.version)] {
            if let Some(wanted) = wanted {
                value["preconditions"][key] = wanted.as_str().into();
            }
        }
        if !self.propagation.is_empty() {
            value["propagationPolicy"] = self.propagation.as_str().into();
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }
}

fn check_kind(call: &Call, value: &Value) -> Result<()> {
    let kind = tree::text(value, "/kind");
    // A kind that is built in stands for options without any.
    let is_one = !call.info.name.is_empty();
    let is_known = is_one && kind == call.kind.kind && !crate::custom::is_custom(call.kind);
    if !kind.is_empty() && kind != "DeleteOptions" && !is_known {
        let version = tree::text(value, "/apiVersion");
        let api_version = if version.is_empty() { "v1" } else { version };
        return Err(Failure::bad_request(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\""
        )));
    }
    Ok(())
}

fn check(value: &Value) -> Result<()> {
    let mut errors = Vec::new();
    let policy = tree::text(value, "/propagationPolicy");
    let has_policy = value["propagationPolicy"].is_string();
    if has_policy && tree::has(value, "/orphanDependents") {
        let text = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", policy, text));
    }
    if has_policy && !matches!(policy, "Orphan" | "Background" | "Foreground") {
        let allowed = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(FieldError::not_supported("propagationPolicy", policy, &allowed));
    }
    if tree::list(value, "/dryRun").iter().any(|v| v != "All") {
        errors.push(FieldError::not_supported("dryRun", value["dryRun"].clone(), &["All"]));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(Subject { group: "meta.k8s.io", resource: "DeleteOptions" }, "", &errors))
}

/// The pods of Jobs stay, unless the client says otherwise.
fn warn_of_orphans(call: &Call, options: &DeleteOptions) {
    if options.propagation.is_empty() && call.kind.plural == "jobs" && call.kind.group == "batch" {
        call.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
             or set propagationPolicy=Orphan to suppress this warning",
        );
    }
}

pub(super) async fn delete(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let options = DeleteOptions::parse(call, &body)?;
    call.check_name()?;
    warn_of_orphans(call, &options);
    let deleted = remove_object(call, &call.info.name, &options).await?;
    if !deleted.gone || strategy::returns_deleted_object(call.kind) {
        let is_accepted = !deleted.gone && options.cascades;
        let code = if is_accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
        return read::respond(call, code, deleted.object).await;
    }
    let object = Arc::new(deleted.object);
    let value = super::write::value_of(call, call.storage()?, &object).await?;
    let mut details = json!({"name": call.info.name, "kind": call.kind.plural, "uid": value["metadata"]["uid"]});
    if !call.kind.group.is_empty() {
        details["group"] = call.kind.group.into();
    }
    answer::message(StatusCode::OK, answer::STATUS, &answer::success(details), call.accept)
}

pub(super) async fn delete_collection(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let options = DeleteOptions::parse(call, &body)?;
    let page = list::page(call).await?;
    warn_of_orphans(call, &options);
    let mut workers = call.app.config.conduct.collection_workers.max(1);
    let (mut objects, mut removals, mut first) = (page.objects.iter(), FuturesUnordered::new(), None);
    loop {
        while removals.len() < workers
            && let Some(object) = objects.next()
        {
            removals.push(remove_object(call, object.name(), &options));
        }
        match removals.next().await {
            None => break,
            // Who fails takes no further objects; the others go on, and are not left in the middle of something.
            Some(Err(failure)) if failure.code() != StatusCode::NOT_FOUND => {
                workers -= 1;
                first.get_or_insert(failure);
            }
            Some(_) => {}
        }
    }
    drop(removals);
    if let Some(failure) = first {
        return Err(failure);
    }
    list::respond(call, page)
}

/// Deletes an object, or starts its deletion. Returns whether it is gone.
pub async fn remove(call: &Call, name: &str, options: &DeleteOptions) -> Result<bool> {
    Ok(remove_object(call, name, options).await?.gone)
}

async fn remove_object(call: &Call, name: &str, options: &DeleteOptions) -> Result<Deleted> {
    let storage = call.storage()?;
    let namespace = call.namespace();
    let key = storage.store_key(namespace, name);
    let not_found = || Failure::not_found(call.subject(), name);
    let mut old = match storage.get(namespace, name) {
        Some(object) => object,
        None => super::write::from_store(call, storage, &key).await?.ok_or_else(not_found)?,
    };
    let mut from_cache = true;
    for _ in 0..MAX_ATTEMPTS {
        let value = super::write::value_of(call, storage, &old).await?;
        if let Err(failure) = check_preconditions(call, name, &value, options) {
            if !std::mem::take(&mut from_cache) {
                return Err(failure);
            }
            old = super::write::from_store(call, storage, &key).await?.ok_or_else(not_found)?;
            continue;
        }
        from_cache = false;
        crate::admission::check_delete(call, &value, options).await?;
        let mut new = value.clone();
        let begins =
            call.kind.plural == "customresourcedefinitions" && !tree::has(&value, "/metadata/deletionTimestamp");
        if begins {
            crate::custom::mark_terminating(&mut new);
        }
        let pending = begins || mark_deleted(call, &mut new, options);
        if !pending && call.kind.plural == "pods" && call.kind.group.is_empty() {
            mark_graceful(&mut new, 0);
            // That it goes was a new generation already.
            if tree::has(&value, "/metadata/deletionTimestamp") {
                tree::copy_key(&mut new["metadata"], &value["metadata"], "generation");
            }
        }
        match write(call, storage, &key, (&old, &value, pending.then_some(&new)), options.dry_run).await? {
            Step::Done(deleted) if deleted.gone => {
                // What is answered is the object as it went: pods are marked even where they need no time, and what
                // held it is told.
                tree::copy_key(&mut new["metadata"], &value["metadata"], "finalizers");
                let data = crate::custom::encode(&call.app, storage, call.kind, &new).await?;
                let object = storage.read_object(&key, deleted.object.revision, data).tried(true);
                return Ok(Deleted { object, gone: true });
            }
            Step::Done(deleted) => return Ok(deleted),
            Step::Gone => return Err(not_found()),
            Step::Raced(current) => old = current,
        }
    }
    Err(Failure::modified(call.subject(), name))
}

fn check_preconditions(call: &Call, name: &str, value: &Value, options: &DeleteOptions) -> Result<()> {
    let compare = |what: &str, wanted: Option<&String>, actual: &str| match wanted {
        Some(wanted) if wanted != actual => {
            if matches!(call.kind.plural, "namespaces" | "customresourcedefinitions") {
                let why =
                    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}");
                return Err(Failure::conflict(call.subject(), name, &why));
            }
            let rest = if what == "UID" { "deleted and then recreated" } else { "modified" };
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). \
                 The object might have been {rest}"
            );
            Err(Failure::conflict(call.kind_subject(), name, &why))
        }
        _ => Ok(()),
    };
    compare("UID", options.uid.as_ref(), tree::text(value, "/metadata/uid"))?;
    compare("ResourceVersion", options.version.as_ref(), tree::text(value, "/metadata/resourceVersion"))
}

enum Step {
    Done(Deleted),
    Gone,
    Raced(Arc<Object>),
}

/// Writes the marked object, or deletes it where there is nothing to wait for.
async fn write(
    call: &Call,
    storage: &Storage,
    key: &str,
    (old, value, marked): (&Object, &Value, Option<&Value>),
    dry_run: bool,
) -> Result<Step> {
    let store = call.app.cache.store();
    let result = match marked {
        Some(new) => {
            let data = crate::custom::encode(&call.app, storage, call.kind, new).await?;
            let done = |revision| {
                let object = storage.read_object(key, revision, data.clone()).tried(dry_run);
                Step::Done(Deleted { object, gone: false })
            };
            if dry_run || data == old.data {
                return Ok(done(old.revision));
            }
            match store.update(key.to_owned().into(), data.clone(), old.revision, None).await.map_err(store_failure)? {
                store::WriteResult::Committed { revision } => return Ok(done(revision)),
                conflict @ store::WriteResult::Conflict { .. } => conflict,
            }
        }
        None => {
            let done = |revision| Step::Done(Deleted { object: old.at_revision(revision), gone: true });
            if dry_run {
                return Ok(done(old.revision));
            }
            match store.delete(key.to_owned().into(), old.revision).await.map_err(store_failure)? {
                store::WriteResult::Committed { revision } => {
                    services::after_delete(call, value).await;
                    return Ok(done(revision));
                }
                conflict @ store::WriteResult::Conflict { .. } => conflict,
            }
        }
    };
    match result {
        store::WriteResult::Conflict { current: Some(kv), .. } => {
            Ok(Step::Raced(Arc::new(storage.read_object(key, kv.mod_revision, kv.value))))
        }
        _ => Ok(Step::Gone),
    }
}

/// Finalizers that make the garbage collector act before the object goes.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Marks the object as being deleted. Returns whether somebody has to finish before it can go.
fn mark_deleted(call: &Call, value: &mut Value, options: &DeleteOptions) -> bool {
    set_propagation(call, value, options);
    let grace = strategy::grace_period(call.kind, value, options.grace);
    let finalizers = !tree::list(value, "/metadata/finalizers").is_empty();
    let namespace = call.kind.plural == "namespaces" && !tree::list(value, "/spec/finalizers").is_empty();
    let terminating = tree::has(value, "/metadata/deletionTimestamp");
    let pending = finalizers || namespace || grace > 0;
    if !pending {
        return false;
    }
    if terminating {
        let before = tree::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        if call.kind.plural == "customresourcedefinitions" {
            value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        }
        if grace < before && options.grace.is_some() {
            value["metadata"]["deletionTimestamp"] = gone_at(grace).into();
            value["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        }
        return true;
    }
    if call.kind.plural == "customresourcedefinitions" {
        value["metadata"]["deletionTimestamp"] = crate::app::now_text().into();
        return true;
    }
    mark_graceful(value, grace);
    if call.kind.plural == "namespaces" {
        tree::remove(&mut value["metadata"], "deletionGracePeriodSeconds");
        tree::object_at(value, "status").insert("phase".into(), "Terminating".into());
    }
    true
}

/// When an object goes that has so many seconds left. Upstream counts nanoseconds in 64 bits: who has more than three
/// centuries left goes at some time.
fn gone_at(grace: i64) -> String {
    const NANOS: i64 = 1_000_000_000;
    api::time::format_seconds(now() + grace.wrapping_mul(NANOS).div_euclid(NANOS))
}

/// Sets when the object goes, which is a new generation of it.
fn mark_graceful(value: &mut Value, grace: i64) {
    value["metadata"]["deletionTimestamp"] = gone_at(grace).into();
    value["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = tree::integer(value, "/metadata/generation").filter(|g| *g > 0) {
        value["metadata"]["generation"] = (generation + 1).into();
    }
}

fn set_propagation(call: &Call, value: &mut Value, options: &DeleteOptions) {
    // Nothing depends on events.
    if call.kind.plural == "events" {
        return;
    }
    let had = |name: &str, value: &Value| tree::list(value, "/metadata/finalizers").iter().any(|f| f == name);
    let policy = match options.propagation.as_str() {
        "" if had(ORPHAN, value) => "Orphan",
        "" if had(FOREGROUND, value) => "Foreground",
        "" => strategy::default_propagation(call.kind),
        given => given,
    };
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    let others = tree::list(value, "/metadata/finalizers").iter().filter(|f| *f != ORPHAN && *f != FOREGROUND);
    let finalizers: Vec<Value> = others.cloned().chain(wanted.map(Value::from)).collect();
    if finalizers.is_empty() {
        tree::remove(&mut value["metadata"], "finalizers");
    } else {
        value["metadata"]["finalizers"] = Value::Array(finalizers);
    }
}
