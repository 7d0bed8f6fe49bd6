//! Admission plugins that are switched and set, through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use api::features::Features;
use apiserver::{AdmissionSettings, ApiService, Authorization, Config, Plugins};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{JSON, send};

const EVENTS: &str = "/api/v1/namespaces/default/events";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn server(config: Config, shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let config = Config { authorization: Authorization::AlwaysAllow, ..config };
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

fn plugins(on: &[&str], off: &[&str]) -> Plugins {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Plugins::try_new(&names(on), &names(off)).unwrap()
}

fn settings(plugin: Value) -> AdmissionSettings {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admission.yaml");
    let file =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]});
    std::fs::write(&path, file.to_string()).unwrap();
    AdmissionSettings::from_file(&path).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "a:1"}]}})
}

#[tokio::test]
async fn events_beyond_the_limit_are_refused() {
    let shutdown = lifecycle::Shutdown::new();
    let limits = json!({"name": "EventRateLimit", "configuration": {
        "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": [{"type": "Namespace", "qps": 1, "burst": 1}],
    }});
    let (plugins, admission) = (plugins(&["EventRateLimit"], &[]), settings(limits));
    let server = server(Config { plugins, admission, ..Config::default() }, &shutdown).await;
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default", "kind": "Pod", "name": "a"}});
    assert_eq!(send(&server, Method::POST, EVENTS, JSON, event("a")).await.0, StatusCode::CREATED);
    let (mut code, mut body) = (StatusCode::CREATED, Value::Null);
    // A slow machine may give some back in between.
    for index in 0..20 {
        if code == StatusCode::CREATED {
            (code, body) = send(&server, Method::POST, EVENTS, JSON, event(&format!("b{index}"))).await;
        }
    }
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["message"], "Too many requests: limit reached on type Namespace for key default");
    let dry = format!("{EVENTS}?dryRun=All");
    assert_eq!(send(&server, Method::POST, &dry, JSON, event("c")).await.0, StatusCode::CREATED);
    shutdown.trigger();
}

#[tokio::test]
async fn pods_are_held_to_what_the_settings_demand() {
    let shutdown = lifecycle::Shutdown::new();
    let security = json!({"name": "PodSecurity", "configuration": {
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline"}, "exemptions": {"namespaces": ["kube-system"]},
    }});
    let plugins = plugins(&["AlwaysPullImages", "DenyServiceExternalIPs"], &["ServiceAccount", "Priority"]);
    let config = Config { plugins, admission: settings(security), ..Config::default() };
    let server = server(config, &shutdown).await;
    let (code, body) = send(&server, Method::POST, PODS, JSON, pod("a")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body["message"].as_str().unwrap().contains("violates PodSecurity \"baseline:latest\""), "{body}");
    let (code, made) = send(&server, Method::POST, "/api/v1/namespaces/kube-system/pods", JSON, pod("a")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert!(made["spec"]["serviceAccountName"].is_null() && made["spec"]["priority"].is_null());
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}], "externalIPs": ["1.2.3.4"]}});
    let (code, body) = send(&server, Method::POST, SERVICES, JSON, service).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body["message"].as_str().unwrap().ends_with("Use of external IPs is denied by admission control"));
    shutdown.trigger();
}

#[tokio::test]
async fn plugins_and_features_that_are_off_do_nothing() {
    let shutdown = lifecycle::Shutdown::new();
    let features = Features::parse(["WatchList=false,StorageVersionHash=false,ComponentStatusz=false"]).unwrap();
    let plugins = plugins(&[], &["PodSecurity", "NamespaceLifecycle", "ServiceAccount"]);
    let server = server(Config { plugins, features, ..Config::default() }, &shutdown).await;
    let (code, _) = send(&server, Method::POST, "/api/v1/namespaces/nowhere/pods", JSON, pod("a")).await;
    assert_eq!(code, StatusCode::CREATED);
    let watch = format!("{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let (code, body) = send(&server, Method::GET, &watch, JSON, Value::Null).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let text = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    assert!(body["message"].as_str().unwrap().contains(text), "{body}");
    let (_, list) = send(&server, Method::GET, "/api/v1", JSON, Value::Null).await;
    assert!(list["resources"][0].get("storageVersionHash").is_none());
    assert_eq!(send(&server, Method::GET, "/statusz", JSON, Value::Null).await.0, StatusCode::NOT_FOUND);
    shutdown.trigger();
}
