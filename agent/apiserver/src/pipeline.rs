//! The way of every request: who, may they, how many at once, which handler, which headers.

use std::sync::Arc;
use std::time::Instant;

use api::Kind;
use futures::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use parking_lot::Mutex;

use crate::answer::{self, Body};
use crate::app::{App, Call};
use crate::audited::{self, Noted};
use crate::auth::authn::{self, TokenUser};
use crate::flow::{Asked, Flow};
use crate::metrics::Labels;
use crate::negotiate::{self, Accept};
use crate::request::{self, Query, RequestInfo};
use crate::serve::SentBy;
use crate::status::{Failure, Result};
use crate::{ending, handlers, handover, nonresource, traced};

/// Certificates the client showed on its connection, the leaf first; put into a request's extensions by the server.
#[derive(Clone)]
pub struct PeerCertificates(pub Arc<Vec<rustls_pki_types::CertificateDer<'static>>>);

/// Marks an answer that goes on for as long as somebody looks at it: a log, a terminal, a proxied connection.
#[derive(Clone, Copy)]
pub struct Interactive;
/// Where the other end of the connection is; put into a request's extensions by the server.
#[derive(Clone, Copy)]
pub struct PeerAddress(pub std::net::IpAddr);

/// Answers one request. Never fails: what goes wrong is an answer too.
pub async fn serve(app: Arc<App>, request: Request<Body>) -> Response<Body> {
    let origin = app.config.conduct.browsers.allowed(request.headers());
    let mut response = match ending::refusal(&app, &request) {
        Some(refusal) => refusal,
        None if origin.is_some() && request.method() == Method::OPTIONS => preflight(&request),
        None => respond(app.clone(), request).await,
    };
    app.config.conduct.browsers.tell(response.headers_mut(), origin);
    response
}

/// A browser asks whether a page may ask.
fn preflight(request: &Request<Body>) -> Response<Body> {
    let mut response = Response::new(answer::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    answer::common_headers(&mut response, &audit_id(request.headers()), &[]);
    response
}

async fn respond(app: Arc<App>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    if !request::is_spelled(parts.uri.path()) {
        return answer::bytes(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "400 Bad Request");
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
    let verb = info.verb;
    let kind = app.custom.kind(&info.group, &info.version, &info.resource).filter(|_| info.is_resource);
    let labels = Labels::of(&info, &query, kind, verb == "patch" && is_apply(&parts.headers));
    let audit_id = audit_id(&parts.headers);
    // Without the query: it may hold what a shell in a pod is to run.
    let path = tracing::enabled!(tracing::Level::DEBUG).then(|| info.path.clone());
    let mut marks = Marks { audit_id: audit_id.clone(), started: Some(started), ..Marks::default() };
    marks.received = app.auditor.as_ref().map(|_| jiff::Timestamp::now());
    let headers = parts.headers.clone();
    let limit = if info.is_long_running() { None } else { Some(app.config.request_timeout) };
    let _running = limit.map(|_| app.ending.request());
    let is_interactive = limit.is_none() && verb != "watch";
    let is_pretty = negotiate::is_pretty(&headers, &query);
    let work = audited::guard(handle(&app, parts, body, (query, info), &mut marks));
    let result = match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let late = Failure::timeout("Timeout: request did not complete within the allotted timeout");
            app.metrics.requests.terminated(labels, late.code().as_u16());
            Err(late)
        }),
    };
    if let (true, Err(failure)) = (marks.shed, &result) {
        app.metrics.requests.terminated(labels, failure.code().as_u16());
    }
    let mut response = result.unwrap_or_else(|failure| {
        // A client that takes none of our encodings gets what a person reads. A failure has no other form.
        let mut accept = Accept::parse(&headers, false).unwrap_or_else(|_| Accept::fallback(&headers));
        accept.pretty |= is_pretty;
        answer::failure(&failure, accept)
    });
    answer::common_headers(&mut response, &audit_id, &marks.warnings);
    if marks.refused && matches!(response.status().as_u16(), 400 | 403) {
        response.headers_mut().insert("X-Content-Type-Options", http::HeaderValue::from_static("nosniff"));
    }
    if let Some(flow) = marks.flow {
        flow.put(response.headers_mut());
    }
    if is_interactive && (response.status().is_success() || response.status().is_informational()) {
        response.extensions_mut().insert(Interactive);
    }
    if let Some(limit) = limit {
        response.extensions_mut().insert(SentBy(started + limit));
    }
    let answered = (response.status().as_u16(), started);
    if let Some(path) = path {
        tracing::debug!(verb, path, code = answered.0, audit_id, "a request is answered");
    }
    if marks.record.is_on() {
        response = audited::finish(marks.record, response, marks.noted, limit.is_none()).await;
    }
    let is_long = limit.is_none() && !response.status().is_client_error() && !response.status().is_server_error();
    handover::settled(response.map(|body| app.metrics.requests.answered(labels, answered, is_long, body)))
}

/// How long a client waits says nothing to this server, which has its own limit; but it has to be a time.
fn check_timeout(text: &str) -> Result<()> {
    if text.is_empty() || api::time::parse_duration(text).is_some() {
        return Ok(());
    }
    let why = api::time::duration_complaint(text);
    Err(Failure::bad_request(format!("invalid timeout specified in the request URL - {why}")))
}

fn is_apply(headers: &HeaderMap) -> bool {
    let media = headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    media.starts_with(crate::app::APPLY_MEDIA_TYPE.as_bytes())
}

fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get("Audit-Id").and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty() && v.len() <= 64);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// What a request leaves behind for the headers of its answer.
#[derive(Default)]
pub struct Marks {
    /// What the client is told besides.
    pub warnings: Vec<String>,
    flow: Option<Arc<Flow>>,
    /// Whether it got no further than who asks and whether they may.
    refused: bool,
    /// Whether there were too many.
    shed: bool,
    /// The request's id.
    pub audit_id: String,
    /// When its time began.
    pub started: Option<Instant>,
    /// When it came, where that is noted.
    pub received: Option<jiff::Timestamp>,
    /// What is noted for the audit log.
    pub record: audit::Record,
    /// How much of the answer is noted there.
    pub noted: Noted,
}

async fn handle(
    app: &Arc<App>,
    parts: Parts,
    body: Body,
    (query, info): (Query, RequestInfo),
    marks: &mut Marks,
) -> Result<Response<Body>> {
    if authn::has_extra_space(&parts.headers) {
        marks.warnings.push(authn::EXTRA_SPACE.to_owned());
    }
    let has_deadline = !info.is_long_running();
    if has_deadline {
        check_timeout(query.get("timeout"))?;
    }
    marks.refused = true;
    let sender = audited::authenticate(app, (&parts, &info), marks).await?;
    // Whether a trace is followed is for those to say who ask, not for those in whose name they do.
    let span = traced::begin(app, (&parts, &info, &sender.user), marks);
    let request = (query, info, sender);
    match span {
        None => admitted(app, parts, body, request, marks).await,
        Some(span) => traced::answer(span, admitted(app, parts, body, request, marks).boxed()).await,
    }
}

/// The rest of the way of a request of which is known who sent it.
async fn admitted(
    app: &Arc<App>,
    mut parts: Parts,
    body: Body,
    (query, info, sender): (Query, RequestInfo, TokenUser),
    marks: &mut Marks,
) -> Result<Response<Body>> {
    let user = Arc::new(audited::admit(app, (&parts, &info, &query), sender, marks).await?);
    let info = Arc::new(info);
    if !info.is_long_running() || info.verb == "watch" {
        marks.flow = app.flows.classify(&user, &info);
    }
    let asked = Asked { cache: &app.cache, user: &user, info: &info, query: &query };
    let place = app.flows.enter(marks.flow.as_ref(), &asked).await;
    marks.shed = place.is_err();
    let place = place?;
    app.access.authorize(&user, &info, &query, &marks.record).await?;
    marks.refused = false;
    if let Some(remote) = remote_of(app, &info) {
        marks.noted = Noted::Code;
        answer::set(&mut parts.headers, "audit-id", &marks.audit_id);
        return crate::aggregate::serve(app, remote, &user, (parts, body)).await;
    }
    if !info.is_resource {
        if !matches!(info.path.split('/').nth(1), Some("api" | "apis")) {
            marks.noted = Noted::Code;
        }
        return nonresource::serve(app, (&parts, body), &info, &query).await;
    }
    let kind = app.custom.kind(&info.group, &info.version, &info.resource);
    let kind = kind.ok_or_else(|| app.no_such_resource(&info.group))?;
    let accept = accepted(&parts.headers, (&query, &info), kind, marks)?;
    let call = Call {
        app: app.clone(),
        headers: parts.headers.clone(),
        user,
        accept,
        kind,
        info,
        query,
        warnings: Mutex::default(),
        place: Mutex::new(place),
        record: marks.record.clone(),
    };
    crate::custom::warn_deprecated(&call);
    let no_method = Failure::method_not_allowed();
    let result = traced::inside(traced::handler(&call), handlers::dispatch(&call, parts, body).boxed()).await;
    marks.warnings.extend(call.warnings.into_inner().into_texts());
    // What is refused before anybody looks at the kind has no warnings about it.
    let is_early =
        |failure: &Failure| failure.message().starts_with("415:") || *failure.message() == *no_method.message();
    if result.as_ref().is_err_and(is_early) {
        marks.warnings.clear();
    }
    result
}

/// The form that the answer about a kind is asked for in.
fn accepted(
    headers: &HeaderMap,
    (query, info): (&Query, &RequestInfo),
    kind: &'static Kind,
    marks: &mut Marks,
) -> Result<Accept> {
    let is_custom = crate::custom::is_custom(kind);
    let is_connected = matches!(info.subresource.as_str(), "proxy" | "exec" | "attach" | "portforward");
    let mut accept = if is_connected {
        Accept::JSON
    } else {
        let accept = match info.subresource.as_str() {
            "log" if !is_custom => Accept::of_text(headers),
            _ if is_custom => Accept::unrouted(headers),
            part if !part.is_empty() => Accept::of_part(headers),
            _ => Accept::parse(headers, true),
        };
        let accept = accept.inspect_err(|failure| {
            // A form that is not known is found out by those who know the kind, a type before.
            if !failure.message().starts_with("406:") {
                marks.warnings.extend(Some(kind.deprecation.to_owned()).filter(|text| !text.is_empty()));
            }
        })?;
        if is_custom { accept.without_protobuf(headers)? } else { accept }
    };
    accept.pretty |= negotiate::is_pretty(headers, query);
    Ok(accept)
}

/// The server behind this one that a path belongs to.
fn remote_of(app: &App, info: &RequestInfo) -> Option<(Arc<crate::aggregate::Remote>, bool)> {
    let mut parts = info.path.trim_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("apis"), Some(group), Some(version)) => app.aggregator.find(group, version),
        // What describes a server that is away is not there either.
        (Some("openapi"), Some("v3"), Some("apis")) => {
            app.aggregator.find(parts.next()?, parts.next()?).filter(|(_, is_available)| *is_available)
        }
        _ => None,
    }
}
