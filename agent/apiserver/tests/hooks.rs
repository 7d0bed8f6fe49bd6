//! What webhooks and policies are asked about: subresources, connections, deletions, and objects in other versions.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use apiserver::ApiService;
use base64::Engine as _;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{JSON, send, server};

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const MERGE: &str = "application/merge-patch+json";

/// What was asked, by the path of the hook.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Allows everything. What is sent to `/mutate` gets the patch that the test says, but for what only probes.
async fn listen(patch: Value) -> (u16, String, Asked) {
    let asked = Asked::default();
    let own = asked.clone();
    let answer = move |path: &str, review: &Value| {
        own.lock().push((path.to_owned(), review["request"].clone()));
        let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
        if path == "/mutate" && review["request"]["resource"]["resource"] != "namespaces" {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch.to_string()).into();
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    };
    let (port, pem) = support::webhook::serve(answer).await;
    (port, pem, asked)
}

async fn create(server: &ApiService, uri: &str, value: Value) -> Value {
    let (code, made) = send(server, Method::POST, uri, JSON, value).await;
    assert!(code.is_success(), "{uri}: {code} {made}");
    made
}

/// Registers hooks of both sorts, and waits until they are asked.
async fn register(server: &ApiService, (port, pem, asked): &(u16, String, Asked), rules: Value) {
    let mut rules = rules;
    // By this rule it is seen that the configuration is in force.
    let probe =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["namespaces"]});
    rules.as_array_mut().unwrap().push(probe);
    for (plural, path) in [("mutatingwebhookconfigurations", "mutate"), ("validatingwebhookconfigurations", "look")] {
        let hook = json!({"metadata": {"name": path}, "webhooks": [{"name": format!("{path}.example.test"),
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": rules, "matchPolicy": "Equivalent",
            "clientConfig": {"url": format!("https://localhost:{port}//{path}/"),
                "caBundle": base64::engine::general_purpose::STANDARD.encode(pem)}}]});
        create(server, &format!("{REGISTRATION}/{plural}"), hook).await;
    }
    let both = async {
        let seen = |path: &str| asked.lock().iter().any(|(p, _)| p == path);
        while !(seen("/mutate") && seen("/look")) {
            let probe = json!({"metadata": {"name": "probe"}});
            send(server, Method::POST, "/api/v1/namespaces?dryRun=All", JSON, probe).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), both).await.unwrap();
    asked.lock().clear();
}

/// The requests that a hook was sent since.
fn taken(asked: &Asked, path: &str) -> Vec<Value> {
    asked.lock().iter().filter(|(p, _)| p == path).map(|(_, request)| request.clone()).collect()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "automountServiceAccountToken": false}})
}

async fn with_account(server: &ApiService) {
    create(server, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
}

fn kind_of(request: &Value) -> [&str; 4] {
    ["/kind/kind", "/resource/resource", "/subResource", "/operation"]
        .map(|p| request.pointer(p).unwrap().as_str().unwrap())
}

#[tokio::test]
async fn hooks_that_are_busy_are_asked_again() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let asked = Arc::new(Mutex::new(0));
    let own = asked.clone();
    let answer = move |_: &str, review: &Value| {
        *own.lock() += 1;
        if *own.lock() < 3 {
            return Value::Null;
        }
        let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": {"message": "at last"}});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    };
    let (port, pem) = support::webhook::serve(answer).await;
    let hook = json!({"metadata": {"name": "a"}, "webhooks": [{"name": "a.example.test", "failurePolicy": "Ignore",
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["namespaces"]}],
        "clientConfig": {"url": format!("https://localhost:{port}/"),
            "caBundle": base64::engine::general_purpose::STANDARD.encode(pem)}}]});
    create(&server, &format!("{REGISTRATION}/validatingwebhookconfigurations"), hook).await;
    let refused = async {
        loop {
            let probe = json!({"metadata": {"name": "probe"}});
            let (_, said) = send(&server, Method::POST, "/api/v1/namespaces?dryRun=All", JSON, probe).await;
            if said["kind"] == "Status" {
                break said["message"].as_str().unwrap_or_default().to_owned();
            }
        }
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(30), refused).await.unwrap();
    assert!(said.ends_with("denied the request: at last"), "{said}");
    assert_eq!(*asked.lock(), 3);
    shutdown.trigger();
}

