//! Requests that another server answers.

use std::sync::Arc;

use futures::FutureExt as _;
use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};

use super::Remote;
use crate::answer::{self, Body, PassedOn};
use crate::app::App;
use crate::handlers::tunnel;
use crate::status::{Failure, Result};
use crate::traced;
use crate::user::User;

/// Passes a request on, telling who asks.
///
/// # Errors
/// When the server does not answer.
pub async fn serve(
    app: &Arc<App>,
    (remote, available): (Arc<Remote>, bool),
    user: &User,
    (mut parts, body): (Parts, Body),
) -> Result<Response<Body>> {
    let target = remote.target(app).inspect_err(|why| tracing::debug!(name = %remote.name, %why, "no way to a server"));
    let (true, Ok(target)) = (available, target) else {
        return Ok(answer::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
    };
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let uri: Uri = path.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    tunnel::hide_credentials(&mut parts.headers);
    name_user(&mut parts.headers, user);
    name_way(&mut parts, &target.authority());
    let span = traces::child(&format!("HTTP {}", parts.method), traces::Kind::Client);
    let forward = async {
        traces::inject(&mut parts.headers);
        tunnel::forward(&target, uri, parts, body).await
    };
    let answer = traced::inside(span, forward.boxed()).await;
    answer.map(unless_elsewhere).map_err(|e| Failure::unavailable(format!("error trying to reach service: {e}")))
}

/// Clients trust what this server says: nobody behind it may send them, and their credentials, elsewhere.
fn unless_elsewhere(answer: Response<Body>) -> Response<Body> {
    let has_target = answer.headers().get(LOCATION).is_some_and(|target| !target.is_empty());
    if !answer.status().is_redirection() || !has_target {
        let mut answer = answer;
        answer.extensions_mut().get_or_insert(PassedOn::Beside);
        return answer;
    }
    let why = "the backend attempted to redirect this request, which is not permitted";
    answer::bytes(StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", why)
}

/// Where the request came from and went to, for whoever keeps a log behind this server.
fn name_way(parts: &mut Parts, host: &str) {
    let path = parts.uri.path().to_owned();
    tunnel::name_client(parts);
    let headers = &mut parts.headers;
    answer::set(headers, HOST, host);
    answer::set(headers, "x-forwarded-host", host);
    answer::set(headers, "x-forwarded-proto", "https");
    answer::set(headers, "x-forwarded-uri", &path);
}

/// The headers that aggregated servers believe from the holder of the proxy's certificate.
fn name_user(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: &str, value: &str| {
        let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let key = format!("x-remote-extra-{}", escape(&key.to_lowercase()));
        values.iter().for_each(|value| add(&key, value));
    }
}

/// Keys of extra values may hold what header names may not.
fn escape(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&'*+-.^_`|~".contains(c);
    key.chars()
        .map(|c| {
            if plain(c) {
                return c.to_string();
            }
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02X}")).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::PeerAddress;

    #[test]
    fn redirections_end_here() {
        let answer = |code: u16, target: &str| {
            let answer = Response::builder().status(code).header(LOCATION, target);
            unless_elsewhere(answer.body(Body::default()).unwrap()).status().as_u16()
        };
        assert_eq!(answer(302, "https://elsewhere/"), 502);
        assert_eq!(answer(304, ""), 304);
        assert_eq!(answer(201, "/made"), 201);
    }

    #[test]
    fn the_way_is_named_in_headers() {
        let request = http::Request::get("/apis/a/v1/b?c=d").header("x-forwarded-for", "192.0.2.1");
        let request = request.extension(PeerAddress("::ffff:192.0.2.2".parse().unwrap()));
        let mut parts = request.body(()).unwrap().into_parts().0;
        name_way(&mut parts, "host:443");
        let told = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
        assert_eq!(told("x-forwarded-for"), "192.0.2.1, 192.0.2.2");
        assert_eq!([told("x-forwarded-host"), told("x-forwarded-uri")], ["host:443", "/apis/a/v1/b"]);
        assert_eq!(told("x-forwarded-proto"), "https");
    }

    #[test]
    fn the_user_is_named_in_headers() {
        let mut user = User { name: "bob".to_owned(), groups: vec!["a".to_owned(), "b".to_owned()], ..User::default() };
        user.extra.insert("example.org/Scope".to_owned(), vec!["x".to_owned()]);
        let mut headers = HeaderMap::new();
        name_user(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "bob");
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        assert_eq!(headers["x-remote-extra-example.org%2fscope"], "x");
    }
}
