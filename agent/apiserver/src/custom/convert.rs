//! Conversion of custom resources between versions by a webhook.
//!
//! ```text
//!  stored objects ─▶ those of another version, not converted before ─▶ one review ─▶ checked, metadata restored
//! ```
//! What is read or watched is converted before it is rendered, and what is written before it is stored, so that
//! everything else sees objects of one version only. A webhook may change labels and annotations, nothing else of the
//! metadata.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Conversion, Definition, coerce, refresh};
use crate::admission::WebhookClient;
use crate::app::{App, Call};
use crate::cache::{Object, Storage};
use crate::codec::{self, go_type};
use crate::status::{Failure, Result};
use crate::tree;

/// How long a webhook may take.
const SECONDS: u64 = 30;
/// Bytes of converted objects that are kept for reading again.
const CACHE_BYTES: usize = 8 << 20;

/// Storage, version, revision and key of an object.
type Key = (usize, &'static str, i64, Arc<str>);

/// Objects that were converted before, oldest out first.
#[derive(Default)]
pub struct Converted(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// With the definition that was in force.
    objects: HashMap<Key, (std::sync::Weak<Definition>, Arc<Object>)>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Converted {
    fn get(&self, key: &Key, definition: &Arc<Definition>) -> Option<Arc<Object>> {
        let kept = self.0.lock();
        let (by, object) = kept.objects.get(key)?;
        std::ptr::eq(by.as_ptr(), Arc::as_ptr(definition)).then(|| object.clone())
    }

    fn put(&self, key: Key, definition: &Arc<Definition>, object: &Arc<Object>) {
        let mut kept = self.0.lock();
        kept.bytes += object.size();
        match kept.objects.insert(key.clone(), (Arc::downgrade(definition), object.clone())) {
            Some((_, old)) => kept.bytes -= old.size(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > CACHE_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some((_, old)) = kept.objects.remove(&oldest) {
                kept.bytes -= old.size();
            }
        }
    }
}

/// Whether a tree is an object, and not a bookmark that only has the shape of one.
pub(super) fn is_object(value: &Value) -> bool {
    tree::has(value, "/metadata/uid") || tree::has(value, "/metadata/name")
}

/// Whether stored bytes are of a version. Keys are stored in order, and this one is the first.
fn is_of(data: &[u8], api_version: &str) -> bool {
    let rest = data.strip_prefix(b"{\"apiVersion\":\"").and_then(|r| r.strip_prefix(api_version.as_bytes()));
    rest.is_some_and(|r| r.starts_with(b"\""))
}

/// The objects in the version of `kind`: those stored in another one are converted, all of them by one review.
pub async fn converted(app: &Arc<App>, storage: &Storage, kind: &Kind, objects: &mut [Arc<Object>]) -> Result<()> {
    let Some(definition) = storage.definition().filter(|d| d.conversion.is_some()) else { return Ok(()) };
    let Some(version) = definition.version(kind.version) else { return Ok(()) };
    let wanted = kind.api_version();
    let key_of = |o: &Object| (storage.index, version.kind.version, o.revision, o.key.clone());
    let mut missing = Vec::new();
    let mut values = Vec::new();
    for (at, slot) in objects.iter_mut().enumerate().filter(|(_, o)| !is_of(&o.data, &wanted)) {
        if let Some(known) = app.custom.converted.get(&key_of(slot), &definition).filter(|_| !slot.dry) {
            *slot = known;
            continue;
        }
        let mut value: Value = serde_json::from_slice(&slot.data).map_err(Failure::internal)?;
        if let Some(stored) = definition.any_version(tree::text(&value, "/apiVersion")) {
            refresh(stored, &mut value);
        }
        missing.push(at);
        values.push(value);
    }
    let done = convert(app, &definition, &wanted, values).await?;
    for (at, value) in missing.into_iter().zip(done) {
        let old = &objects[at];
        let data = serde_json::to_vec(&value).map_err(Failure::internal)?;
        let object = Arc::new(storage.read_object(&old.key, old.revision, data.into()).tried(old.dry).by_webhook());
        if !old.dry {
            app.custom.converted.put(key_of(old), &definition, &object);
        }
        objects[at] = object;
    }
    Ok(())
}

/// The stored form of an object in the version of `kind`.
pub async fn encode(app: &Arc<App>, storage: &Storage, kind: &Kind, value: &Value) -> Result<Bytes> {
    let definition = storage.definition().filter(|d| d.conversion.is_some() && d.stored != kind.version);
    let Some(definition) = definition else { return codec::to_stored(storage, kind, value) };
    let stored = definition.stored_api_version();
    let version = definition.any_version(&stored).ok_or_else(Failure::no_such_path)?;
    let mut value = value.clone();
    tree::remove(&mut value["metadata"], "resourceVersion");
    value["apiVersion"] = kind.api_version().into();
    let mut done = convert(app, &definition, &stored, vec![value]).await?.pop().unwrap_or_default();
    super::prune(version.schema.get(), &mut done, &mut api::transcode::Report::default());
    codec::to_stored(storage, version.kind, &done)
}

/// The stored form of an object that is only tried.
pub async fn encode_tried(app: &Arc<App>, storage: &Storage, kind: &Kind, value: &Value) -> Result<Bytes> {
    if storage.definition().is_some_and(|d| d.conversion.is_some() && d.stored != kind.version) {
        return encode(app, storage, kind, value).await;
    }
    codec::to_tried(storage, kind, value.clone())
}

/// Objects of one version of a kind in another, for those who want to see them so; in their order.
pub async fn in_version(call: &Call, (from, to): (&Kind, &'static Kind), objects: Vec<Value>) -> Result<Vec<Value>> {
    let storage = call.storage()?;
    let Some(definition) = storage.definition().filter(|_| super::is_custom(to)) else {
        return objects.into_iter().map(|object| codec::in_version(storage, (from, to), object)).collect();
    };
    let wanted = to.api_version();
    let mut done = convert(&call.app, &definition, &wanted, objects).await?;
    for object in &mut done {
        object["apiVersion"] = wanted.as_str().into();
    }
    Ok(done)
}

/// Converts objects to a version, in their order.
async fn convert(app: &Arc<App>, definition: &Definition, wanted: &str, objects: Vec<Value>) -> Result<Vec<Value>> {
    let (Some(conversion), Some(first)) = (&definition.conversion, objects.first()) else { return Ok(objects) };
    let (api_version, kind) = (tree::text(first, "/apiVersion"), tree::text(first, "/kind"));
    let about = format!("conversion webhook for {api_version}, Kind={kind}");
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(conversion, &objects, wanted, &uid).map_err(failure)?;
    let client = WebhookClient { app, config: &conversion.client, seconds: SECONDS };
    let answer = client.post(&review).await.map_err(|text| {
        let text = text.strip_prefix("failed to call webhook: ").unwrap_or(&text).to_owned();
        failure(format!("{about} failed: {text}"))
    })?;
    let is_v1 = review["apiVersion"] == "apiextensions.k8s.io/v1";
    let done =
        answers(answer, is_v1.then_some(uid.as_str())).map_err(|why| failure(format!("{about} failed: {why}")))?;
    if done.len() != objects.len() {
        let text = format!("{about} returned {} objects, expected {}", done.len(), objects.len());
        return Err(failure(text));
    }
    let pairs = objects.iter().zip(done);
    pairs
        .map(|(old, new)| accepted(old, new, wanted).map_err(|why| failure(format!("{about} returned {why}"))))
        .collect()
}

fn failure(text: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

/// The first kind of review that both sides understand.
fn review(conversion: &Conversion, objects: &[Value], wanted: &str, uid: &str) -> std::result::Result<Value, String> {
    let version = conversion.reviews.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
    let version = version.ok_or_else(|| "no supported conversion review versions".to_owned())?;
    Ok(json!({
        "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        "response": null,
    }))
}

/// The objects of an answer. `uid` is the one that an answer of this kind has to repeat.
fn answers(mut answer: Value, uid: Option<&str>) -> std::result::Result<Vec<Value>, String> {
    if uid.is_some() {
        let (group_version, kind) = (tree::text(&answer, "/apiVersion"), tree::text(&answer, "/kind"));
        if (group_version, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
            return Err(format!("expected webhook response of {expected}, got {group_version}, Kind={kind}"));
        }
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let given = tree::text(response, "/uid");
    if let Some(uid) = uid.filter(|uid| *uid != given) {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    match (tree::text(response, "/result/status"), tree::text(response, "/result/message")) {
        ("Success", _) => {}
        (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => return Err(message.to_owned()),
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Checks a converted object against the one it was, and gives it that one's metadata.
fn accepted(old: &Value, mut new: Value, wanted: &str) -> std::result::Result<Value, String> {
    let at = "invalid object at index 0";
    let given = tree::text(&new, "/apiVersion");
    if given != wanted {
        return Err(format!("{at}: invalid groupVersion (expected {wanted}, received {given})"));
    }
    let (kind, given) = (tree::text(old, "/kind"), tree::text(&new, "/kind"));
    if kind != given {
        return Err(format!("{at}: invalid kind (expected {kind}, received {given})"));
    }
    for (pointer, what) in [("/metadata/name", "name"), ("/metadata/namespace", "namespace"), ("/metadata/uid", "UID")]
    {
        let (before, after) = (tree::text(old, pointer), tree::text(&new, pointer));
        if before != after {
            return Err(format!("invalid object: must have the same {what}: {before} != {after}"));
        }
    }
    let metadata = |why: &str| format!("invalid metadata: {why}");
    let given = match new.get("metadata") {
        None => return Err(metadata("missing metadata in converted object")),
        Some(Value::Object(map)) => map.clone(),
        Some(other) => {
            return Err(metadata(&format!("invalid metadata of type {} in converted object", go_type(other))));
        }
    };
    let mut kept = old["metadata"].clone();
    for key in ["labels", "annotations"] {
        match given.get(key).filter(|v| !v.is_null()) {
            None => tree::remove(&mut kept, key),
            Some(value @ Value::Object(map)) => {
                if let Some((k, v)) = map.iter().find(|(_, v)| !v.is_string()) {
                    let why =
                        format!("metadata.{key}[{k}] must be a string, but is {} in converted object", go_type(v));
                    return Err(metadata(&why));
                }
                kept[key] = value.clone();
            }
            Some(other) => {
                let why = format!("invalid metadata.{key} of type {} in converted object", go_type(other));
                return Err(metadata(&why));
            }
        }
    }
    let errors = super::invariants::meta_errors(
        &json!({"metadata": {"labels": kept["labels"], "annotations": kept["annotations"]}}),
    );
    if let Some(error) = errors.first().filter(|_| {
        kept["labels"] != old["metadata"]["labels"] || kept["annotations"] != old["metadata"]["annotations"]
    }) {
        return Err(metadata(&error.to_string()));
    }
    new["metadata"] = kept;
    coerce::metadata(&mut new, "", &mut api::transcode::Report::default()).ok();
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> Value {
        json!({"apiVersion": format!("a.b/{version}"), "kind": "Foo",
            "metadata": {"name": "x", "uid": "1", "labels": {"a": "b"}, "generation": 3}, "spec": {}})
    }

    #[test]
    fn a_webhook_changes_labels_but_no_other_metadata() {
        let mut new = object("v2");
        new["metadata"]["labels"] = json!({"c": "d"});
        new["metadata"]["generation"] = 9.into();
        let done = accepted(&object("v1"), new, "a.b/v2").unwrap();
        assert_eq!(done["metadata"]["labels"], json!({"c": "d"}));
        assert_eq!(done["metadata"]["generation"], 3);
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut new = object("v2");
            change(&mut new);
            accepted(&object("v1"), new, "a.b/v2").unwrap_err()
        };
        assert_eq!(refused(&|o| o["metadata"]["uid"] = "2".into()), "invalid object: must have the same UID: 1 != 2");
        assert_eq!(
            refused(&|o| o["apiVersion"] = "a.b/v1".into()),
            "invalid object at index 0: invalid groupVersion (expected a.b/v2, received a.b/v1)"
        );
        assert_eq!(
            refused(&|o| o["metadata"]["labels"]["a"] = 1.into()),
            "invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object"
        );
    }

    #[test]
    fn answers_belong_to_their_question() {
        let answer = |uid: &str, status: &str| {
            json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "response": {"uid": uid, "result": {"status": status}, "convertedObjects": [{}]}})
        };
        assert_eq!(answers(answer("u", "Success"), Some("u")).unwrap().len(), 1);
        assert_eq!(answers(answer("w", "Success"), Some("u")).unwrap_err(), "expected response.uid=\"u\", got \"w\"");
        assert_eq!(
            answers(answer("u", "Failed"), Some("u")).unwrap_err(),
            "response.result.status was 'Failed', not 'Success'"
        );
        // The first version of reviews was never checked so closely.
        assert!(answers(json!({"response": {"result": {"status": "Success"}}}), None).is_ok());
    }

    #[test]
    fn the_first_review_that_is_known_is_used() {
        let conversion = |reviews: &[&str]| Conversion {
            client: Value::Null,
            reviews: reviews.iter().map(|r| (*r).to_owned()).collect(),
        };
        let version =
            |reviews: &[&str]| review(&conversion(reviews), &[], "a.b/v1", "u").map(|r| r["apiVersion"].clone());
        assert_eq!(version(&["v2", "v1beta1", "v1"]).unwrap(), "apiextensions.k8s.io/v1beta1");
        assert_eq!(version(&["v2"]).unwrap_err(), "no supported conversion review versions");
    }
}
