//! What clients ask for seldom, in the answers that upstream gives.
#![allow(clippy::unwrap_used)]

mod support;

use apiserver::ApiService;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send};
use tower::ServiceExt;

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with a service account, so that pods are let in.
async fn server(shutdown: &lifecycle::Shutdown) -> ApiService {
    let server = support::server(shutdown).await;
    ask(&server, Method::POST, &format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    server
}

async fn ask(server: &ApiService, method: Method, uri: &str, body: Value) -> (u16, Value) {
    let kind = if method == Method::PATCH { "application/strategic-merge-patch+json" } else { JSON };
    let (code, answer) = send(server, method, uri, kind, body).await;
    (code.as_u16(), answer)
}

/// The code and the text of a request whose answer is no object.
async fn page(server: &ApiService, method: Method, uri: &str, accept: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(uri).header("accept", accept);
    let response = server.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

async fn pod(server: &ApiService, name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    let (code, made) = ask(server, Method::POST, PODS, pod).await;
    assert_eq!(code, 201, "{made}");
    made
}

#[tokio::test]
async fn queries_say_how_to_delete() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    pod(&server, "p", json!({"nodeName": "n"})).await;
    for (query, code) in [
        ("uid=other", 409),
        ("resourceVersion=1", 409),
        ("uid=&resourceVersion=", 200),
        ("propagationPolicy=", 422),
        ("dryRun", 422),
        ("orphanDependents=false", 202),
        ("orphanDependents=true", 200),
        // More than three centuries.
        ("gracePeriodSeconds=9223372036854775807", 200),
    ] {
        let (told, answer) = ask(&server, Method::DELETE, &format!("{PODS}/p?dryRun=All&{query}"), Value::Null).await;
        assert_eq!(told, code, "{query}: {answer}");
    }
    let (code, _) =
        ask(&server, Method::DELETE, &format!("{NAMESPACE}/configmaps?resourceVersion=0"), Value::Null).await;
    assert_eq!(code, 200, "of nothing there is no other version");
    let kind = json!({"kind": "ConfigMap", "apiVersion": "v1"});
    assert_eq!(ask(&server, Method::DELETE, &format!("{NAMESPACE}/configmaps"), kind).await.0, 400);
    ask(&server, Method::PATCH, &format!("{PODS}/p"), json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    ask(&server, Method::DELETE, &format!("{PODS}/p"), Value::Null).await;
    let changed = json!({"metadata": {"deletionGracePeriodSeconds": 5}});
    assert_eq!(ask(&server, Method::PATCH, &format!("{PODS}/p"), changed).await.0, 422);
    shutdown.trigger();
}

#[tokio::test]
async fn evictions_tell_what_is_left_of_a_budget() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "p"}}, "minAvailable": 1}});
    ask(&server, Method::POST, budgets, budget).await;
    let status = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1,
        "expectedPods": 2, "observedGeneration": 1}});
    ask(&server, Method::PATCH, &format!("{budgets}/b/status"), status).await;
    pod(&server, "p", json!({"nodeName": "n"})).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    ask(&server, Method::PATCH, &format!("{PODS}/p/status"), ready).await;
    let evict = async |query: &str, metadata: Value| {
        ask(&server, Method::POST, &format!("{PODS}/p/eviction{query}"), json!({"metadata": metadata})).await
    };
    assert_eq!(evict("?dryRun=x", json!({"name": "p"})).await.0, 422);
    let (code, answer) = evict("", json!({"name": "p", "namespace": "other"})).await;
    assert_eq!((code, answer["reason"].as_str()), (400, Some("BadRequest")));
    ask(&server, Method::PATCH, &format!("{PODS}/p"), json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    assert_eq!(evict("", json!({"name": "p"})).await.0, 201);
    let (_, budget) = ask(&server, Method::GET, &format!("{budgets}/b"), Value::Null).await;
    let condition = &budget["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("DisruptionAllowed"), &json!("False")));
    assert_eq!(
        (&condition["reason"], &budget["status"]["disruptionsAllowed"]),
        (&json!("InsufficientPods"), &json!(0))
    );
    shutdown.trigger();
}

#[tokio::test]
async fn budgets_say_why_nothing_may_go() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let make = async |name: &str, app: &str| {
        let spec = json!({"selector": {"matchLabels": {"app": app}}, "minAvailable": 1});
        ask(&server, Method::POST, budgets, json!({"metadata": {"name": name}, "spec": spec})).await;
        let status = json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 1,
            "expectedPods": 2, "observedGeneration": 1}});
        ask(&server, Method::PATCH, &format!("{budgets}/{name}/status"), status).await;
    };
    for (name, budget) in [("p", "one"), ("q", "two"), ("q", "three")] {
        make(budget, name).await;
    }
    for name in ["p", "q"] {
        pod(&server, name, json!({"nodeName": "n"})).await;
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        ask(&server, Method::PATCH, &format!("{PODS}/{name}/status"), ready).await;
    }
    let evict = async |name: &str| {
        ask(&server, Method::POST, &format!("{PODS}/{name}/eviction"), json!({"metadata": {"name": name}})).await
    };
    let (code, answer) = evict("p").await;
    let why = "The disruption budget one does not allow evicting pods currently";
    assert_eq!((code, &answer["details"]["causes"][0]["message"]), (429, &json!(why)));
    let (code, answer) = evict("q").await;
    assert_eq!((code, answer["reason"].is_null(), answer["details"].is_null()), (500, true, true), "{answer}");
    shutdown.trigger();
}

