//! What the audit log says of requests.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use support::{JSON, send};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  nonResourceURLs: ['*']
- level: Metadata
  omitStages: [RequestReceived]
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  omitStages: [RequestReceived]
  omitManagedFields: true
";

async fn server(folder: &Path, shutdown: &lifecycle::Shutdown) -> ApiService {
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let log = audit::LogConfig {
        path: folder.join("audit.log"),
        format: audit::Format::Json,
        max_bytes: 1 << 30,
        max_age: None,
        max_backups: 0,
        compress: false,
    };
    let audit = audit::Config { policy, log: Some((log, audit::Mode::Blocking, None)), webhook: None };
    let store = store::Embedded::in_memory().await.unwrap();
    let config = Config { authorization: Authorization::AlwaysAllow, audit: Some(audit), ..Config::default() };
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

fn events(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_log_tells_who_did_what_to_which_object() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(folder.path(), &shutdown).await;
    let at = "/api/v1/namespaces/default";
    let object = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "annotations": {"l": "<"}}, "data": {"key": "c2VjcmV0"}});
    let secrets = format!("{at}/secrets");
    assert_eq!(send(&server, Method::POST, &secrets, JSON, object("Secret")).await.0, StatusCode::CREATED);
    let maps = format!("{at}/configmaps");
    send(&server, Method::POST, &maps, JSON, object("ConfigMap")).await;
    send(&server, Method::PATCH, &format!("{maps}/x"), "application/merge-patch+json", json!({"data": {"a": "b"}}))
        .await;
    send(&server, Method::GET, &format!("{maps}/none"), JSON, Value::Null).await;
    send(&server, Method::DELETE, &format!("{maps}/x"), JSON, json!({"propagationPolicy": "Background"})).await;
    send(&server, Method::GET, "/version", JSON, Value::Null).await;
    let events = events(folder.path());
    let shown: Vec<String> = events
        .iter()
        .map(|e| {
            format!("{} {} {} {}", e["level"], e["stage"], e["verb"], e["responseStatus"]["code"]).replace('"', "")
        })
        .collect();
    let of = |verb: &str, code| format!("RequestResponse ResponseComplete {verb} {code}");
    let secret = "Metadata ResponseComplete create 201".to_owned();
    assert_eq!(shown, [secret, of("create", 201), of("patch", 200), of("get", 404), of("delete", 200)]);
    let secret = &events[0];
    assert!(!secret.to_string().contains("c2VjcmV0"));
    let reference = json!({"resource": "secrets", "namespace": "default", "name": "x", "apiVersion": "v1"});
    assert_eq!(secret["objectRef"], reference);
    assert_eq!(secret["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(events[1]["requestObject"], object("ConfigMap"));
    assert_eq!(events[1]["responseObject"]["data"], object("ConfigMap")["data"]);
    assert!(events[1]["responseObject"]["metadata"]["uid"].is_string());
    assert!(events[1]["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(events[2]["requestObject"], json!({"data": {"a": "b"}}));
    assert_eq!(events[3]["responseStatus"]["reason"], "NotFound");
    assert_eq!(events[3]["responseObject"]["kind"], "Status");
    assert_eq!(events[4]["requestObject"]["propagationPolicy"], "Background");
    assert_eq!(events[4]["responseStatus"]["status"], "Success");
}

#[tokio::test]
async fn objects_of_any_encoding_are_told_as_json_and_watches_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(folder.path(), &shutdown).await;
    let ask = |uri: &str| {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let request = Request::get(uri).header("accept", protobuf).header("x-forwarded-for", "192.0.2.1, x");
        request.body(Full::new(bytes::Bytes::new())).unwrap()
    };
    let list = server.clone().oneshot(ask("/api/v1/namespaces?limit=1")).await.unwrap();
    list.into_body().collect().await.unwrap();
    let watch = server.clone().oneshot(ask("/api/v1/namespaces?watch=1&timeoutSeconds=600")).await.unwrap();
    let before = events(folder.path());
    assert_eq!(before[0]["responseObject"]["kind"], "NamespaceList");
    assert_eq!(before[0]["responseObject"]["items"][0]["metadata"]["name"], "default");
    assert_eq!(before[0]["sourceIPs"], json!(["192.0.2.1"]));
    assert_eq!((&before[1]["stage"], &before[1]["verb"]), (&json!("ResponseStarted"), &json!("watch")));
    drop(watch);
    // What is left to do is one task, ahead of this one.
    while events(folder.path()).len() < 3 {
        tokio::task::yield_now().await;
    }
    let last = &events(folder.path())[2];
    assert_eq!((&last["stage"], &last["auditID"]), (&json!("ResponseComplete"), &before[1]["auditID"]));
}

#[tokio::test]
async fn the_first_demand_that_is_not_met_is_the_one_noted() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(folder.path(), &shutdown).await;
    let registration = "/apis/admissionregistration.k8s.io/v1";
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "message": "one"}, {"expression": "false", "message": "two"}]}});
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny", "Audit"]}});
    for (kind, object) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)] {
        assert_eq!(
            send(&server, Method::POST, &format!("{registration}/{kind}"), JSON, object).await.0,
            StatusCode::CREATED
        );
    }
    let map = json!({"metadata": {"name": "m"}});
    let uri = "/api/v1/namespaces/default/configmaps?dryRun=All";
    while send(&server, Method::POST, uri, JSON, map.clone()).await.0 != StatusCode::UNPROCESSABLE_ENTITY {
        tokio::task::yield_now().await;
    }
    let last = events(folder.path()).pop().unwrap();
    let noted = last["annotations"]["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let noted: Value = serde_json::from_str(noted).unwrap();
    assert_eq!((&noted[0]["message"], &noted[0]["expressionIndex"]), (&json!("one"), &json!(0)));
}

#[tokio::test]
async fn a_patch_of_a_scale_is_noted_as_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(folder.path(), &shutdown).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"a": "b"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": template}});
    assert_eq!(send(&server, Method::POST, deployments, JSON, object).await.0, StatusCode::CREATED);
    let patch = json!({"spec": {"replicas": 3}});
    let uri = format!("{deployments}/d/scale");
    let (code, _) = send(&server, Method::PATCH, &uri, "application/merge-patch+json", patch.clone()).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(events(folder.path()).pop().unwrap()["requestObject"], patch);
}

#[tokio::test]
async fn the_narrow_right_to_act_as_somebody_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(folder.path(), &shutdown).await;
    for (group, constraint) in
        [("a", json!({"impersonationConstraint": "impersonate:user-info"})), ("system:masters", Value::Null)]
    {
        let request =
            Request::get("/api/v1/namespaces").header("impersonate-user", "jane").header("impersonate-group", group);
        let answer = server.clone().oneshot(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let last = events(folder.path()).pop().unwrap();
        assert_eq!(last["impersonatedUser"]["username"], "jane");
        assert_eq!(last["authenticationMetadata"], constraint);
    }
}
