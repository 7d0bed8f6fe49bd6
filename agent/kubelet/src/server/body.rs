//! Bodies of answers.

use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces of a streamed body that may wait for a slow reader.
const PIECES: usize = 16;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any body.
pub(super) type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// A short text.
pub(super) fn text(code: StatusCode, text: &str) -> Response<Answer> {
    whole(code, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

/// A JSON value.
pub(super) fn json(value: &Value) -> Response<Answer> {
    whole(StatusCode::OK, "application/json", Bytes::from(value.to_string()))
}

pub(super) fn whole(code: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Answer> {
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// A body whose pieces come later; it ends when the sender is dropped.
pub(super) fn streamed(kind: &'static str) -> (mpsc::Sender<Bytes>, Response<Answer>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let frames = ReceiverStream::new(receiver).map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    (sender, response)
}

/// The headers of an answer.
pub(super) fn without(response: Response<Answer>) -> Response<Answer> {
    response.map(|_| Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
}

/// No body at all.
pub(super) fn empty(code: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response
}
