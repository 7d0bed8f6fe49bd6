//! What is noted of requests for the audit log: who, from where, for what, and what came of it.
//!
//! Without a policy nothing here does anything. Objects are noted as JSON, whatever encoding they travel in.

use std::any::Any;
use std::io::Read as _;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::schema::Message;
use api::transcode;
use audit::{Event, ObjectReference, Outcome, Record, Stage, UserInfo};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::answer::{self, Body, BodyError};
use crate::app::{App, Call};
use crate::auth::authn::TokenUser;
use crate::metrics::Text;
use crate::pipeline::{Marks, PeerAddress, PeerCertificates};
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, Result};
use crate::tree;
use crate::user::User;

/// How much of an answer is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Noted {
    /// Its code and, from a level on, its object.
    #[default]
    Object,
    /// Its code: the object is no API object, or another server's.
    Code,
    /// Who asked is unknown, so that this is all there is of the request.
    Refusal,
}

/// Answers up to this size are looked at for what they say of the request's end.
const SMALL_BYTES: u64 = 64 << 10;
/// Largest compressed answer that is read again, once it is not compressed any more.
const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// Who asks. The record of a request of nobody knows whom begins and ends here.
pub async fn authenticate(
    app: &Arc<App>,
    (parts, info): (&Parts, &RequestInfo),
    marks: &mut Marks,
) -> Result<TokenUser> {
    match app.access.authenticate(parts).await {
        Ok(found) => Ok(found),
        Err(failure) => {
            marks.record = begin(app, (parts, info), None, marks);
            marks.record.with(|event| {
                event.response_status = Some(Outcome::text(attempted(parts)));
            });
            marks.noted = Noted::Refusal;
            Err(failure)
        }
    }
}

/// As whom somebody goes on; the request's record begins here.
pub async fn admit(
    app: &Arc<App>,
    (parts, info, query): (&Parts, &RequestInfo, &Query),
    TokenUser { user, secret, .. }: TokenUser,
    marks: &mut Marks,
) -> Result<User> {
    marks.record = begin(app, (parts, info), Some(&user), marks);
    if let Some(secret) = secret {
        let warning = app.access.note_use(&secret, &marks.record);
        marks.warnings.extend(warning.map(str::to_owned));
    }
    if !marks.record.process(Stage::RequestReceived).await {
        if let Some(auditor) = &app.auditor {
            auditor.count_rejected();
        }
        return Err(Failure::internal("failed to store audit event"));
    }
    let Some(other) = app.access.impersonated(&parts.headers, &user, (info, query))? else { return Ok(user) };
    marks.record.impersonates(|| (user_info(&other.user), other.constraint));
    Ok(other.user)
}

fn begin(app: &App, (parts, info): (&Parts, &RequestInfo), user: Option<&User>, marks: &Marks) -> Record {
    let (Some(auditor), Some(received)) = (&app.auditor, marks.received) else { return Record::default() };
    let request = audit::Request {
        user: user.map_or("", |u| &u.name),
        groups: user.map_or(&[], |u| &u.groups),
        verb: info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
    };
    auditor.begin(&request, |level| {
        let mut event = Event::new(marks.audit_id.clone(), level, received);
        event.request_uri = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        event.verb = info.verb.to_owned();
        event.user = user.map(user_info).unwrap_or_default();
        event.source_ips = source_ips(parts).iter().map(IpAddr::to_string).collect();
        event.set_user_agent(header(&parts.headers, USER_AGENT.as_str()));
        event.object_ref = info.is_resource.then(|| ObjectReference {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectReference::default()
        });
        event
    })
}

fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Where a request came from; all but the last is what somebody says.
fn source_ips(parts: &Parts) -> Vec<IpAddr> {
    let forwarded = header(&parts.headers, "x-forwarded-for").split(',');
    let mut found: Vec<IpAddr> = forwarded.filter_map(|part| part.trim().parse().ok()).collect();
    if let Ok(real) = header(&parts.headers, "x-real-ip").parse()
        && !found.contains(&real)
    {
        found.push(real);
    }
    if let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>() {
        let peer = peer.to_canonical();
        if found.last() != Some(&peer) {
            found.push(peer);
        }
    }
    found
}

/// What was shown as a proof of identity, in vain.
fn attempted(parts: &Parts) -> String {
    let authorization = header(&parts.headers, "authorization").trim();
    let scheme = authorization.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
    let shown = [
        ("basic", scheme == "basic"),
        ("bearer", scheme == "bearer"),
        ("x509", parts.extensions.get::<PeerCertificates>().is_some_and(|p| !p.0.is_empty())),
    ];
    let shown: Vec<&str> = shown.iter().filter(|(_, is_shown)| *is_shown).map(|(name, _)| *name).collect();
    match shown.as_slice() {
        [] => "Authentication failed, no credentials provided".to_owned(),
        some => format!("Authentication failed, attempted: {}", some.join(", ")),
    }
}

