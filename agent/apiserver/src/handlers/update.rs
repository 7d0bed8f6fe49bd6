//! PUT.

use http::{Response, StatusCode};
use serde_json::Value;

use super::write::{Changed, check_type, decode, modify};
use super::{create_object, read};
use crate::answer::Body;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::{self, Part};
use crate::tree;

pub(super) async fn update(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let value = decode(call, &body, call.kind.schema())?;
    let changed = replace(call, Part::Main, value).await?;
    let code = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    read::respond(call, code, &changed.object)
}

/// Replaces a part of an object by what a client sent.
pub(super) async fn replace(call: &Call, part: Part, mut value: Value) -> Result<Changed> {
    check_type(call, &mut value)?;
    let name = tree::text(&value, "/metadata/name");
    if name.is_empty() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.info.name
        )));
    }
    if name != call.info.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    match modify(call, part, |_old| Ok(value.clone())).await {
        Err(failure) if failure.code() == StatusCode::NOT_FOUND && may_create(call, part, &value) => {
            let created = create_object(call, value).await?;
            Ok(Changed { object: created.object, created: true })
        }
        other => other,
    }
}

/// Whether a PUT to a name that is not there makes the object.
fn may_create(call: &Call, part: Part, value: &Value) -> bool {
    part == Part::Main
        && strategy::allows_create_on_update(call.kind)
        && tree::text(value, "/metadata/resourceVersion").is_empty()
        && tree::text(value, "/metadata/uid").is_empty()
}