#[tokio::test]
async fn hooks_see_what_is_posted_to_a_pod() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    with_account(&server).await;
    create(&server, PODS, pod("a")).await;
    let hooks = listen(json!([])).await;
    let below = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
        "resources": ["pods", "pods/eviction", "pods/binding", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy",
            "serviceaccounts/token", "bindings"]},
        {"apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["*"]}]);
    register(&server, &hooks, below).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    create(&server, &format!("{PODS}/a/binding"), binding).await;
    let asks: &[(&str, Value)] = &[
        ("exec?command=ls&command=-l&stdout=true&container=c", Value::Null),
        ("attach?stdin=1", Value::Null),
        ("portforward?ports=80&ports=81", Value::Null),
        ("proxy/some/path", Value::Null),
        (
            "eviction",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"},
            "deleteOptions": {"gracePeriodSeconds": 0}}),
        ),
    ];
    for (path, body) in asks {
        send(&server, Method::POST, &format!("{PODS}/a/{path}"), JSON, body.clone()).await;
    }
    let review = json!({"spec": {"user": "u", "nonResourceAttributes": {"path": "/", "verb": "get"}}});
    create(&server, "/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
    for path in ["/mutate", "/look"] {
        let asked = taken(&hooks.2, path);
        let kinds: Vec<[&str; 4]> = asked.iter().filter(|r| r["subResource"].is_string()).map(kind_of).collect();
        // That an eviction deletes the pod nobody is asked about again.
        assert_eq!(
            kinds,
            [
                ["Binding", "pods", "binding", "CREATE"],
                ["PodExecOptions", "pods", "exec", "CONNECT"],
                ["PodAttachOptions", "pods", "attach", "CONNECT"],
                ["PodPortForwardOptions", "pods", "portforward", "CONNECT"],
                ["PodProxyOptions", "pods", "proxy", "CONNECT"],
                ["Eviction", "pods", "eviction", "CREATE"],
            ],
            "{path}"
        );
        assert_eq!(asked.len(), kinds.len() + 1, "{path}: and the review");
        assert_eq!(asked[0]["object"]["target"]["name"], "n");
        let exec = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "c", "command": ["ls", "-l"]});
        assert_eq!((&asked[1]["object"], &asked[1]["options"]), (&exec, &Value::Null));
        assert_eq!(asked[3]["object"]["ports"], json!([80, 81]));
        assert_eq!(asked[4]["object"]["path"], "/some/path");
        assert_eq!(asked[5]["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
        assert_eq!((&asked[5]["name"], &asked[5]["namespace"]), (&json!("a"), &json!("default")));
        assert_eq!(asked[5]["object"]["deleteOptions"]["gracePeriodSeconds"], 0);
    }
    let (code, _) = send(&server, Method::GET, &format!("{PODS}/a"), JSON, Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND, "evicted");
}

