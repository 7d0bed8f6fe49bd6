//! Objects as upstream's API server stored them (`golden/import` says how they came here): what is read of them in every
//! encoding and written back is the same, byte for byte.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use lifecycle::Shutdown;
use store::{Embedded, Store as _};
use support::golden::{Stored, kind_of, stored};
use support::{JSON, send};
use tower::ServiceExt as _;

const ENCODINGS: [&str; 3] = [JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Objects of a definition that is among them.
const CUSTOM: (&str, &str) = ("/registry/v.example.test/seeds", "/apis/v.example.test/v1/seeds");
/// The group of webhooks and policies, which are in force where they are stored.
const HOOKS: &str = "admissionregistration.k8s.io";

/// Objects whose update is noted in their managed fields also if it says nothing new, upstream as here: of Jobs the
/// server itself makes fields that nobody owns, and this event was made in another group.
const NOTED: [&str; 2] = ["/registry/jobs/", "/registry/events/golden/seed-new"];

/// Where an object is served.
fn path_of(key: &str) -> String {
    let Some(kind) = kind_of(key) else { return key.replacen(CUSTOM.0, CUSTOM.1, 1) };
    let rest = key[kind.etcd_prefix.len() + 1..].to_owned();
    match rest.split_once('/').filter(|_| kind.namespaced) {
        Some((namespace, name)) => format!("{}/{name}", kind.path(Some(namespace))),
        None => format!("{}/{rest}", kind.path(None)),
    }
}

/// A server on these objects, once it serves the custom ones.
async fn server_on(objects: &Stored, shutdown: &Shutdown) -> (ApiService, Arc<Embedded>) {
    let store = Arc::new(Embedded::in_memory().await.unwrap());
    for (key, value) in objects {
        store.create(key.clone().into(), value.clone(), None).await.unwrap();
    }
    let config = Config { authorization: Authorization::AlwaysAllow, ..Config::default() };
    let (service, ready) = apiserver::service(config, store.clone(), shutdown).unwrap();
    ready.await;
    let is_custom = objects.keys().any(|key| key.starts_with(CUSTOM.0));
    let served = async {
        while is_custom
            && send(&service, Method::GET, CUSTOM.1, JSON, serde_json::Value::Null).await.0 != StatusCode::OK
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), served).await.unwrap();
    (service, store)
}

async fn exchange(server: &ApiService, request: http::request::Builder, body: Bytes) -> (StatusCode, Bytes) {
    let response = server.clone().oneshot(request.body(Full::new(body)).unwrap()).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

/// Reads an object and writes it back; says what is not as it was. If its bytes were other ones in the encoding of this
/// server, it would be written anew.
async fn there_and_back(
    server: &ApiService,
    store: &Embedded,
    (key, value): (&String, &Bytes),
    encoding: &str,
) -> Option<String> {
    let path = path_of(key);
    let (code, object) = exchange(server, Request::get(&path).header("accept", encoding), Bytes::new()).await;
    if code != StatusCode::OK {
        return Some(format!("{path} in {encoding}: GET {code} {}", String::from_utf8_lossy(&object)));
    }
    let put = Request::put(&path).header("content-type", encoding);
    let (code, answer) = exchange(server, put, object).await;
    if code != StatusCode::OK {
        return Some(format!("{path} in {encoding}: PUT {code} {}", String::from_utf8_lossy(&answer)));
    }
    if NOTED.iter().any(|noted| key.starts_with(noted)) {
        return None;
    }
    let now = store.get(key.as_bytes(), None).await.unwrap().kv.unwrap().value;
    let shown = |bytes: &Bytes| bytes.escape_ascii().to_string();
    (now != *value).then(|| format!("{path} in {encoding}:\n{}\nbecame\n{}", shown(value), shown(&now)))
}

async fn all_stay(objects: Stored) {
    let shutdown = Shutdown::new();
    let (server, store) = server_on(&objects, &shutdown).await;
    let mut wrong = Vec::new();
    for object in &objects {
        // What nobody serves as protobuf nobody writes as that either.
        let has_protobuf = kind_of(object.0).is_some();
        for encoding in &ENCODINGS[..if has_protobuf { 3 } else { 2 }] {
            wrong.extend(there_and_back(&server, &store, object, encoding).await);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), objects.len(), wrong.join("\n"));
    shutdown.trigger();
}

#[test]
fn there_is_an_object_of_every_kind() {
    let objects = stored();
    let kinds = api::kinds().filter(|k| !k.etcd_prefix.is_empty());
    let missing: Vec<&str> = kinds
        .filter(|k| !objects.keys().any(|key| kind_of(key).is_some_and(|own| own.etcd_prefix == k.etcd_prefix)))
        .map(|k| k.kind)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_and_policies_that_upstream_stored_stay_as_they_are() {
    let objects = stored().into_iter().filter(|(key, _)| kind_of(key).is_some_and(|k| k.group == HOOKS));
    all_stay(objects.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_stored_stays_as_it_is() {
    // Definitions are written by this server itself too, as soon as it serves them; addresses without Services are
    // given back.
    let is_own =
        |k: &api::Kind| k.group == HOOKS || k.plural == "customresourcedefinitions" || k.plural == "ipaddresses";
    let objects = stored().into_iter().filter(|(key, _)| kind_of(key).is_some_and(|k| !is_own(k)));
    all_stay(objects.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_no_service_has_are_given_back_at_the_start() {
    let is_address = |key: &String| kind_of(key).is_some_and(|k| k.plural == "ipaddresses");
    let objects: Stored = stored().into_iter().filter(|(key, _)| is_address(key)).collect();
    let taken = "/registry/ipaddresses/10.96.0.1";
    assert!(objects.contains_key(taken));
    let shutdown = Shutdown::new();
    let (server, _store) = server_on(&objects, &shutdown).await;
    let kubernetes = "/api/v1/namespaces/default/services/kubernetes";
    let (code, service) = send(&server, Method::GET, kubernetes, JSON, serde_json::Value::Null).await;
    assert_eq!((code, &service["spec"]["clusterIP"]), (StatusCode::OK, &"10.96.0.1".into()));
    shutdown.trigger();
}
