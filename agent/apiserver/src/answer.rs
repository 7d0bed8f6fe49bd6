//! Answers: bodies, headers, compression.

use std::collections::HashSet;
use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::codec;
use crate::negotiate::{Accept, Encoding};
use crate::status::{Failure, Result};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that could not be read to its end.
#[derive(Debug)]
pub struct BodyError(BoxError);

impl BodyError {
    /// An error of any kind of body.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Bodies above this size are compressed for clients that accept it.
pub const COMPRESS_ABOVE: usize = 128 << 10;

/// A body that is there already.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a body that is there already.
#[must_use]
pub fn bytes(code: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    set(response.headers_mut(), CONTENT_TYPE, media_type);
    response
}

/// A plain text answer.
#[must_use]
pub fn text(code: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body.into());
    response.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer for people: indented, without a line's end.
#[must_use]
pub fn indented_json(code: StatusCode, value: &Value) -> Response<Body> {
    indented(code, &value.to_string())
}

/// A JSON text for people: indented, without a line's end.
#[must_use]
pub fn indented(code: StatusCode, text: &str) -> Response<Body> {
    bytes(code, "application/json", codec::indent(text.as_bytes()))
}

/// A JSON object of finished values, with its keys in the order given.
pub fn ordered(fields: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(key, text)| format!("\"{key}\":{text}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// The answer where there is nothing.
#[must_use]
pub fn no_page() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A tree of a message of the schema in the encoding the client wants.
pub fn message(code: StatusCode, name: &str, value: &Value, accept: Accept) -> Result<Response<Body>> {
    let schema = codec::schema(name);
    let api_version = value["apiVersion"].as_str().unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or_default();
    let raw = api::transcode::value_to_proto(schema, value, &mut api::transcode::Report::default());
    let raw = raw.map_err(Failure::internal)?;
    let body: Bytes = match accept.encoding {
        Encoding::Protobuf => api::envelope::wrap(api_version, kind, &raw).into(),
        Encoding::Json => {
            let mut out = Vec::new();
            api::transcode::proto_to_json(schema, &raw, Some((api_version, kind)), &mut out)
                .map_err(Failure::internal)?;
            out.push(b'\n');
            if accept.pretty { codec::indent(&out) } else { out.into() }
        }
        Encoding::Yaml => {
            let named = Some((api_version, kind));
            let value = api::transcode::proto_to_value(schema, &raw, named).map_err(Failure::internal)?;
            codec::yaml(&value)?
        }
    };
    Ok(bytes(code, accept.encoding.media_type(), body))
}

/// The schema name of `Status`.
pub const STATUS: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.Status";

/// The answer to a request that failed.
#[must_use]
pub fn failure(failure: &Failure, accept: Accept) -> Response<Body> {
    let mut response = if failure.is_page() {
        let not_found = failure.code() == StatusCode::NOT_FOUND;
        let page = if not_found { "404 page not found" } else { failure.message() };
        text(failure.code(), format!("{page}\n"))
    } else {
        let value = failure.to_value();
        message(failure.code(), STATUS, &value, accept)
            .unwrap_or_else(|_| text(failure.code(), failure.message().to_owned()))
    };
    if let Some(seconds) = failure.retry_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A `Status` of success, as deletions answer it.
#[must_use]
pub fn success(details: Value) -> Value {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Sets a header whose value comes from a table or a number.
pub fn set(headers: &mut HeaderMap, name: impl http::header::IntoHeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Marks an answer that another server gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PassedOn {
    /// What it says of itself stands behind what this server says.
    Beside,
    /// It speaks to the client alone.
    Whole,
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const UNCACHED: HeaderValue = HeaderValue::from_static("no-cache, private");

/// What every answer carries. What another server says of itself stands behind what this one says.
pub fn common_headers(response: &mut Response<Body>, audit_id: &str, warnings: &[String]) {
    let passed_on = response.extensions().get::<PassedOn>().copied();
    if passed_on == Some(PassedOn::Whole) {
        return;
    }
    let is_passed_on = passed_on.is_some();
    let headers = response.headers_mut();
    let theirs = |headers: &HeaderMap, name: &HeaderName| -> Vec<HeaderValue> {
        headers.get_all(name).iter().filter(|_| is_passed_on).cloned().collect()
    };
    let (ids, cached) = (theirs(headers, &AUDIT_ID), theirs(headers, &CACHE_CONTROL));
    set(headers, AUDIT_ID, audit_id);
    ids.into_iter().for_each(|id| _ = headers.append(AUDIT_ID, id));
    // What becomes of a connection is nobody's to keep.
    let is_kept_nowhere = is_passed_on || !headers.contains_key(CACHE_CONTROL);
    if is_kept_nowhere && !headers.contains_key(http::header::UPGRADE) {
        headers.insert(CACHE_CONTROL, UNCACHED);
    }
    cached.into_iter().for_each(|theirs| _ = headers.append(CACHE_CONTROL, theirs));
    for warning in told_warnings(warnings) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(http::header::WARNING, value);
        }
    }
}

/// How many characters all warnings of an answer may have, and each of them where those are not enough.
const WARNING_CHARS: usize = 4 * 1024;
const CUT_WARNING_CHARS: usize = 256;

/// What a client is warned of: each text once, and no more texts than an answer tells.
#[derive(Default)]
pub struct Warnings {
    texts: Vec<String>,
    seen: HashSet<String>,
    /// Characters of all texts, and of what is left of them once they are cut.
    chars: (usize, usize),
}

impl Warnings {
    /// Adds a text.
    pub fn add(&mut self, text: String) {
        let (whole, cut) = self.chars;
        let is_full = whole > WARNING_CHARS && cut >= WARNING_CHARS;
        // A header holds no control characters: such a warning is not told.
        if is_full || text.is_empty() || text.chars().any(char::is_control) || self.seen.contains(&text) {
            return;
        }
        let count = text.chars().count();
        self.chars = (whole + count, cut + count.min(CUT_WARNING_CHARS));
        self.seen.insert(text.clone());
        self.texts.push(text);
    }

    /// The texts in the order in which they came.
    #[must_use]
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

/// Warnings as they are told. What is too much for all of them is cut from the end of each, and from their list.
fn told_warnings(warnings: &[String]) -> Vec<&str> {
    // A header holds no control characters: such a warning is not told.
    let all = warnings.iter().map(String::as_str);
    let all = all.filter(|text| !text.is_empty() && !text.chars().any(char::is_control));
    let whole: Vec<&str> = all.collect();
    let mut sum = 0;
    let fitting = whole.iter().take_while(|text| {
        sum += text.chars().count();
        sum <= WARNING_CHARS
    });
    let fitting = fitting.count();
    if fitting == whole.len() {
        return whole;
    }
    let cut = |text: &&'_ str| text.char_indices().nth(CUT_WARNING_CHARS).map_or(text.len(), |(at, _)| at);
    let mut told = Vec::new();
    let mut written = 0;
    for (at, text) in whole.iter().enumerate() {
        // The one that was too much is told with those before it.
        if at > fitting && written >= WARNING_CHARS {
            break;
        }
        let text = &text[..cut(text)];
        written += text.chars().count();
        told.push(text);
    }
    told
}

/// Whether the client takes compressed bodies.
#[must_use]
pub fn accepts_gzip(request: &HeaderMap) -> bool {
    request.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"))
}

/// Compresses a large body for a client that accepts it.
#[must_use]
pub fn compress(request: &HeaderMap, code: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    if body.len() <= COMPRESS_ABOVE || !accepts_gzip(request) {
        return bytes(code, media_type, body);
    }
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(packed) => large(code, media_type, full(packed), true),
        Err(_) => bytes(code, media_type, body),
    }
}

/// An answer with a large body, packed where the client accepts that.
#[must_use]
pub fn large(code: StatusCode, media_type: &str, body: Body, is_packed: bool) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    set(response.headers_mut(), CONTENT_TYPE, media_type);
    if is_packed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_says_stands_behind() {
        let told = |is_passed_on: bool| {
            let mut response = Response::new(full(""));
            if is_passed_on {
                response.extensions_mut().insert(PassedOn::Beside);
            }
            set(response.headers_mut(), AUDIT_ID, "theirs");
            set(response.headers_mut(), CACHE_CONTROL, "public");
            common_headers(&mut response, "own", &[]);
            let all = |name: &HeaderName| -> Vec<String> {
                response.headers().get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
            };
            (all(&AUDIT_ID), all(&CACHE_CONTROL))
        };
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(true), (texts(&["own", "theirs"]), texts(&["no-cache, private", "public"])));
        assert_eq!(told(false), (texts(&["own"]), texts(&["public"])));
    }

    #[test]
    fn warnings_are_cut_when_they_are_too_much() {
        let few = ["a".to_owned(), String::new(), "b\nc".to_owned(), "d".repeat(4000)];
        assert_eq!(told_warnings(&few), ["a", &few[3]]);
        let many: Vec<String> = (0..40).map(|i| format!("{i:0200}")).collect();
        // The 21st is too much; then each is short enough to stay whole, until all have 4096 characters.
        assert_eq!(told_warnings(&many).len(), 21);
        let long = ["é".repeat(300), "b".repeat(5000)];
        let lengths: Vec<usize> = told_warnings(&long).iter().map(|text| text.chars().count()).collect();
        assert_eq!(lengths, [256, 256]);
    }
    #[test]
    fn no_more_warnings_are_kept_than_are_told() {
        let texts = |count: usize| (0..count).map(|at| format!("unknown field \"k{at}\""));
        let mut warnings = Warnings::default();
        texts(300_000).chain(texts(10)).for_each(|text| warnings.add(text));
        let kept = warnings.into_texts();
        assert!(kept.len() < 300, "{}", kept.len());
        assert_eq!(told_warnings(&kept), told_warnings(&texts(1_000).collect::<Vec<_>>()));
    }
}
