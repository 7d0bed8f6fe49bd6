//! PATCH.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::Value;

use super::read;
use super::write::{Changed, check_fields, modify};
use crate::answer::Body;
use crate::app::Call;
use crate::codec::{self, Parsed};
use crate::patch::{self, Patch};
use crate::status::{Failure, Result};
use crate::strategy::Part;

pub(super) async fn patch(call: &Call, body: bytes::Bytes) -> Result<Response<Body>> {
    let changed = apply(call, Part::Main, &body).await?;
    read::respond(call, StatusCode::OK, &changed.object)
}

/// Reads the patch of a request.
pub(super) fn read_patch(call: &Call, body: &[u8]) -> Result<Patch> {
    let media = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let value = || Ok::<Value, Failure>(codec::parse_json(body)?.value);
    match media {
        "application/json-patch+json" => patch::json_patch(body),
        "application/merge-patch+json" => Ok(Patch::Merge(value()?)),
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(value()?)),
        "application/apply-patch+yaml" => Err(Failure::not_implemented("server-side apply")),
        _ => Err(Failure::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
             application/strategic-merge-patch+json",
        )),
    }
}

/// Applies the patch of a request to a part of its object.
pub(super) async fn apply(call: &Call, part: Part, body: &[u8]) -> Result<Changed> {
    let patch = read_patch(call, body)?;
    modify(call, part, |old| {
        let new = patch.apply(call.kind.schema(), old)?;
        check_fields(call, &Parsed { value: new.clone(), duplicates: Vec::new() }, call.kind.schema())?;
        if new["metadata"]["name"] != old["metadata"]["name"] {
            return Err(Failure::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                new["metadata"]["name"].as_str().unwrap_or_default(),
                call.info.name
            )));
        }
        Ok(new)
    })
    .await
}
