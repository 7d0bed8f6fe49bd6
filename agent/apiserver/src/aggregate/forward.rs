//! Requests that another server answers.

use std::sync::Arc;

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};

use super::Remote;
use crate::answer::{self, Body};
use crate::app::App;
use crate::handlers::tunnel;
use crate::status::{Failure, Result};
use crate::user::User;

/// Passes a request on, telling who asks.
///
/// # Errors
/// When the server is not available.
pub async fn serve(
    app: &Arc<App>,
    (remote, available): (Arc<Remote>, bool),
    user: &User,
    (mut parts, body): (Parts, Body),
) -> Result<Response<Body>> {
    if !available {
        return Err(Failure::unavailable("service unavailable"));
    }
    let target = remote.target(app).map_err(|e| Failure::unavailable(format!("service unavailable: {e}")))?;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let uri: Uri = path.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    tunnel::hide_credentials(&mut parts.headers);
    name_user(&mut parts.headers, user);
    let answer = tunnel::forward(&target, uri, parts, body).await;
    answer.map(unless_elsewhere).map_err(|e| Failure::unavailable(format!("error trying to reach service: {e}")))
}

/// Clients trust what this server says: nobody behind it may send them, and their credentials, elsewhere.
fn unless_elsewhere(answer: Response<Body>) -> Response<Body> {
    let has_target = answer.headers().get(LOCATION).is_some_and(|target| !target.is_empty());
    if !answer.status().is_redirection() || !has_target {
        return answer;
    }
    let why = "the backend attempted to redirect this request, which is not permitted";
    answer::text(StatusCode::BAD_GATEWAY, why)
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
