//! A server in process, on a store in memory, that everybody may do everything with.

use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const JSON: &str = "application/json";

#[allow(dead_code, reason = "not every test is of the plain server")]
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
