//! Admission policies and match conditions through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use apiserver::ApiService;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{JSON, send, server};

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(server: &ApiService, plural: &str, value: Value) {
    let (code, made) = send(server, Method::POST, &format!("{REGISTRATION}/{plural}"), JSON, value).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
}

fn constraints() -> Value {
    json!({"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// Tries to make a ConfigMap until the server answers as expected: policies take effect a moment after the write.
async fn tried(server: &ApiService, value: Value, expected: StatusCode) -> Value {
    for _ in 0..10_000 {
        let (code, answer) = send(server, Method::POST, &format!("{MAPS}?dryRun=All"), JSON, value.clone()).await;
        if code == expected {
            return answer;
        }
        tokio::task::yield_now().await;
    }
    panic!("never {expected}");
}

#[tokio::test]
async fn validating_policies_refuse_what_does_not_hold() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    create(
        &server,
        "validatingadmissionpolicies",
        json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints(),
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'exempt'"}],
            "variables": [{"name": "data", "expression": "has(object.data) ? object.data : {}"}],
            "validations": [
                {"expression": "!('bad' in variables.data)", "message": "nothing bad", "reason": "Forbidden"},
                {"expression": "!('typo' in variables.data)", "messageExpression": "'typo is ' + variables.data['typo']"},
                {"expression": "size(variables.data) <= int(params.data.max)"},
                {"expression": "!('err' in variables.data) || variables.data['missing'] == 'x'"}]}}),
    )
    .await;
    let (code, made) = send(&server, Method::POST, MAPS, JSON, map("params", json!({"max": "2"}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let reference = json!({"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"});
    create(
        &server,
        "validatingadmissionpolicybindings",
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"], "paramRef": reference}}),
    )
    .await;
    let refused = tried(&server, map("a", json!({"bad": "x"})), StatusCode::FORBIDDEN).await;
    let text = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: nothing bad";
    assert_eq!(refused["message"], format!("configmaps \"a\" is forbidden: {text}"));
    assert_eq!((&refused["reason"], &refused["details"]["causes"][0]["message"]), (&json!("Forbidden"), &json!(text)));
    let invalid = StatusCode::UNPROCESSABLE_ENTITY;
    for (data, why) in [
        (json!({"typo": "x"}), "typo is x"),
        (json!({"a": "1", "b": "2", "c": "3"}), "failed expression: size(variables.data) <= int(params.data.max)"),
        (json!({"err": "x"}), "resulted in error: no such key: missing"),
    ] {
        let refused = tried(&server, map("a", data), invalid).await;
        assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
    }
    tried(&server, map("a", json!({"good": "x"})), StatusCode::CREATED).await;
    tried(&server, map("exempt", json!({"bad": "x"})), StatusCode::CREATED).await;
    let versioned = async |version: &str, data: Value| {
        let map = json!({"metadata": {"name": "v", "resourceVersion": version}, "data": data});
        let (code, answer) = send(&server, Method::POST, MAPS, JSON, map).await;
        (code, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let refused = format!("configmaps \"v\" is forbidden: {text}");
    assert_eq!(versioned("7", json!({"bad": "x"})).await, (StatusCode::FORBIDDEN, refused));
    let refused = "resourceVersion should not be set on objects to be created".to_owned();
    assert_eq!(versioned("7", json!({})).await, (StatusCode::INTERNAL_SERVER_ERROR, refused));
    assert_eq!(versioned("0", json!({})).await.0, StatusCode::CREATED);
    let tried = tried(&server, json!({"metadata": {"name": "w", "resourceVersion": "a"}}), StatusCode::CREATED).await;
    assert_eq!(tried["metadata"]["resourceVersion"], "a");
}

#[tokio::test]
async fn mutating_policies_change_objects() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    create(
        &server,
        "mutatingadmissionpolicies",
        json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints(), "reinvocationPolicy": "Never",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: {'added': object.metadata.name}}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('z'), value: 'yes'}]"}}]}}),
    )
    .await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    create(&server, "mutatingadmissionpolicybindings", binding).await;
    for _ in 0..10_000 {
        let made = tried(&server, map("m", json!({"x": "y"})), StatusCode::CREATED).await;
        if made["metadata"]["labels"].is_null() {
            tokio::task::yield_now().await;
            continue;
        }
        assert_eq!(made["metadata"]["labels"], json!({"added": "m"}));
        assert_eq!(made["data"], json!({"x": "y", "z": "yes"}));
        return;
    }
    panic!("never changed");
}