/// Notes an object of the request's kind, as it was sent and with its defaults.
pub fn object(call: &Call, value: &Value) {
    if !call.record.is_on() {
        return;
    }
    refer(call, value);
    if !call.record.wants_request_object() {
        return;
    }
    let mut whole = value.clone();
    crate::defaults::apply(call.kind, &mut whole);
    crate::custom::complete_as_sent(call, &mut whole);
    if crate::custom::is_custom(call.kind) {
        call.record.request_object(whole.to_string().as_bytes());
    } else {
        write(call, call.kind.schema(), &whole, (&call.kind.api_version(), call.kind.kind));
    }
}

/// Notes what is sent to a subresource, or with a deletion.
pub fn message(call: &Call, schema: &'static Message, value: &Value) {
    if !call.record.is_on() {
        return;
    }
    refer(call, value);
    if !call.record.wants_request_object() {
        return;
    }
    let own_kind = schema.name.rsplit('.').next().unwrap_or_default();
    let (version, kind) = (tree::text(value, "/apiVersion"), tree::text(value, "/kind"));
    let row = call.kind.subresource(&call.info.subresource);
    let own_version = match row {
        // Upstream logs them before it knows their version.
        _ if own_kind == "DeleteOptions" => "meta.k8s.io/__internal".to_owned(),
        Some(row) if !row.group.is_empty() => format!("{}/{}", row.group, row.version),
        _ => call.kind.api_version(),
    };
    let names =
        (if version.is_empty() { &own_version } else { version }, if kind.is_empty() { own_kind } else { kind });
    let mut whole = value.clone();
    crate::defaults::apply_message(schema.name, &mut whole);
    write(call, schema, &whole, names);
}

fn write(call: &Call, schema: &'static Message, value: &Value, names: (&str, &str)) {
    let Ok(raw) = transcode::value_to_proto(schema, value, &mut transcode::Report::default()) else { return };
    let mut text = Vec::new();
    if transcode::proto_to_json(schema, &raw, Some(names), &mut text).is_ok() {
        call.record.request_object(&text);
    }
}

/// Notes a patch, as it was sent.
pub fn patch(call: &Call, body: &[u8]) {
    if !call.record.wants_request_object() {
        return;
    }
    // Configurations that are applied are YAML.
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => call.record.request_patch(body),
        Err(_) => {
            if let Ok(parsed) = crate::codec::parse_apply(body) {
                call.record.request_patch(parsed.value.to_string().as_bytes());
            }
        }
    }
}

/// Completes whom a request is about by what its object says.
fn refer(call: &Call, value: &Value) {
    let text = |key: &str| value["metadata"][key].as_str().unwrap_or_default();
    call.record.with(|event| {
        let known = event.object_ref.get_or_insert_default();
        for (field, key) in [
            (&mut known.namespace, "namespace"),
            (&mut known.name, "name"),
            (&mut known.uid, "uid"),
            (&mut known.resource_version, "resourceVersion"),
        ] {
            if field.is_empty() {
                text(key).clone_into(field);
            }
        }
    });
}

/// Ends the record of a request: at once, or with the last byte of an answer that takes its time.
pub async fn finish(record: Record, response: Response<Body>, noted: Noted, is_long: bool) -> Response<Body> {
    let code = response.status();
    if let Some(Broken(cause)) = response.extensions().get::<Broken>() {
        let message = format!("APIServer panic'd: {cause}");
        let outcome = Outcome::failure(message, "InternalError", code.as_u16());
        record.with(|event| event.response_status = Some(outcome));
        record.process(Stage::Panic).await;
        return response;
    }
    let is_whole = !is_long || code.is_client_error() || code.is_server_error();
    // What is sent in pieces is put together only where it is to be noted.
    let is_small = response.body().size_hint().exact().is_some_and(|bytes| bytes <= SMALL_BYTES);
    let is_read = noted != Noted::Code && is_whole && (is_small || record.wants_response_object());
    let response = if is_read { read(&record, response).await } else { response };
    record.code(code.as_u16());
    if noted == Noted::Refusal {
        record.process(Stage::ResponseStarted).await;
        return response;
    }
    if is_long {
        record.process(Stage::ResponseStarted).await;
    } else if response.body().size_hint().exact().is_some() {
        record.process(Stage::ResponseComplete).await;
        return response;
    }
    response.map(|body| Watched { body, record: Some(record) }.boxed_unsync())
}

/// Notes the object of an answer, which is there as a whole.
async fn read(record: &Record, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Response::from_parts(parts, failed_body(error)),
    };
    if (record.wants_response_object() || looks_like_status(&body))
        && let Some(text) = as_json(&parts.headers, &body)
    {
        record.response_object(&text);
    }
    Response::from_parts(parts, answer::full(body))
}

fn failed_body(error: BodyError) -> Body {
    http_body_util::StreamBody::new(futures::stream::once(async { Err(error) })).boxed_unsync()
}

/// Whether an answer may be a `Status`, by its first bytes.
fn looks_like_status(body: &[u8]) -> bool {
    let start = &body[..body.len().min(64)];
    start.windows(6).any(|window| window == b"Status")
}

