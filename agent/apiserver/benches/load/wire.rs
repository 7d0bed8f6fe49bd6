//! Requests whose answers nobody decodes: the client is to cost little.

use bytes::Bytes;
use client::{Client, ResponseBody};
use futures::stream::{self, StreamExt as _};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::Result;

/// Requests under way at a time.
const WIDTH: usize = 32;
/// As much of a refusal as is told.
const TOLD_BYTES: usize = 500;

pub(crate) const JSON: &str = "application/json";

/// A request with a body of some type.
pub(crate) struct Write {
    pub(crate) method: Method,
    pub(crate) kind: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// Sends something, and reads the answer to its end.
pub(crate) async fn write(client: &Client, Write { method, kind, path, body }: Write) -> Result<()> {
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, JSON);
    let request = request.header(header::CONTENT_TYPE, kind).body(Bytes::from(body.to_string()))?;
    drain(ask(client, request).await?).await
}

/// Opens something. Its answer waits to be read.
pub(crate) async fn open(client: &Client, path: &str, accept: &str) -> Result<ResponseBody> {
    ask(client, Request::get(path).header(header::ACCEPT, accept).body(Bytes::new())?).await
}

/// Reads something to its end.
pub(crate) async fn read(client: &Client, path: &str, accept: &str) -> Result<()> {
    drain(open(client, path, accept).await?).await
}

/// The object at a path.
pub(crate) async fn object(client: &Client, path: &str) -> Result<Value> {
    let body = open(client, path, JSON).await?.collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

pub(crate) async fn drain(mut body: ResponseBody) -> Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

async fn ask(client: &Client, request: Request<Bytes>) -> Result<ResponseBody> {
    let asked = format!("{} {}", request.method(), request.uri());
    let answer = client.raw(request).await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let body = answer.into_body().collect().await?.to_bytes();
    let told = String::from_utf8_lossy(&body[..body.len().min(TOLD_BYTES)]);
    Err(format!("{asked}: {status} {told}").into())
}

/// Does something for each number, several at a time. Returns how often.
pub(crate) async fn many(numbers: std::ops::Range<usize>, work: impl AsyncFn(usize) -> Result<()>) -> Result<usize> {
    let (count, work) = (numbers.len(), &work);
    let mut done = stream::iter(numbers).map(|n| work(n)).buffer_unordered(WIDTH);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(count)
}
