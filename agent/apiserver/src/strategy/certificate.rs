//! Certificate signing requests.

use serde_json::{Value, json};

use crate::app::now_text;
use crate::tree;
use crate::user::User;

/// Writes down who asks: approvers go by it, so that nobody may say it of himself.
pub(super) fn prepare_create(request: &mut Value, user: &User) {
    let spec = &mut request["spec"];
    spec["username"] = user.name.as_str().into();
    spec["uid"] = user.uid.as_str().into();
    spec["groups"] = json!(user.groups);
    spec["extra"] = json!(user.extra);
}

/// Approval and denial are not for those who write certificates: they stay as they are, as long as there are as many.
pub(super) fn keep_decisions(new: &mut Value, old: &Value) {
    for decision in ["Approved", "Denied"] {
        let is = |condition: &&Value| condition["type"] == decision;
        let kept: Vec<Value> = tree::list(old, "/status/conditions").iter().filter(is).cloned().collect();
        if tree::list(new, "/status/conditions").iter().filter(is).count() != kept.len() {
            continue;
        }
        let places = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten();
        for (place, kept) in places.filter(|condition| condition["type"] == decision).zip(kept) {
            *place = kept;
        }
    }
    stamp(new, old);
}

/// Says since when conditions hold.
pub(super) fn stamp(new: &mut Value, old: &Value) {
    let now = Value::from(now_text());
    let before = tree::list(old, "/status/conditions");
    let Some(conditions) = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    for condition in conditions {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.clone();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |c: &&Value| {
                c["type"] == condition["type"]
                    && c["status"] == condition["status"]
                    && !c["lastTransitionTime"].is_null()
            };
            let since = before.iter().find(same).map(|c| c["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
        }
    }
}
