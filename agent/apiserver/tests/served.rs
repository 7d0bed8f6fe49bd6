//! Group versions that are switched on and off, through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config, Served};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{JSON, send};

async fn server(words: &str, shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let served = Served::try_new(&[words.to_owned()], |_| true, true).unwrap();
    let config = Config { authorization: Authorization::AlwaysAllow, served, ..Config::default() };
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

async fn get(server: &ApiService, path: &str) -> (StatusCode, Value) {
    send(server, Method::GET, path, JSON, Value::Null).await
}

#[tokio::test]
async fn versions_that_are_off_are_nowhere() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server("policy/v1=false,apps/v1/daemonsets=false", &shutdown).await;
    let groups = get(&server, "/apis").await.1.to_string();
    assert!(!groups.contains("policy/v1") && groups.contains("apps/v1"));
    for path in
        ["/apis/policy", "/apis/policy/v1", "/apis/policy/v1/poddisruptionbudgets", "/openapi/v3/apis/policy/v1"]
    {
        assert_eq!(get(&server, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(get(&server, "/apis/apps/v1/daemonsets").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, "/apis/apps/v1/deployments").await.0, StatusCode::OK);
    let document = get(&server, "/openapi/v3/apis/apps/v1").await.1;
    assert!(document["paths"].get("/apis/apps/v1/daemonsets").is_none());
    assert!(document["paths"].get("/apis/apps/v1/deployments").is_some());
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    assert_eq!(get(&server, &format!("{services}/v1.policy")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &format!("{services}/v1.apps")).await.0, StatusCode::OK);
    shutdown.trigger();
}

#[tokio::test]
async fn versions_that_are_on_show_the_same_objects() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server("api/all=true", &shutdown).await;
    let claims = |version: &str| format!("/apis/resource.k8s.io/{version}/namespaces/default/resourceclaims");
    let claim = json!({"metadata": {"name": "a"}, "spec": {"devices": {"requests": [
        {"name": "r", "deviceClassName": "c", "tolerations": [{"key": "k"}]},
    ]}}});
    let (code, made) = send(&server, Method::POST, &claims("v1beta1"), JSON, claim).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let request = json!({"name": "r", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1,
        "tolerations": [{"key": "k", "operator": "Equal"}]});
    assert_eq!(made["spec"]["devices"]["requests"], json!([request]));
    for version in ["v1", "v1beta2"] {
        let (_, shown) = get(&server, &format!("{}/a", claims(version))).await;
        assert_eq!(shown["apiVersion"], format!("resource.k8s.io/{version}"));
        assert_eq!(shown["spec"]["devices"]["requests"][0]["exactly"]["tolerations"][0]["operator"], "Equal");
    }
    let ranges = "/apis/networking.k8s.io/v1beta1/servicecidrs";
    let (_, list) = get(&server, ranges).await;
    assert_eq!(
        (&list["apiVersion"], list["items"].as_array().map(Vec::len)),
        (&json!("networking.k8s.io/v1beta1"), Some(1))
    );
    let (code, _) = send(
        &server,
        Method::POST,
        "/apis/coordination.k8s.io/v1alpha2/namespaces/default/leasecandidates",
        JSON,
        json!({"metadata": {"name": "a"}, "spec": {"leaseName": "l", "binaryVersion": "1.36.0", "strategy": "a.io/b"}}),
    )
    .await;
    assert_eq!(code, StatusCode::CREATED);
    let document = get(&server, "/openapi/v3/apis/networking.k8s.io/v1beta1").await.1;
    assert!(document["components"]["schemas"].get("io.k8s.api.networking.v1beta1.IPAddress").is_some());
    let group = get(&server, "/apis/resource.k8s.io").await.1;
    let versions: Vec<&str> =
        group["versions"].as_array().unwrap().iter().filter_map(|v| v["version"].as_str()).collect();
    assert_eq!(versions, ["v1", "v1beta2", "v1beta1", "v1alpha3"]);
    shutdown.trigger();
}