#[tokio::test]
async fn bindings_mean_one_pod_of_their_namespace() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    pod(&server, "p", json!({})).await;
    let bind = async |uri: &str, metadata: Value| {
        let body = json!({"metadata": metadata, "target": {"name": "n"}});
        ask(&server, Method::POST, &format!("{NAMESPACE}/{uri}?dryRun=All"), body).await
    };
    let (code, answer) = bind("pods/p/binding", json!({"name": "p", "uid": "other"})).await;
    assert_eq!((code, &answer["details"]["kind"]), (409, &json!("pods")), "{answer}");
    assert_eq!(bind("bindings", json!({"name": "p", "uid": "other"})).await.0, 201);
    for uri in ["bindings", "pods/p/binding"] {
        assert_eq!(bind(uri, json!({"name": "p", "namespace": "other"})).await.0, 400, "{uri}");
    }
    assert_eq!(ask(&server, Method::POST, "/api/v1/bindings", json!({})).await.0, 404);
    shutdown.trigger();
}

#[tokio::test]
async fn containers_neither_come_nor_go_when_a_pod_is_resized() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    pod(&server, "p", json!({})).await;
    let more = json!({"spec": {"containers": [{"name": "d", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}});
    let (code, answer) = ask(&server, Method::PATCH, &format!("{PODS}/p/resize"), more).await;
    let why = "containers may not be added or removed on resize";
    assert_eq!((code, answer["message"].as_str().is_some_and(|text| text.contains(why))), (422, true), "{answer}");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (part, code) in [("resize", 406), ("ephemeralcontainers", 406), ("status", 200)] {
        assert_eq!(page(&server, Method::GET, &format!("{PODS}/p/{part}"), table).await.0, code, "{part}");
    }
    shutdown.trigger();
}

#[tokio::test]
async fn watches_from_now_on_tell_where_that_begins() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let uri = format!("{NAMESPACE}/configmaps?watch=1&timeoutSeconds=1");
    for version in ["", "&resourceVersion=0"] {
        let (_, told) = page(&server, Method::GET, &format!("{uri}&allowWatchBookmarks=true{version}"), JSON).await;
        assert!(told.contains("k8s.io/initial-events-end"), "{version}: {told}");
        let (_, told) = page(&server, Method::GET, &format!("{uri}{version}"), JSON).await;
        assert_eq!(told, "", "{version}");
    }
    assert_eq!(page(&server, Method::GET, &format!("{uri}&limit=x"), JSON).await.0, 400);
    let sets = "/apis/apps/v1/replicasets?fieldSelector=status.replicas%3D1";
    assert_eq!(page(&server, Method::GET, sets, JSON).await.0, 400);
    shutdown.trigger();
}