/// An answer as JSON.
fn as_json(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    let plain: Bytes = if header(headers, CONTENT_ENCODING.as_str()) == "gzip" {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).take(MAX_OBJECT_BYTES).read_to_end(&mut text).ok()?;
        text.into()
    } else {
        body.clone()
    };
    let media = header(headers, CONTENT_TYPE.as_str());
    if media.starts_with("application/json") {
        return Some(plain);
    }
    if media.starts_with("application/yaml") {
        let value: Value = serde_yaml_ng::from_slice(&plain).ok()?;
        return Some(value.to_string().into());
    }
    let view = api::envelope::view(&plain).ok()?;
    let schema = schema_of(view.api_version, view.kind)?;
    let mut text = Vec::new();
    transcode::proto_to_json(schema, view.raw, Some((view.api_version, view.kind)), &mut text).ok()?;
    Some(text.into())
}

/// The schema of what an envelope holds: an object, a list of objects, or one of the general kinds.
fn schema_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    if let Some(row) = api::known_name(api_version, kind) {
        return Some(row.schema());
    }
    if let Some(row) = kind.strip_suffix("List").and_then(|item| api::known_name(api_version, item)) {
        return api::schema::message(&format!("{}List", row.schema().name));
    }
    api::schema::message(&format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}"))
}

/// A body at whose end, or early death, the request is complete.
struct Watched {
    body: Body,
    record: Option<Record>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<http_body::Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(record), Ok(runtime)) = (self.record.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { record.process(Stage::ResponseComplete).await });
        }
    }
}

/// Turns what breaks while a request is served into an answer.
pub async fn guard(work: impl Future<Output = Result<Response<Body>>>) -> Result<Response<Body>> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(cause) => {
            tracing::error!(cause = text_of(&*cause), "a request could not be served because of a defect");
            let text = "This request caused apiserver to panic. Look in the logs for details.\n";
            let mut response = answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
            response.extensions_mut().insert(Broken(text_of(&*cause).to_owned()));
            Ok(response)
        }
    }
}

/// Why a request broke, with its answer.
#[derive(Clone)]
struct Broken(String);

fn text_of(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<&str>().copied();
    text.or_else(|| cause.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// The audit's counters, for `/metrics`.
#[must_use]
pub fn metrics(app: &App) -> String {
    let Some(auditor) = &app.auditor else { return String::new() };
    let counts = auditor.counts();
    let mut text = Text::default();
    let mut family = |name: &str, help: &str, rows: &mut dyn Iterator<Item = (Option<(&str, &str)>, u64)>| {
        text.family(name, "counter", &format!("[ALPHA] {help}"));
        for (label, count) in rows {
            text.sample(name, label.as_slice(), count);
        }
    };
    let by = |label: &'static str| move |(key, count): (&&'static str, &u64)| (Some((label, *key)), *count);
    let one = |count: u64| std::iter::once((None, count));
    family(
        "apiserver_audit_event_total",
        "Counter of audit events generated and sent to the audit backend.",
        &mut one(counts.events),
    );
    family(
        "apiserver_audit_error_total",
        "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
        &mut counts.lost.iter().map(by("plugin")),
    );
    family(
        "apiserver_audit_level_total",
        "Counter of policy levels for audit events (1 per request).",
        &mut counts.levels.iter().map(by("level")),
    );
    family(
        "apiserver_audit_requests_rejected_total",
        "Counter of apiserver requests rejected due to an error in audit logging backend.",
        &mut one(counts.rejected),
    );
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

    #[tokio::test]
    async fn what_breaks_is_answered_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (policy, path) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
        std::fs::write(&policy, POLICY).unwrap();
        let log = audit::LogConfig {
            path: path.clone(),
            format: audit::Format::Json,
            max_bytes: 1 << 20,
            max_age: None,
            max_backups: 0,
            compress: false,
        };
        let config = audit::Config { policy, log: Some((log, audit::Mode::Blocking, None)), webhook: None };
        let auditor = audit::Auditor::new(&config, None).unwrap();
        let request = audit::Request {
            user: "jane",
            groups: &[],
            verb: "get",
            is_resource: false,
            group: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "/version",
        };
        let record = auditor.begin(&request, |level| Event::new("id".to_owned(), level, jiff::Timestamp::UNIX_EPOCH));
        let response = guard(async { panic!("a defect") }).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        finish(record, response, Noted::Object, false).await;
        let event: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((&event["stage"], &event["responseStatus"]["code"]), (&"Panic".into(), &500.into()));
        assert_eq!(event["responseStatus"]["message"], "APIServer panic'd: a defect");
    }

    #[test]
    fn addresses_that_somebody_says_come_before_the_one_we_see() {
        let request = http::Request::get("/")
            .header("x-forwarded-for", "192.0.2.1, nonsense, 192.0.2.2")
            .header("x-real-ip", "192.0.2.1")
            .extension(PeerAddress("::ffff:192.0.2.3".parse().unwrap()));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let texts: Vec<String> = source_ips(&parts).iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    }
}
