//! Spans of requests, named and described as upstream does.

use std::future::Future;

use http::HeaderMap;
use http::header::{HOST, USER_AGENT};
use http::request::Parts;
use traces::{Context, Kind, Origin, Span};

use crate::answer::Body;
use crate::app::{App, Call};
use crate::pipeline::{Marks, PeerAddress};
use crate::request::RequestInfo;
use crate::status::Result;
use crate::user::User;

/// Whose word counts on whether a trace is recorded.
const PRIVILEGED: [&str; 2] = ["system:masters", "system:monitoring"];

/// The span of a request, from its first moment on, by the word of who sent it; none where there is nothing to record and
/// no trace to tell others of.
#[must_use]
pub fn begin(app: &App, (parts, info, sender): (&Parts, &RequestInfo, &User), marks: &Marks) -> Option<Span> {
    let tracer = app.tracer.as_ref()?;
    let context = Context::extract(&parts.headers);
    let has_trace = context.is_some();
    let is_privileged = sender.groups.iter().any(|group| PRIVILEGED.contains(&group.as_str()));
    let origin = if is_privileged { Origin::Trusted(context) } else { Origin::Stranger(context) };
    let mut span = tracer.begin(origin, || name(parts.method.as_str(), info), Kind::Server);
    if span.is_recorded() {
        span.since(marks.started);
        describe(&mut span, parts);
        span.text("audit-id", &marks.audit_id);
    }
    (has_trace || span.is_recorded()).then_some(span)
}

/// Answers a request as a part of its span.
pub async fn answer(
    mut span: Span,
    work: impl Future<Output = Result<http::Response<Body>>>,
) -> Result<http::Response<Body>> {
    let result = span.within(work).await;
    let code = match &result {
        Ok(response) => response.status().as_u16(),
        Err(failure) => failure.code().as_u16(),
    };
    span.number("http.response.status_code", code.into());
    if code >= 500 {
        span.fail("");
    }
    result
}

/// Runs something as a part of a span, if there is one. What is large is to be boxed: it is moved a few times.
pub async fn inside<F: Future>(span: Option<Span>, work: F) -> F::Output {
    match span {
        None => work.await,
        Some(span) => span.within(work).await,
    }
}

/// The span of what a verb does; none where it is not recorded.
#[must_use]
pub fn handler(call: &Call) -> Option<Span> {
    let name = match call.info.verb {
        "get" => "Get",
        "list" => "List",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    };
    let mut span = traces::child(name, Kind::Internal)?;
    let info = &call.info;
    let accept = call.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
    for (key, value) in [
        ("accept", accept.unwrap_or_default()),
        ("api-group", &info.group),
        ("api-version", &info.version),
        ("name", &info.name),
        ("subresource", &info.subresource),
        ("namespace", &info.namespace),
        ("resource", &info.resource),
        ("verb", info.verb),
    ] {
        span.text(key, value);
    }
    Some(span)
}

/// Without what differs from object to object.
fn name(method: &str, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_owned();
    }
    let prefix = info.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let mut name = format!("{method} /{prefix}");
    let parts = [
        (info.group.as_str(), info.group.as_str()),
        (&info.version, &info.version),
        (&info.namespace, "namespaces/{:namespace}"),
        (&info.resource, &info.resource),
        (&info.name, "{:name}"),
        (&info.subresource, &info.subresource),
    ];
    for (_, part) in parts.into_iter().filter(|(value, _)| !value.is_empty()) {
        name.push('/');
        name.push_str(part);
    }
    name
}

fn describe(span: &mut Span, parts: &Parts) {
    let header = |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = parts.uri.authority().map(ToString::to_string).or_else(|| header(&parts.headers, HOST));
    let peer = parts.extensions.get::<PeerAddress>().map(|PeerAddress(address)| address.to_canonical().to_string());
    let version = match parts.version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let target = parts.uri.path_and_query().map(ToString::to_string);
    for (key, value) in [
        ("server.address", host),
        ("http.request.method", Some(parts.method.to_string())),
        ("network.peer.address", peer.clone()),
        ("user_agent.original", header(&parts.headers, USER_AGENT)),
        ("client.address", peer),
        ("url.path", Some(parts.uri.path().to_owned())),
        ("network.protocol.version", Some(version.to_owned())),
        ("http.target", target),
    ] {
        if let Some(value) = value {
            span.text(key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    #[test]
    fn names_tell_sorts_of_requests_apart_and_no_objects() {
        for (path, wanted) in [
            ("/healthz", "GET"),
            ("/api/v1/nodes", "GET /api/v1/nodes"),
            ("/api/v1/namespaces/a/pods/b/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
            ("/apis/apps/v1/deployments", "GET /apis/apps/v1/deployments"),
        ] {
            let info = RequestInfo::parse(&http::Method::GET, path, &Query::default());
            assert_eq!(name("GET", &info), wanted);
        }
    }
}