#[tokio::test]
async fn odd_paths_lead_where_upstreams_do() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    for (uri, accept, code) in [
        ("//api", JSON, 404),
        ("/%61pi%2Fv1", JSON, 200),
        ("/healthz/", "", 404),
        ("/livez/ping/", "", 404),
        ("/metrics/", "", 404),
        ("/healthz", "", 200),
        ("/%zz", "", 400),
        ("/version", "text/plain", 406),
        ("/version", "text/plain, */*", 200),
        ("/version/", "", 200),
    ] {
        assert_eq!(page(&server, Method::GET, uri, accept).await.0, code, "{uri} {accept}");
    }
    let (code, told) = page(&server, Method::GET, &format!("{NAMESPACE}/pods/p/log"), "text/plain").await;
    assert!(code == 406 && told.contains("only the following media types are accepted"), "{told}");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    assert_eq!(page(&server, Method::HEAD, "/api", aggregated).await.0, 405);
    shutdown.trigger();
}

#[tokio::test]
async fn where_nothing_is_served_no_method_is_refused() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let methods =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD];
    for path in [
        "/api/v1/pods/x",
        "/api/v1/pods/x/status",
        "/apis/apps/v1/deployments/x/scale",
        "/api/v1/namespaces/default/nodes/x",
        "/api/v1/namespaces/default/pods/x/nothing",
        "/api/v1/namespaces/default/pods/x/status/more",
        "/api/v1/namespaces/default/pods/x/exec/more",
        "/api/v1/namespaces/default/bindings/x",
        "/api/v1//pods",
        "/api/v1/watch/pods/x",
        "/api/v1/watch/componentstatuses",
        "/api/v1/watch/namespaces/default/bindings",
        "/api/v1/watch/namespaces/default/pods/x/status",
        "/api/v1/proxy/nodes/x",
    ] {
        for method in &methods {
            let is_shortened = path == "/api/v1//pods" && [Method::GET, Method::HEAD].contains(method);
            let code = page(&server, method.clone(), path, JSON).await.0;
            assert!(code == 404 || is_shortened, "{method} {path}: {code}");
        }
    }
    shutdown.trigger();
}

#[tokio::test]
async fn old_paths_of_watches_are_for_watching_what_they_name() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    pod(&server, "x", json!({})).await;
    let old = "/api/v1/watch/namespaces/default/pods/x";
    for path in
        [old, "/api/v1/watch/namespaces/default/pods", "/api/v1/watch/namespaces/default", "/api/v1/watch/nodes"]
    {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD] {
            assert_eq!(page(&server, method.clone(), path, JSON).await.0, 405, "{method} {path}");
        }
    }
    assert_eq!(ask(&server, Method::GET, &format!("{PODS}/x"), Value::Null).await.0, 200);
    for selector in ["metadata.name%3Dy", "spec.nodeName%3Dn", "metadata.name!%3Dx"] {
        let (code, told) = page(&server, Method::GET, &format!("{old}?fieldSelector={selector}"), JSON).await;
        assert!(code == 400 && told.contains("metadata.name doesn't match requested name"), "{selector}: {told}");
    }
    for selector in ["metadata.name%3Dx", "metadata.name%3Dx,spec.nodeName%3D"] {
        let uri = format!("{old}?timeoutSeconds=1&fieldSelector={selector}");
        let (code, told) = page(&server, Method::GET, &uri, JSON).await;
        assert!(code == 200 && told.contains("\"ADDED\""), "{selector}: {told}");
    }
    shutdown.trigger();
}

#[tokio::test]
async fn people_read_everything_in_lines() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, accept) in [
        ("/api", JSON),
        ("/apis", JSON),
        ("/apis", aggregated),
        ("/apis/apps", JSON),
        ("/apis/apps/v1", JSON),
        (NAMESPACE, JSON),
        ("/api/v1/namespaces/none", JSON),
        ("/api/v1/nothing", JSON),
        ("/api/v1/pods?limit=x", JSON),
    ] {
        let mark = if path.contains('?') { '&' } else { '?' };
        let (_, plain) = page(&server, Method::GET, &format!("{path}{mark}pretty=0"), accept).await;
        let (_, indented) = page(&server, Method::GET, &format!("{path}{mark}pretty=1"), accept).await;
        assert!(plain.find('\n') == Some(plain.len() - 1) && plain.ends_with("}\n"), "{path}: {plain}");
        assert!(indented.starts_with("{\n  \"") && indented.ends_with("\n}"), "{path}: {indented}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&plain), read(&indented), "{path}");
    }
    shutdown.trigger();
}
