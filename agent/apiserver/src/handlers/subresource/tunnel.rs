//! One request passed on to another server, and the raw bytes after an upgrade.

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::answer::{self, Body, BodyError, PassedOn};
use crate::backend::{DialError, Target};
use crate::handover;
use crate::pipeline::PeerAddress;

/// Headers that speak of one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why the other server did not answer what was passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It was not reached, or broke off.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It was to go on in another protocol, and did something else that is no failure either.
    #[error("invalid upgrade response: status code {}", .0.as_u16())]
    NotUpgraded(StatusCode),
}

/// Whether a client wants to go on in another protocol.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.into_iter().any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Sends the request on, with all its headers but those of the connection, and answers as the other server does; after
/// an upgrade bytes pass both ways untouched.
pub(crate) async fn forward(
    target: &Target,
    uri: Uri,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>, Unanswered> {
    if !is_upgrade(&parts.headers) {
        let mut response = target.send(request(target, uri, parts, body)).await?.map(passed);
        strip_hop_by_hop(response.headers_mut());
        // What the code means is for this server to say.
        response.extensions_mut().remove::<hyper::ext::ReasonPhrase>();
        *response.version_mut() = http::Version::default();
        return Ok(response);
    }
    let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut response = upgraded(target, request(target, uri, parts, body)).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(whole(response));
    }
    let far = hyper::upgrade::on(&mut response);
    let mut response = response.map(passed);
    *response.version_mut() = http::Version::default();
    response.extensions_mut().insert(PassedOn::Whole);
    if let Some(client) = client {
        handover::serve(&mut response, splice(client, far));
    }
    Ok(response)
}

/// Asks the other server to go on in another protocol.
pub(crate) async fn ask(target: &Target, uri: Uri, parts: Parts) -> Result<Response<Incoming>, Unanswered> {
    upgraded(target, request(target, uri, parts, answer::full(""))).await
}

async fn upgraded(target: &Target, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
    let response = target.send(request).await?;
    let code = response.status();
    let is_known = code == StatusCode::SWITCHING_PROTOCOLS || code.is_client_error() || code.is_server_error();
    if is_known { Ok(response) } else { Err(Unanswered::NotUpgraded(code)) }
}

/// The other server's answer as the client gets it when nothing came of the upgrade.
pub(crate) fn whole(answer: Response<Incoming>) -> Response<Body> {
    let mut answer = answer.map(passed);
    strip_hop_by_hop(answer.headers_mut());
    *answer.version_mut() = http::Version::default();
    answer.extensions_mut().insert(PassedOn::Whole);
    answer
}

fn passed(body: Incoming) -> Body {
    body.map_err(BodyError::new).boxed_unsync()
}

/// Takes out what belongs to one connection: the headers that always do, and those that it names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn request(target: &Target, uri: Uri, parts: Parts, body: Body) -> Request<Body> {
    let mut headers = parts.headers;
    if !is_upgrade(&headers) {
        let takes_trailers = headers.get(TE).and_then(|te| te.to_str().ok()).is_some_and(|te| te.contains("trailers"));
        strip_hop_by_hop(&mut headers);
        if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if !headers.contains_key(HOST) {
        let asked = parts.uri.authority().map_or_else(|| target.authority(), ToString::to_string);
        answer::set(&mut headers, HOST, &asked);
    }
    // A body that is over has no length to be told, unless the client told it.
    let mut request = Request::new(if body.is_end_stream() { answer::full("") } else { body });
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Adds the client to those that a request came from.
pub(crate) fn name_client(parts: &mut Parts) {
    let way = parts.headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let mut way: Vec<String> = way.map(str::to_owned).collect();
    way.extend(parts.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| peer.to_canonical().to_string()));
    if !way.is_empty() {
        answer::set(&mut parts.headers, FORWARDED_FOR, &way.join(", "));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut given = headers(&[("connection", "X-Hop, close"), ("x-hop", "1"), ("upgrade", "h2c"), ("x-foo", "a")]);
        strip_hop_by_hop(&mut given);
        assert_eq!(given, headers(&[("x-foo", "a")]));
    }

    #[test]
    fn only_the_connection_says_that_it_is_upgraded() {
        assert!(is_upgrade(&headers(&[("connection", "keep-alive, Upgrade")])));
        assert!(!is_upgrade(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn clients_stand_behind_those_before_them() {
        let request = Request::builder().header("x-forwarded-for", "192.0.2.1");
        let request = request.extension(PeerAddress("::ffff:192.0.2.2".parse().unwrap()));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        name_client(&mut parts);
        assert_eq!(parts.headers["x-forwarded-for"], "192.0.2.1, 192.0.2.2");
    }
}
