//! PUT.

use http::{Response, StatusCode};
use serde_json::Value;

use super::patch::same_name;
use super::write::{Changed, check_namespace, decode_object, modify};
use super::{create_object, read};
use crate::answer::Body;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::{self, Part};
use crate::tree;

pub(super) async fn update(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    super::options::check(call, "UpdateOptions")?;
    let mut value = decode_object(call, &body)?;
    strategy::drop_repeated_owners(call, &mut value, false);
    let changed = replace(call, Part::Main, value).await?;
    let code = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    read::respond(call, code, changed.object).await
}

/// Replaces a part of an object by what a client sent, in canonical form.
pub(super) async fn replace(call: &Call, part: Part, mut value: Value) -> Result<Changed> {
    check_namespace(call, &mut value)?;
    same_name(call, &value)?;
    let replaced = modify(call, part, |old| {
        same_uid(call, &value, old)?;
        Ok(value.clone())
    });
    match replaced.await {
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

/// A replacement that names a uid is for that object alone.
fn same_uid(call: &Call, new: &Value, old: &Value) -> Result<()> {
    let (given, own) = (tree::text(new, "/metadata/uid"), tree::text(old, "/metadata/uid"));
    if given.is_empty() || given == own {
        return Ok(());
    }
    let mut key = call.storage()?.store_key(call.namespace(), &call.info.name);
    if call.is_dry_run()? {
        // Upstream looks there without its prefix.
        key = key.trim_start_matches(crate::cache::ROOT.trim_end_matches('/')).to_owned();
    }
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: {given}, UID in object meta: {own}",
        key
    );
    Err(Failure::conflict(call.subject(), &call.info.name, &why))
}
