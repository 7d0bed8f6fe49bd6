//! Bodies: protobuf envelopes, and Status in whichever form it comes.

use api::meta::v1::{Status, StatusDetails};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use prost::Message;
use serde_json::Value;

use crate::error::DecodeError;

/// The protobuf content type, as asked for and as sent.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Whatever the server has: objects of custom resources have no protobuf form.
pub(crate) const EITHER: &str = "application/vnd.kubernetes.protobuf, application/json";
/// The same for watches, with the form older servers know.
pub(crate) const PROTOBUF_WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch, \
                                         application/vnd.kubernetes.protobuf";
/// The JSON content type.
pub(crate) const JSON: &str = "application/json";

/// Whether the headers announce protobuf.
pub(crate) fn is_protobuf(headers: &HeaderMap) -> bool {
    content_type(headers).starts_with(PROTOBUF)
}

pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Decodes an answer that has to be protobuf.
pub(crate) fn message<M: Message + Default>(
    what: &'static str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<M, DecodeError> {
    if !is_protobuf(headers) {
        return Err(DecodeError::ContentType(content_type(headers).to_owned()));
    }
    enveloped(what, body)
}

/// Decodes the object in an envelope.
pub(crate) fn enveloped<M: Message + Default>(what: &'static str, body: &[u8]) -> Result<M, DecodeError> {
    let view = api::envelope::view(body).map_err(|source| DecodeError::Envelope { what, source: source.into() })?;
    M::decode(view.raw).map_err(|source| DecodeError::Message { what, source })
}

/// The Status in a failed answer; one is made up where the body holds none, as with a proxy's own errors.
pub(crate) fn status(code: StatusCode, headers: &HeaderMap, body: &Bytes) -> Status {
    let parsed = if is_protobuf(headers) { enveloped::<Status>("Status", body).ok() } else { json_status(body) };
    let mut status = parsed.unwrap_or_else(|| Status {
        message: String::from_utf8_lossy(&body[..body.len().min(MESSAGE_BYTES)]).trim().to_owned(),
        ..Status::default()
    });
    if status.code == 0 {
        status.code = i32::from(code.as_u16());
    }
    status
}

/// How much of a foreign error page is worth keeping.
const MESSAGE_BYTES: usize = 1024;

fn json_status(body: &[u8]) -> Option<Status> {
    let value: Value = serde_json::from_slice(body).ok()?;
    if value["kind"] != "Status" {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let small = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or_default();
    let details = &value["details"];
    let mut status = Status {
        status: text(&value["status"]),
        message: text(&value["message"]),
        reason: text(&value["reason"]),
        code: small(&value["code"]),
        ..Status::default()
    };
    if details.is_object() {
        status.details = Some(StatusDetails {
            name: text(&details["name"]),
            group: text(&details["group"]),
            kind: text(&details["kind"]),
            uid: text(&details["uid"]),
            retry_after_seconds: small(&details["retryAfterSeconds"]),
            ..StatusDetails::default()
        });
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn a_status_is_read_from_protobuf_json_and_foreign_text() {
        let sent = Status { reason: "NotFound".to_owned(), code: 404, ..Status::default() };
        let body = Bytes::from(api::envelope::encode_as("v1", "Status", &sent));
        assert_eq!(status(StatusCode::NOT_FOUND, &headers(PROTOBUF), &body), sent);

        let body = Bytes::from_static(br#"{"kind":"Status","reason":"Conflict","code":409,"message":"m"}"#);
        let read = status(StatusCode::CONFLICT, &headers("application/json"), &body);
        assert_eq!((read.reason.as_str(), read.code, read.message.as_str()), ("Conflict", 409, "m"));

        let read = status(StatusCode::BAD_GATEWAY, &headers("text/plain"), &Bytes::from_static(b"upstream gone\n"));
        assert_eq!((read.reason.as_str(), read.code, read.message.as_str()), ("", 502, "upstream gone"));
    }
}