#[tokio::test]
async fn webhooks_are_asked_only_where_their_conditions_hold() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let hook = |expression: &str| {
        json!({"metadata": {"name": "h"}, "webhooks": [{"name": "a.example.test", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/"}, "timeoutSeconds": 1,
            "rules": constraints()["resourceRules"], "matchConditions": [{"name": "c", "expression": expression}]}]})
    };
    let uri = format!("{REGISTRATION}/validatingwebhookconfigurations");
    let (code, refused) = send(&server, Method::POST, &uri, JSON, hook("object.x ==")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("compilation failed: ERROR: <input>:1:12: Syntax error"));
    let all = "object.metadata.name == 'asked' && oldObject == null && request.operation == 'CREATE' && \
               authorizer.group('').resource('configmaps').check('create').allowed()";
    create(&server, "validatingwebhookconfigurations", hook(all)).await;
    tried(&server, map("asked", json!({})), StatusCode::INTERNAL_SERVER_ERROR).await;
    tried(&server, map("other", json!({})), StatusCode::CREATED).await;
}

/// Puts a policy in force that changes what its rules speak of.
async fn mutating(server: &ApiService, name: &str, (resource, reinvocation): (&str, &str), mutation: Value) {
    let rules = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]}]);
    let policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": rules},
        "reinvocationPolicy": reinvocation, "mutations": [mutation]}});
    create(server, "mutatingadmissionpolicies", policy).await;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    create(server, "mutatingadmissionpolicybindings", binding).await;
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

/// Makes an object until the answer is as wanted; policies come into force a moment after they are written.
async fn made_until(server: &ApiService, (uri, object): (&str, Value), holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..10_000 {
        let (_, answer) = send(server, Method::POST, &format!("{uri}?dryRun=All"), JSON, object.clone()).await;
        if holds(&answer) {
            return answer;
        }
        tokio::task::yield_now().await;
    }
    panic!("never so");
}

#[tokio::test]
async fn what_a_policy_adds_to_a_pod_is_completed_like_the_pod() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(&server, Method::POST, accounts, JSON, json!({"metadata": {"name": "default"}})).await;
    let sidecar = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 's', image: 'i'}]}}";
    mutating(&server, "p", ("pods", "Never"), apply(sidecar)).await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let has_sidecar = |pod: &Value| pod["spec"]["initContainers"][0]["name"] == "s";
    let made = made_until(&server, ("/api/v1/namespaces/default/pods", pod), has_sidecar).await;
    let mount = &made["spec"]["initContainers"][0]["volumeMounts"][0]["mountPath"];
    assert_eq!(mount, "/var/run/secrets/kubernetes.io/serviceaccount");
}

#[tokio::test]
async fn a_policy_that_wants_to_sees_what_came_of_its_change() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let longer = "Object{data: {'a': has(object.data.a) ? object.data.a + 'x' : 'x'}}";
    mutating(&server, "p", ("configmaps", "IfNeeded"), apply(longer)).await;
    let uri = "/api/v1/namespaces/default/configmaps";
    let made = made_until(&server, (uri, map("m", json!({"b": "c"}))), |made| !made["data"]["a"].is_null()).await;
    assert_eq!(made["data"]["a"], "xx");
}

#[tokio::test]
async fn what_does_not_fit_the_object_is_refused() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let uri = "/api/v1/namespaces/default/configmaps";
    let start = "policy 'p' with binding 'p' denied request: error applying patch: failed to convert patch object to typed object:";
    let patch = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/foo', value: 'x'}]"}});
    for (mutation, told) in [
        (apply("Object{foo: 'x'}"), format!("{start} .foo: field not declared in schema")),
        (
            apply("Object{data: {'x': 1}}"),
            format!("{start} .data.x: expected string, got &value.valueUnstructured{{Value:1}}"),
        ),
        (patch, "Internal error occurred: strict decoding error: unknown field \"foo\"".to_owned()),
    ] {
        mutating(&server, "p", ("configmaps", "Never"), mutation).await;
        made_until(&server, (uri, map("m", json!({}))), |answer| answer["message"] == told.as_str()).await;
        for kind in ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"] {
            send(&server, Method::DELETE, &format!("{REGISTRATION}/{kind}/p"), JSON, Value::Null).await;
        }
    }
}

#[tokio::test]
async fn policies_look_at_webhooks_and_not_at_policies() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let rules = json!([{"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "message": "none of these"}]}});
    create(&server, "validatingadmissionpolicies", policy).await;
    let binding =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    create(&server, "validatingadmissionpolicybindings", binding("b")).await;
    let hooks = format!("{REGISTRATION}/validatingwebhookconfigurations");
    let is_refused = |answer: &Value| answer["message"].as_str().is_some_and(|text| text.ends_with("none of these"));
    made_until(&server, (&hooks, json!({"metadata": {"name": "w"}})), is_refused).await;
    create(&server, "validatingadmissionpolicybindings", binding("c")).await;
}
