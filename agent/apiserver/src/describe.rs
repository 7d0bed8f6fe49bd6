//! OpenAPI documents as answers: forms, tags, times, parts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LAST_MODIFIED,
    LOCATION, RANGE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::answer::{self, Body};
use crate::app::App;
use crate::openapi::Document;
use crate::request::Query;

/// What documents in protobuf are called in answers; in requests the older spelling with an at sign is known too.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];
const PROTOBUF_V3: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
];
const JSON: &str = "application/json";

/// Whether a path is answered here.
pub fn is(path: &str) -> bool {
    path == "/openapi/v2" || path.starts_with("/openapi/v3")
}

/// Answers a path below `/openapi`, by any method.
pub fn serve(app: &Arc<App>, parts: &Parts, path: &str, query: &Query) -> Response<Body> {
    if path == "/openapi/v2/" {
        return answer::no_page();
    }
    if path == "/openapi/v2" {
        let mut response = match form(&parts.headers, &[JSON, PROTOBUF[0], PROTOBUF[1]]) {
            None => empty(StatusCode::NOT_ACCEPTABLE),
            Some(JSON) => tagged(parts, JSON, &app.openapi.v2(), true),
            Some(_) => tagged(parts, PROTOBUF[0], &app.openapi.v2_protobuf(), true),
        };
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        return response;
    }
    if path == "/openapi/v3" {
        let mut response = tagged(parts, "text/plain; charset=utf-8", &index(app), false);
        // The index says of itself no more than that it is text.
        response.headers_mut().remove(ETAG);
        return response;
    }
    let Some(document) = path.strip_prefix("/openapi/v3/") else { return empty(StatusCode::NOT_FOUND) };
    let found = match form(&parts.headers, &[JSON, PROTOBUF_V3[0], PROTOBUF_V3[1]]) {
        // Whether it exists is told even to those who would not take it.
        None => app.openapi.v3(document).map(|_| None),
        Some(JSON) => app.openapi.v3(document).map(|made| Some((JSON, made))),
        Some(_) => app.openapi.v3_protobuf(document).map(|made| Some((PROTOBUF_V3[0], made))),
    };
    let mut response = match found {
        None => return empty(StatusCode::NOT_FOUND),
        Some(None) => empty(StatusCode::NOT_ACCEPTABLE),
        Some(Some((media_type, document))) => group_version(parts, (path, media_type), query, &document),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn index(app: &App) -> Document {
    app.openapi.v3_index(&app.aggregator.group_versions())
}

/// The document of a group version: for ever, if the query names its hash.
fn group_version(
    parts: &Parts,
    (path, media_type): (&str, &str),
    query: &Query,
    document: &Document,
) -> Response<Body> {
    let asked = query.get("hash");
    if !asked.is_empty() && asked != &*document.hash {
        let mut response = empty(StatusCode::MOVED_PERMANENTLY);
        let headers = response.headers_mut();
        answer::set(headers, CONTENT_TYPE, media_type);
        answer::set(headers, ETAG, &format!("\"{}\"", document.hash));
        answer::set(headers, LOCATION, &format!("{path}?hash={}", document.hash));
        return response;
    }
    let mut response = tagged(parts, media_type, document, false);
    if !asked.is_empty() {
        const YEAR: i64 = 365 * 24 * 3600;
        answer::set(response.headers_mut(), CACHE_CONTROL, "public, immutable");
        answer::set(response.headers_mut(), EXPIRES, &http_time(crate::app::now() + YEAR, "UTC"));
    }
    response
}

fn empty(code: StatusCode) -> Response<Body> {
    let mut response = answer::bytes(code, JSON, Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// The first form of those there are that a client takes.
fn form(headers: &HeaderMap, forms: &[&'static str]) -> Option<&'static str> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut medias: Vec<(f32, &str)> = accept.split(',').map(media).filter(|(_, media)| !media.is_empty()).collect();
    if medias.is_empty() {
        return forms.first().copied();
    }
    // The best first; of those that are as good, patterns last.
    medias.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.contains('*').cmp(&b.1.contains('*'))));
    medias.into_iter().find_map(|(_, media)| match media {
        "*/*" | "application/*" => forms.first().copied(),
        media => forms.iter().copied().find(|form| *form == media),
    })
}

/// A clause: how good it is, and its media type.
fn media(clause: &str) -> (f32, &str) {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
    (quality.unwrap_or(1.0), media)
}

/// Whether a client that knows these tags knows this one, weakly or not.
fn is_known(known: &str, tag: &str) -> bool {
    let mut tags = known.split(',').map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// A moment as HTTP tells it.
fn http_time(seconds: i64, zone: &str) -> String {
    let moment = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    format!("{} {zone}", moment.strftime("%a, %d %b %Y %H:%M:%S"))
}

/// An answer that a client who has it already need not read again.
fn tagged(parts: &Parts, media_type: &str, document: &Document, compresses: bool) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = parts.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| is_known(known, &tag)) {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        answer::set(response.headers_mut(), ETAG, &tag);
        return response;
    }
    let bytes = document.bytes();
    let range = parts.headers.get(RANGE).and_then(|v| v.to_str().ok()).map(|range| part(range, bytes.len()));
    let packs = compresses && bytes.len() > answer::COMPRESS_ABOVE && answer::accepts_gzip(&parts.headers);
    let mut response = match range.flatten() {
        Some((first, last)) => {
            let mut response =
                answer::bytes(StatusCode::PARTIAL_CONTENT, media_type, bytes.slice(first..last.saturating_add(1)));
            let place = format!("bytes {first}-{last}/{}", bytes.len());
            answer::set(response.headers_mut(), CONTENT_RANGE, &place);
            response
        }
        None if packs => answer::large(StatusCode::OK, media_type, answer::full(document.packed.clone()), true),
        None => answer::bytes(StatusCode::OK, media_type, bytes),
    };
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer::set(headers, ETAG, &tag);
    answer::set(headers, LAST_MODIFIED, &http_time(document.made, "GMT"));
    response
}

/// First and last byte of a single range that can be answered; otherwise the whole is.
fn part(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = len.checked_sub(1)?;
    let found = match (first.trim(), last.trim()) {
        ("", count) => (len.saturating_sub(count.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, end.min(last.parse().ok()?)),
    };
    (found.0 <= found.1).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_negotiated() {
        let wants = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            form(&headers, &[JSON, PROTOBUF[0], PROTOBUF[1]])
        };
        assert_eq!(form(&HeaderMap::new(), &[JSON]), Some(JSON));
        assert_eq!(
            (wants("*/*"), wants("text/plain"), wants("text/html, application/*;q=0.5")),
            (Some(JSON), None, Some(JSON))
        );
        assert_eq!(wants(&format!("{}, {JSON}", PROTOBUF[1])), Some(PROTOBUF[1]));
        assert_eq!(wants(&format!("{JSON};q=0.1, {}", PROTOBUF[0])), Some(PROTOBUF[0]));
        assert_eq!(wants(&format!("*/*, {}", PROTOBUF[0])), Some(PROTOBUF[0]));
    }

    #[test]
    fn tags_are_known_in_lists_and_weakly() {
        let all = ["\"a\"", "W/\"a\"", "*", "\"x\", \"a\""];
        assert!(all.iter().all(|known| is_known(known, "\"a\"")));
        assert!(!is_known("a", "\"a\"") && !is_known("\"b\"", "\"a\""));
    }

    #[test]
    fn ranges_are_cut() {
        assert_eq!(part("bytes=0-3", 10), Some((0, 3)));
        assert_eq!(
            (part("bytes=8-20", 10), part("bytes=-2", 10), part("bytes=4-", 10)),
            (Some((8, 9)), Some((8, 9)), Some((4, 9)))
        );
        assert_eq!((part("bytes=12-", 10), part("bytes=0-1,4-5", 10), part("items=0-1", 10)), (None, None, None));
        assert_eq!(http_time(0, "GMT"), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
