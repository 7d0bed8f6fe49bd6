//! Custom resources whose versions a webhook converts.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send, server};
use tower::ServiceExt as _;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/example.com/v2/namespaces/default/hosts";
const MERGE: &str = "application/merge-patch+json";

/// What the webhook was asked.
#[derive(Default)]
struct Asked {
    reviews: AtomicUsize,
    objects: AtomicUsize,
}

/// `spec.host` and `spec.port` of the first version are `spec.address` of the second.
fn convert(mut object: Value, to: &str) -> Value {
    object["apiVersion"] = to.into();
    let text = |key: &str| object["spec"][key].as_str().unwrap_or_default().to_owned();
    object["spec"] = if to.ends_with("/v2") {
        json!({"address": format!("{}:{}", text("host"), text("port"))})
    } else {
        let address = text("address");
        let (host, port) = address.split_once(':').unwrap_or((&address, ""));
        json!({"host": host, "port": port})
    };
    object
}

fn answer(path: &str, review: &Value, asked: &Asked) -> Value {
    let to = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects = review["request"]["objects"].as_array().unwrap();
    asked.reviews.fetch_add(1, Ordering::SeqCst);
    asked.objects.fetch_add(objects.len(), Ordering::SeqCst);
    let converted: Vec<Value> = objects.iter().map(|o| convert(o.clone(), to)).collect();
    let fails = path == "/fail";
    let result = if fails { json!({"status": "Failed", "message": "no way"}) } else { json!({"status": "Success"}) };
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"],
        "response": {"uid": review["request"]["uid"], "convertedObjects": converted, "result": result}})
}

/// A webhook on loopback: its port, its certificate in PEM, what it was asked.
async fn webhook() -> (u16, String, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    let own = asked.clone();
    let (port, pem) = support::webhook::serve(move |path, review| answer(path, review, &own)).await;
    (port, pem, asked)
}

fn definition(port: u16, pem: &str, path: &str) -> Value {
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|f| ((*f).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": fields},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    };
    let mut second = version("v2", false, &["address"]);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["zone"] =
        json!({"type": "string", "default": "x"});
    second["selectableFields"] = json!([{"jsonPath": ".spec.address"}]);
    json!({"metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "hosts", "kind": "Host"}, "versions": [version("v1", true, &["host", "port"]), second],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
            "url": format!("https://localhost:{port}{path}"),
            "caBundle": base64::engine::general_purpose::STANDARD.encode(pem)}}}}})
}

async fn define(server: &apiserver::ApiService, definition: Value) {
    let (code, made) = send(server, Method::POST, DEFINITIONS, JSON, definition).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let served = async {
        while send(server, Method::GET, V2, JSON, Value::Null).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap();
}

fn host(name: &str, host: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": name},
        "spec": {"host": host, "port": "80"}})
}

fn second_host() -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": "d"}, "spec": {"address": "d:443"}})
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let (port, pem, asked) = webhook().await;
    define(&server, definition(port, &pem, "/convert")).await;
    for name in ["a", "b", "c"] {
        let (code, made) = send(&server, Method::POST, V1, JSON, host(name, name)).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
    }
    assert_eq!(asked.reviews.load(Ordering::SeqCst), 0, "nothing was asked for in another version");
    let (_, list) = send(&server, Method::GET, V2, JSON, Value::Null).await;
    let shown: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|i| i["spec"]["address"].as_str()).collect();
    assert_eq!(shown, ["a:80", "b:80", "c:80"]);
    assert_eq!((asked.reviews.load(Ordering::SeqCst), asked.objects.load(Ordering::SeqCst)), (1, 3));
    let (_, one) = send(&server, Method::GET, &format!("{V2}/a"), JSON, Value::Null).await;
    assert_eq!(one["spec"], json!({"address": "a:80"}), "defaults are those of the version that is stored");
    assert_eq!(asked.reviews.load(Ordering::SeqCst), 1, "what was converted before is remembered");
    let (code, made) = send(&server, Method::POST, V2, JSON, second_host()).await;
    assert_eq!((code, &made["spec"]["address"]), (StatusCode::CREATED, &json!("d:443")), "{made}");
    let (_, stored) = send(&server, Method::GET, &format!("{V1}/d"), JSON, Value::Null).await;
    assert_eq!(stored["spec"], json!({"host": "d", "port": "443"}));
    let change = json!({"spec": {"address": "e:1"}});
    let (code, changed) = send(&server, Method::PATCH, &format!("{V2}/d"), MERGE, change).await;
    assert_eq!((code, &changed["metadata"]["generation"]), (StatusCode::OK, &json!(2)), "{changed}");
    let status = json!({"status": {"ready": true}});
    let (code, changed) = send(&server, Method::PATCH, &format!("{V2}/d/status"), MERGE, status).await;
    assert_eq!((code, &changed["spec"]["address"]), (StatusCode::OK, &json!("e:1")), "{changed}");
    let selected = format!("{V2}?fieldSelector=spec.address%3De:1");
    let (code, list) = send(&server, Method::GET, &selected, JSON, Value::Null).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{list}");
    let (code, _) = send(&server, Method::DELETE, &format!("{V2}/d"), JSON, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    shutdown.trigger();
}

#[tokio::test]
async fn events_are_told_in_the_version_that_is_watched() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let (port, pem, _) = webhook().await;
    define(&server, definition(port, &pem, "/convert")).await;
    send(&server, Method::POST, V1, JSON, host("a", "x")).await;
    let request = Request::builder().uri(format!("{V2}?watch=1")).body(Full::new(Bytes::new())).unwrap();
    let mut body = server.clone().oneshot(request).await.unwrap().into_body();
    let mut next = async || -> Value {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        serde_json::from_slice(&frame.into_data().unwrap()).unwrap()
    };
    let event = next().await;
    assert_eq!((&event["type"], &event["object"]["spec"]["address"]), (&json!("ADDED"), &json!("x:80")));
    send(&server, Method::POST, V1, JSON, host("b", "y")).await;
    let event = next().await;
    assert_eq!((&event["type"], &event["object"]["spec"]["address"]), (&json!("ADDED"), &json!("y:80")));
    send(&server, Method::DELETE, &format!("{V1}/b"), JSON, Value::Null).await;
    let event = next().await;
    assert_eq!((&event["type"], &event["object"]["apiVersion"]), (&json!("DELETED"), &json!("example.com/v2")));
    shutdown.trigger();
}

#[tokio::test]
async fn a_webhook_that_fails_is_told() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let (port, pem, _) = webhook().await;
    define(&server, definition(port, &pem, "/fail")).await;
    let (code, _) = send(&server, Method::POST, V1, JSON, host("a", "x")).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, status) = send(&server, Method::GET, &format!("{V2}/a"), JSON, Value::Null).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status["message"], "conversion webhook for example.com/v1, Kind=Host failed: no way");
    let (code, _) = send(&server, Method::POST, V2, JSON, second_host()).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    // Its definition can go all the same.
    let one = format!("{DEFINITIONS}/hosts.example.com");
    send(&server, Method::DELETE, &one, JSON, Value::Null).await;
    let gone = async {
        while send(&server, Method::GET, &one, JSON, Value::Null).await.0 != StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    shutdown.trigger();
}