/// Hooks stand before the server's own part: they see what the client wants, and what they make of it is prepared.
#[tokio::test]
async fn hooks_see_objects_before_the_server_prepares_them() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let patch = json!([{"op": "add", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/status", "value": {"replicas": 9}}]);
    let hooks = listen(patch).await;
    let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"]}]);
    let deployment = json!({"metadata": {"generateName": "d-"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let before = create(&server, DEPLOYMENTS, deployment.clone()).await;
    register(&server, &hooks, rules).await;

    let made = create(&server, DEPLOYMENTS, deployment).await;
    assert!(made["metadata"]["name"].as_str().unwrap().len() > 2, "{made}");
    assert_eq!((&made["spec"]["replicas"], &made["status"]["replicas"]), (&json!(3), &Value::Null));
    let seen = &taken(&hooks.2, "/mutate")[0];
    assert_eq!(seen["name"], Value::Null, "{seen}");
    for key in ["name", "uid", "creationTimestamp", "generation"] {
        assert_eq!(seen["object"]["metadata"][key], Value::Null, "{key}");
    }
    let looked = &taken(&hooks.2, "/look")[0];
    assert_eq!(looked["object"]["metadata"]["uid"], made["metadata"]["uid"]);

    // What a hook wishes for is a new generation as well.
    let uri = format!("{DEPLOYMENTS}/{}", before["metadata"]["name"].as_str().unwrap());
    let label = json!({"metadata": {"labels": {"new": "label"}}});
    let (code, changed) = send(&server, Method::PATCH, &uri, MERGE, label).await;
    assert_eq!((code, &changed["metadata"]["generation"]), (StatusCode::OK, &json!(2)), "{changed}");
    shutdown.trigger();
}

#[tokio::test]
async fn hooks_see_and_change_a_scale() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let labels = json!({"a": "b"});
    create(
        &server,
        DEPLOYMENTS,
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
    .await;
    let hooks = listen(json!([{"op": "replace", "path": "/spec/replicas", "value": 7}])).await;
    let scale = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]}]);
    register(&server, &hooks, scale).await;
    let uri = format!("{DEPLOYMENTS}/d/scale");
    let (code, scaled) = send(&server, Method::PATCH, &uri, MERGE, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(7)), "{scaled}");
    let (_, deployment) = send(&server, Method::GET, &format!("{DEPLOYMENTS}/d"), JSON, Value::Null).await;
    assert_eq!(deployment["spec"]["replicas"], 7);
    let (mutating, validating) = (taken(&hooks.2, "/mutate"), taken(&hooks.2, "/look"));
    let numbers = |request: &Value| {
        let at = |key: &str| request[key]["spec"]["replicas"].as_i64();
        (request["object"]["kind"].as_str().map(str::to_owned), at("oldObject"), at("object"))
    };
    assert_eq!(mutating.iter().map(numbers).collect::<Vec<_>>(), [(Some("Scale".to_owned()), Some(1), Some(3))]);
    assert_eq!(validating.iter().map(numbers).collect::<Vec<_>>(), [(Some("Scale".to_owned()), Some(1), Some(7))]);
    assert_eq!(validating[0]["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(validating[0]["options"], json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}));
}

#[tokio::test]
async fn hooks_see_a_built_in_object_in_the_version_that_they_know() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let metric = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let hooks = listen(json!([{"op": "add", "path": "/spec/metrics/-", "value": metric}])).await;
    let second = json!([{"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["*"], "resources": ["horizontalpodautoscalers"]}]);
    register(&server, &hooks, second).await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let made = create(&server, SCALERS, scaler).await;
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(80))
    );
    let asked = taken(&hooks.2, "/look").remove(0);
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v2");
    let names: Vec<&Value> =
        asked["object"]["spec"]["metrics"].as_array().unwrap().iter().map(|m| &m["resource"]["name"]).collect();
    // On its way through v1 what that version has a field for goes last.
    assert_eq!(names, ["memory", "cpu"]);
    assert_eq!((&asked["resource"]["version"], &asked["requestResource"]["version"]), (&json!("v2"), &json!("v1")));
    let second = SCALERS.replace("/v1/", "/v2/");
    let (_, stored) = send(&server, Method::GET, &format!("{second}/h"), JSON, Value::Null).await;
    assert_eq!(stored["spec"]["metrics"].as_array().unwrap().len(), 2, "{stored}");
    // What goes is shown as it was.
    let options = json!({"propagationPolicy": "Background", "dryRun": ["All"]});
    let (code, _) = send(&server, Method::DELETE, &format!("{SCALERS}/h"), JSON, options).await;
    // The mutating hook wants to change what goes.
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    let asked = taken(&hooks.2, "/mutate").pop().unwrap();
    assert_eq!(
        (&asked["operation"], &asked["object"], &asked["dryRun"]),
        (&json!("DELETE"), &Value::Null, &json!(true))
    );
    assert_eq!(asked["oldObject"]["spec"]["metrics"].as_array().unwrap().len(), 2);
    assert_eq!(asked["options"]["propagationPolicy"], "Background");
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FIRST: &str = "/apis/example.com/v1/namespaces/default/hosts";

fn host() -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": "h"}, "spec": {"a": "x"}})
}

/// `spec.a` of the first version is `spec.b` of the second.
fn converted(review: &Value) -> Value {
    let to = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let convert = |object: &Value| {
        let mut object = object.clone();
        let (from, into) = if to.ends_with("v2") { ("a", "b") } else { ("b", "a") };
        object["apiVersion"] = to.into();
        object["spec"] = json!({into: object["spec"][from]});
        object
    };
    let objects: Vec<Value> = review["request"]["objects"].as_array().unwrap().iter().map(convert).collect();
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response":
        {"uid": review["request"]["uid"], "convertedObjects": objects, "result": {"status": "Success"}}})
}

