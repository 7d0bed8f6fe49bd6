//! One request passed on to another server, and the raw bytes after an upgrade.

use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use crate::answer::{self, Body, BodyError};
use crate::backend::{DialError, Target};
use crate::handover;

/// Headers that speak of one connection only.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    http::header::TE,
    http::header::TRAILER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Sends the request on, with all its headers but those of the connection, and answers as the other server does; after an upgrade bytes pass both ways untouched.
pub(crate) async fn forward(
    target: &Target,
    uri: Uri,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>, DialError> {
    let upgrading = parts.headers.contains_key(UPGRADE);
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>().filter(|_| upgrading);
    let mut response = target.send(request(target, uri, &parts, body)).await?;
    let is_handed_over = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let far = upgrade.filter(|_| is_handed_over).map(|client| (client, hyper::upgrade::on(&mut response)));
    let (mut head, body) = response.into_parts();
    if !is_handed_over {
        strip_hop_by_hop(&mut head.headers);
    }
    head.version = http::Version::default();
    let mut answer = Response::from_parts(head, body.map_err(BodyError::new).boxed_unsync());
    if let Some((client, far)) = far {
        handover::serve(&mut answer, splice(client, far));
    }
    Ok(answer)
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn request(target: &Target, uri: Uri, parts: &Parts, body: Body) -> Request<Body> {
    let empty = matches!(parts.method, Method::GET | Method::HEAD);
    let mut request = Request::new(if empty { answer::full("") } else { body });
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    let headers = request.headers_mut();
    if !headers.contains_key(UPGRADE) {
        strip_hop_by_hop(headers);
    }
    answer::set(headers, HOST, &target.authority());
    request
}

/// The client's credentials are for this server alone.
pub(crate) fn hide_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let secret = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|n| secret(n)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

async fn splice(client: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade) {
    match (client.await, far.await) {
        (Ok(client), Ok(far)) => {
            let result = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(far)).await;
            if let Err(error) = result {
                tracing::debug!(%error, "an upgraded connection ended");
            }
        }
        (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "an upgrade did not happen"),
    }
}
