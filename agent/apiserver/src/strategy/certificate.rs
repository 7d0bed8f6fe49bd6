//! Certificate signing requests.

use serde_json::{Value, json};

use crate::user::User;

/// Writes down who asks: approvers go by it, so that nobody may say it of himself.
pub(super) fn prepare_create(request: &mut Value, user: &User) {
    let spec = &mut request["spec"];
    spec["username"] = user.name.as_str().into();
    spec["uid"] = user.uid.as_str().into();
    spec["groups"] = json!(user.groups);
    spec["extra"] = json!(user.extra);
}
