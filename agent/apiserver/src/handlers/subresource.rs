//! Requests on subresources.

use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::update::replace;
use super::write::decode;
use super::{patch, read, read_body};
use crate::answer::Body;
use crate::app::Call;
use crate::status::{Failure, Result};
use crate::strategy::Part;

pub(super) async fn dispatch(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    let Some(row) = call.kind.subresource(&call.info.subresource) else { return Err(Failure::no_such_path()) };
    if !row.verbs.contains(&call.info.verb) {
        return Err(Failure::method_not_allowed());
    }
    let part = match row.name {
        "status" => Part::Status,
        "finalize" => Part::Finalize,
        "approval" => Part::Approval,
        "ephemeralcontainers" => Part::EphemeralContainers,
        "resize" => Part::Resize,
        other => return Err(Failure::not_implemented(&format!("the subresource {other}"))),
    };
    match parts.method {
        Method::GET | Method::HEAD => read::get(call).await,
        Method::PUT => {
            let body = read_body(body).await?;
            let value = decode(call, &body, call.kind.schema())?;
            let changed = replace(call, part, value).await?;
            read::respond(call, StatusCode::OK, &changed.object)
        }
        Method::PATCH => {
            let body = read_body(body).await?;
            let changed = patch::apply(call, part, &body).await?;
            read::respond(call, StatusCode::OK, &changed.object)
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

/// POST to a kind that is never stored.
pub(super) async fn create_review(call: &Call, _body: &[u8]) -> Result<Response<Body>> {
    Err(Failure::not_implemented(&format!("the creation of {}", call.kind.plural)))
}
