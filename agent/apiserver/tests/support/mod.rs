//! A server in process, on a store in memory, that everybody may do everything with.

#[allow(dead_code, reason = "not every test has an etcd")]
pub(crate) mod etcd;
#[allow(dead_code, reason = "not every test has objects of upstream's")]
pub(crate) mod golden;
#[allow(dead_code, reason = "not every test has servers that are processes")]
pub(crate) mod launched;
#[allow(dead_code, reason = "not every test changes things at random")]
pub(crate) mod mutation;
#[allow(dead_code, reason = "not every test has webhooks")]
pub(crate) mod webhook;

use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const JSON: &str = "application/json";

#[allow(dead_code, reason = "not every test has one server")]
pub(crate) async fn server(shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let config = Config { authorization: Authorization::AlwaysAllow, ..Config::default() };
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

pub(crate) async fn send(
    server: &ApiService,
    method: Method,
    uri: &str,
    kind: &str,
    body: Value,
) -> (StatusCode, Value) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request =
        Request::builder().method(method).uri(uri).header("content-type", kind).body(Full::new(body)).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// How long a test waits for what has to come.
#[allow(dead_code, reason = "not every test watches")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Reads a watch until an event satisfies a condition on its type and its object; returns the object.
#[allow(dead_code, reason = "not every test watches")]
pub(crate) async fn until(server: &ApiService, uri: &str, holds: impl Fn(&str, &Value) -> bool) -> Value {
    let read = async {
        let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        let mut body = server.clone().oneshot(request).await.unwrap().into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let mut event: Value = serde_json::from_slice(&text[..end]).unwrap();
                text.drain(..=end);
                if holds(event["type"].as_str().unwrap_or_default(), &event["object"]) {
                    return event["object"].take();
                }
            }
        }
        panic!("the watch {uri} ended");
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_elapsed| panic!("{uri} never showed it"))
}