async fn define(server: &ApiService) {
    let (port, pem) = support::webhook::serve(|_, review| converted(review)).await;
    let version = |name: &str, field: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}}}})
    };
    let definition = json!({"metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "hosts", "kind": "Host"}, "versions": [version("v1", "a", true), version("v2", "b", false)],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
            "url": format!("https://localhost:{port}/"),
            "caBundle": base64::engine::general_purpose::STANDARD.encode(pem)}}}}});
    create(server, DEFINITIONS, definition).await;
    let served = async {
        while send(server, Method::GET, FIRST, JSON, Value::Null).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), served).await.unwrap();
}

#[tokio::test]
async fn custom_objects_are_converted_for_hooks_and_policies() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let second =
        json!([{"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["*"], "resources": ["hosts"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": second, "matchPolicy": "Equivalent"},
        "validations": [{"expression": "object.spec.b != 'bad-changed'", "message": "not this one"}]}});
    create(&server, &format!("{REGISTRATION}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    create(&server, &format!("{REGISTRATION}/validatingadmissionpolicybindings"), binding).await;
    let policy = json!({"metadata": {"name": "m"}, "spec": {"matchConstraints": {"resourceRules": second, "matchPolicy": "Equivalent"},
        "reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration":
            {"expression": "Object{metadata: Object.metadata{labels: {'seen': object.spec.b}}}"}}]}});
    create(&server, &format!("{REGISTRATION}/mutatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "m"}, "spec": {"policyName": "m"}});
    create(&server, &format!("{REGISTRATION}/mutatingadmissionpolicybindings"), binding).await;
    let hooks = listen(json!([{"op": "test", "path": "/apiVersion", "value": "example.com/v2"},
        {"op": "replace", "path": "/spec/b", "value": "bad-changed"}]))
    .await;
    // The hooks come last, so that all is in force once they are asked.
    let rules =
        json!([{"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["*"], "resources": ["hosts"]}]);
    register(&server, &hooks, rules).await;
    let (code, refused) = send(&server, Method::POST, FIRST, JSON, host()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(refused["message"].as_str().unwrap().ends_with("denied request: not this one"), "{refused}");
    let asked = taken(&hooks.2, "/mutate").remove(0);
    assert_eq!(
        (&asked["object"]["apiVersion"], &asked["object"]["spec"]),
        (&json!("example.com/v2"), &json!({"b": "x"}))
    );
    assert_eq!(asked["object"]["metadata"]["labels"], json!({"seen": "x"}), "the policy came first");
    let gone = format!("{REGISTRATION}/validatingadmissionpolicies/p");
    assert_eq!(send(&server, Method::DELETE, &gone, JSON, Value::Null).await.0, StatusCode::OK);
    let made = async {
        loop {
            let (code, made) = send(&server, Method::POST, FIRST, JSON, host()).await;
            if code == StatusCode::CREATED {
                return made;
            }
        }
    };
    let made = tokio::time::timeout(std::time::Duration::from_secs(30), made).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v1"), &json!({"a": "bad-changed"})));
}

#[tokio::test]
async fn policies_judge_what_is_posted_to_subresources() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    with_account(&server).await;
    create(&server, PODS, pod("a")).await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
        "resources": ["pods/eviction", "pods/binding", "pods/exec", "namespaces"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules}, "validations": [
        {"expression": "false", "messageExpression": "'no ' + request.kind.kind + ' of ' + request.subResource + ' ' + request.operation"}]}});
    create(&server, &format!("{REGISTRATION}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    create(&server, &format!("{REGISTRATION}/validatingadmissionpolicybindings"), binding).await;
    let in_force = async {
        let probe = json!({"metadata": {"name": "probe"}});
        while send(&server, Method::POST, "/api/v1/namespaces?dryRun=All", JSON, probe.clone()).await.0.is_success() {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), in_force).await.unwrap();
    for (path, body, why) in [
        ("eviction", json!({"metadata": {"name": "a"}}), "no Eviction of eviction CREATE"),
        ("binding", json!({"metadata": {"name": "a"}, "target": {"name": "n"}}), "no Binding of binding CREATE"),
        ("exec?command=ls", Value::Null, "no PodExecOptions of exec CONNECT"),
    ] {
        let (code, refused) = send(&server, Method::POST, &format!("{PODS}/a/{path}"), JSON, body).await;
        let by = "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";
        assert_eq!(
            (code, refused["message"].as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, Some(format!("{by}{why}").as_str()))
        );
    }
    let (code, there) = send(&server, Method::GET, &format!("{PODS}/a"), JSON, Value::Null).await;
    assert_eq!((code, there["spec"].get("nodeName")), (StatusCode::OK, None), "neither evicted nor bound");
}
