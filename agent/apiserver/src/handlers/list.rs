//! LIST: a snapshot, selected, cut into pages, written without decoding.

mod token;
mod writer;

use std::ops::Bound;
use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::read::parse_version;
use crate::answer::{self, Body};
use crate::app::Call;
use crate::cache::{Object, Objects, Selection, Storage, store_failure};
use crate::negotiate::Form;
use crate::status::{Failure, FieldError, Result, Subject};
use writer::{Pieces, Writer};

/// Objects of one page, and what its metadata says.
pub(super) struct Page {
    pub(super) objects: Vec<Arc<Object>>,
    revision: i64,
    next: Option<String>,
    remaining: Option<usize>,
}

pub(super) async fn list(call: &Call) -> Result<Response<Body>> {
    let page = page(call).await?;
    respond(call, page)
}

/// The answer with a page of objects in the form the client wants.
pub(super) fn respond(call: &Call, mut page: Page) -> Result<Response<Body>> {
    if call.accept.form == Form::Table && call.kind.plural == "flowschemas" {
        page.objects.sort_by_cached_key(|object| (precedence(object), object.name().to_owned()));
    }
    let media_type = call.accept.encoding.media_type();
    let mut writer = Writer::new(call, page)?;
    let mut out = Vec::new();
    if writer.fill(answer::COMPRESS_ABOVE, &mut out)? {
        let is_packed = answer::accepts_gzip(&call.headers);
        let body = Pieces::new(writer, out, is_packed).boxed_unsync();
        return Ok(answer::large(StatusCode::OK, media_type, body, is_packed));
    }
    Ok(answer::compress(&call.headers, StatusCode::OK, media_type, out))
}

/// Those who read a table of FlowSchemas want to see which of them comes first.
fn precedence(object: &Object) -> i32 {
    let schema = api::envelope::decode_message::<api::flowcontrol::v1::FlowSchema>(&object.data);
    schema.map_or(i32::MAX, |schema| schema.spec.matching_precedence)
}

