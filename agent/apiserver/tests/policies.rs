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
