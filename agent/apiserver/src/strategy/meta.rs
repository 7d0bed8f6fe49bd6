//! Metadata: what the server sets and what never changes.

use serde_json::Value;

use crate::app::now_text;
use crate::tree;

pub(super) fn prepare_create(value: &mut Value) {
    let meta = tree::object_at(value, "metadata");
    for key in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(key);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), now_text().into());
}

/// What only the server changes, whether it is set or not.
const KEPT: [&str; 3] = ["uid", "creationTimestamp", "generation"];
/// What stays once it is set; that a client sets it is told by validation.
const KEPT_ONCE_SET: &str = "deletionTimestamp";
/// What a client may leave out, but not change.
const FILLED_IN: &str = "deletionGracePeriodSeconds";

pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    let given_uid = tree::text(new, "/metadata/uid").to_owned();
    let is_set = |object: &Value, key: &str| !object["metadata"][key].is_null();
    let once_set = Some(KEPT_ONCE_SET).filter(|key| is_set(old, key));
    let filled_in = Some(FILLED_IN).filter(|key| is_set(old, key) && !is_set(new, key));
    let kept: Vec<&str> = once_set.into_iter().chain(filled_in).chain(KEPT).collect();
    for key in kept {
        if let Some(meta) = new.get_mut("metadata") {
            tree::copy_key(meta, &old["metadata"], key);
        }
    }
    // A uid that is not the object's own is told by validation.
    if !given_uid.is_empty() {
        new["metadata"]["uid"] = given_uid.into();
    }
    if tree::text(new, "/metadata/generateName").is_empty()
        && let Some(meta) = new.get_mut("metadata")
    {
        tree::copy_key(meta, &old["metadata"], "generateName");
    }
}