/// The selection of a list, watch or deletion of a collection.
pub(super) fn selection(call: &Call, storage: &Storage) -> Result<Selection> {
    let mut fields = storage.indexed();
    if let Some(definition) = storage.definition() {
        // Another version's fields keep their places, without a name to find them by.
        let own = definition.version(call.kind.version).map_or(&[][..], |v| v.selectable.as_slice());
        fields.iter_mut().filter(|f| !own.contains(f)).for_each(|f| *f = "");
    }
    let mut wanted = call.query.get("fieldSelector").to_owned();
    // What the old form of a watch names is selected like any other; who may watch that, may watch nothing else.
    if call.info.is_old_watch && !call.info.name.is_empty() {
        if wanted.is_empty() {
            wanted = format!("metadata.name={}", call.info.name);
        } else if crate::fields::exact(&wanted, "metadata.name").as_ref() != Some(&call.info.name) {
            return Err(Failure::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
    }
    Selection::parse(call.query.get("labelSelector"), &wanted, call.kind, &fields)
}

/// The objects that a query asks for.
pub(super) async fn page(call: &Call) -> Result<Page> {
    let storage = call.storage()?;
    call.query.integer("timeoutSeconds")?;
    let limit = call.query.integer("limit")?.and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
    check_options(call)?;
    let selection = selection(call, storage)?;
    let prefix = if call.namespace().is_empty() { String::new() } else { format!("{}/", call.namespace()) };
    let token = call.query.get("continue");
    // What is there anyway is answered whole. Events are read from the store, a page at a time.
    let is_cached = call.query.get("resourceVersion") == "0" && call.kind.plural != "events";
    let limit = if is_cached { 0 } else { limit };
    let (objects, revision, start) = if token.is_empty() {
        let (objects, revision) = snapshot(call, storage, limit).await?;
        (objects, revision, prefix.clone())
    } else {
        resume(call, storage, token, &prefix).await?
    };
    let objects = if selection.looks_inside() { in_version(call, storage, objects).await? } else { objects };
    let mut page = Page { objects: Vec::new(), revision, next: None, remaining: None };
    let mut range = objects
        .range::<_, str>((Bound::Included(start.as_str()), Bound::Unbounded))
        .map(|(_, o)| o)
        .take_while(|o| o.key.starts_with(&prefix));
    let single = selection.single_name();
    let mut looked_at = 0;
    while let Some(object) = range.next() {
        looked_at += 1;
        if limit > 0 && page.objects.len() == limit {
            if let Some(last) = page.objects.last() {
                // Events are read from the store, whose tokens have no slash in front.
                let slash = if call.kind.plural == "events" { "" } else { "/" };
                page.next = Some(token::encode(revision, &format!("{slash}{}", &last.key[prefix.len()..])));
            }
            page.remaining = selection.is_all().then(|| range.count() + 1);
            storage.keep_snapshot(revision, objects.clone());
            break;
        }
        if single.is_some_and(|name| object.name() != name) || !selection.matches(object) {
            continue;
        }
        page.objects.push(object.clone());
    }
    call.app.metrics.kinds.listed(call.kind, looked_at, page.objects.len());
    crate::custom::converted(&call.app, storage, call.kind, &mut page.objects).await?;
    Ok(page)
}

/// All objects as the version of the request has them: what fields hold may depend on it.
pub(super) async fn in_version(call: &Call, storage: &Storage, objects: Objects) -> Result<Objects> {
    if storage.definition().is_none_or(|d| d.conversion.is_none()) {
        return Ok(objects);
    }
    let mut all: Vec<Arc<Object>> = objects.values().cloned().collect();
    crate::custom::converted(&call.app, storage, call.kind, &mut all).await?;
    Ok(all.into_iter().map(|o| (o.key.clone(), o)).collect())
}

/// The objects and the revision that a query without token asks for.
async fn snapshot(call: &Call, storage: &Storage, limit: usize) -> Result<(Objects, i64)> {
    let (version, rule) = (call.query.get("resourceVersion"), call.query.get("resourceVersionMatch"));
    let bad_version =
        |failure: Failure| Failure::bad_request(format!("invalid resource version: {}", failure.message()));
    let cache = &call.app.cache;
    let wanted = match version {
        "" => cache.fresh().await?,
        "0" => cache.revision(),
        // A page of a version is of that very version.
        text if rule == "Exact" || rule.is_empty() && limit > 0 => {
            return exact(call, storage, parse_version(text).map_err(bad_version)?).await;
        }
        text => {
            let waited = cache.wait_for(parse_version(text).map_err(bad_version)?).await;
            // Events are read from the store, which does not know when to come again.
            waited.map_err(|failure| if call.kind.plural == "events" { failure.without_retry() } else { failure })?
        }
    };
    let (objects, newest) = storage.snapshot_and_cursor();
    Ok((objects, wanted.max(newest)))
}

/// Checks which version is asked for, and that nothing is asked for that only watches have.
fn check_options(call: &Call) -> Result<()> {
    let (version, rule) = (call.query.get("resourceVersion"), call.query.get("resourceVersionMatch"));
    let mut errors = Vec::new();
    let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
    let field = "resourceVersionMatch";
    if !rule.is_empty() && version.is_empty() {
        forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if !rule.is_empty() && !call.query.get("continue").is_empty() {
        forbid(field, "resourceVersionMatch is forbidden when continue is provided");
    }
    match (version, rule) {
        (_, "" | "NotOlderThan") => {}
        ("0", "Exact") => forbid(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        (_, "Exact") => {}
        (_, other) => errors.push(FieldError::not_supported(field, other, &["Exact", "NotOlderThan", ""])),
    }
    if call.query.has("sendInitialEvents") {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(Subject { group: "meta.k8s.io", resource: "ListOptions" }, "", &errors))
}

/// The objects exactly as they were at a revision.
async fn exact(call: &Call, storage: &Storage, revision: i64) -> Result<(Objects, i64)> {
    call.app.cache.wait_for(revision).await?;
    let (objects, newest) = storage.snapshot_and_cursor();
    let known = if newest <= revision { Some(objects) } else { storage.kept_snapshot(revision) };
    if let Some(objects) = known {
        // What was compacted has ended for clients, also where it is known still: any server answers alike.
        call.app.cache.store().get(storage.prefix.as_bytes(), Some(revision)).await.map_err(store_failure)?;
        return Ok((objects, revision));
    }
    let objects = past(call.app.cache.store(), storage, revision).await.map_err(store_failure)?;
    Ok((objects, revision))
}

/// Keys per page of what is read from the store.
const PAST_PAGE: usize = 500;

/// The objects as they were at a revision, read from the store. Those that are the same now are not kept twice.
async fn past(store: &dyn store::Store, storage: &Storage, revision: i64) -> store::Result<Objects> {
    let now = storage.snapshot();
    let mut past = Objects::new();
    let mut request = store::RangeRequest::prefix(storage.prefix.clone()).at(revision).limit(PAST_PAGE);
    loop {
        let page = store.range(request.clone()).await?;
        if let Some(last) = page.kvs.last() {
            request.start = [&last.key[..], &[0]].concat().into();
        }
        for kv in page.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let below = key.strip_prefix(&storage.prefix).unwrap_or(&key);
            let known = now.get(below).filter(|object| object.revision == kv.mod_revision).cloned();
            let object = known.unwrap_or_else(|| Arc::new(storage.read_object(&key, kv.mod_revision, kv.value)));
            past.insert(object.key.clone(), object);
        }
        if !page.more {
            return Ok(past);
        }
    }
}

async fn resume(call: &Call, storage: &Storage, token: &str, prefix: &str) -> Result<(Objects, i64, String)> {
    let version = call.query.get("resourceVersion");
    if !version.is_empty() && version != "0" {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    let token = token::parse(token)?;
    let start = format!("{prefix}{}", token.start.trim_start_matches('/'));
    if token.rv < 0 {
        let (objects, newest) = storage.snapshot_and_cursor();
        return Ok((objects, call.app.cache.revision().max(newest), start));
    }
    match exact(call, storage, token.rv).await {
        Ok((objects, revision)) => Ok((objects, revision, start)),
        Err(failure) if failure.reason() == "Expired" => {
            let text = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
                        without the continue parameter, or use the continue token in this response to retrieve the remainder of \
                        the results. Continuing with the provided token results in an inconsistent list - objects that were \
                        created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
            let last = token.start.trim_end_matches('\0');
            Err(Failure::expired(text).with_continue(token::encode(token::NOW, last)))
        }
        Err(failure) => Err(failure),
    }
}

impl Page {
    /// The list's metadata as JSON text, in the order of its fields.
    fn metadata_text(&self) -> String {
        let mut text = format!(r#"{{"resourceVersion":"{}""#, self.revision);
        if let Some(next) = &self.next {
            text.push_str(&format!(r#","continue":"{next}""#));
        }
        if let Some(remaining) = self.remaining {
            text.push_str(&format!(r#","remainingItemCount":{remaining}"#));
        }
        text.push('}');
        text
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}
