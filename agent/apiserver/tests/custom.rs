//! Custom resources, webhooks, proxies and the like through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use apiserver::ApiService;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send, server};
use tower::ServiceExt;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";
const MERGE: &str = "application/merge-patch+json";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"}, "ratio": {"type": "number"},
            "steps": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}});
    json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
    "names": {"plural": "foos", "kind": "Foo", "shortNames": ["f"]},
    "versions": [
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]},
        {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}},
    ]}})
}

fn foo(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec})
}

/// Waits for the next event of a watch that fits.
async fn watch_until(server: &ApiService, uri: &str, fits: impl Fn(&Value) -> bool) {
    let request = Request::builder().uri(uri).body(Full::new(Bytes::new())).unwrap();
    let mut body = server.clone().oneshot(request).await.unwrap().into_body();
    let found = async {
        loop {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            if fits(&serde_json::from_slice(&frame).unwrap()) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), found).await.unwrap();
}

async fn define(server: &ApiService) {
    let (code, made) = send(server, Method::POST, DEFINITIONS, JSON, definition()).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    watch_until(server, &format!("{DEFINITIONS}?watch=1"), |event| {
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await;
    // The condition is written before the rows are known: the second follows at once.
    let known = async {
        while send(server, Method::GET, FOOS, JSON, Value::Null).await.0 != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), known).await.unwrap();
}

#[tokio::test]
async fn scales_of_custom_resources_are_not_applied_and_have_tables_of_their_own() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    assert_eq!(send(&server, Method::POST, FOOS, JSON, foo(json!({"size": 2}))).await.0, StatusCode::CREATED);
    let scale = format!("{FOOS}/a/scale");
    let wanted =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 3}});
    let uri = format!("{scale}?fieldManager=x&force=true");
    let (code, refused) = send(&server, Method::PATCH, &uri, "application/apply-patch+yaml", wanted).await;
    let why = "failed to convert new object (/a; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to \
               an invalid group/version: autoscaling/v1";
    assert_eq!((code.as_u16(), &refused["message"]), (500, &why.into()));
    let strict = format!("{scale}?fieldValidation=Strict");
    let (code, _) = send(&server, Method::PATCH, &strict, MERGE, json!({"spec": {"replicas": 3, "foo": 1}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let request = Request::get(&scale).header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
    let response = server.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let table: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["columnDefinitions"][1]["description"], "Number of desired replicas");
    assert_eq!((&table["columnDefinitions"][3]["type"], &table["rows"][0]["cells"][1]), (&"date".into(), &2.into()));
    shutdown.trigger();
}

#[tokio::test]
async fn applied_lists_that_are_one_value_are_looked_into() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let steps = json!([{"name": "a"}, {"name": "b", "nope": 1}]);
    let wanted = foo(json!({"size": 1, "steps": steps}));
    let uri = format!("{FOOS}/a?fieldManager=x&force=true");
    let (code, refused) = send(&server, Method::PATCH, &uri, "application/apply-patch+yaml", wanted).await;
    let why = "failed to create typed patch object (/a; example.com/v1, Kind=Foo): .spec.steps[1].nope: field not \
               declared in schema";
    assert_eq!((code.as_u16(), &refused["message"]), (500, &why.into()));
    shutdown.trigger();
}

#[tokio::test]
async fn a_custom_resource_is_pruned_defaulted_and_validated() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"},
        "spec": {"size": 2, "unknown": 1}, "status": {"ready": true}});
    let (code, made) = send(&server, Method::POST, FOOS, JSON, foo.clone()).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"], json!({"size": 2, "color": "red"}));
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let strict = format!("{FOOS}?fieldValidation=Strict");
    let (code, status) = send(&server, Method::POST, &strict, JSON, foo).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains("unknown field \"spec.unknown\""), "{status}");
    let one = format!("{FOOS}/a");
    let (code, status) = send(&server, Method::PATCH, &one, MERGE, json!({"spec": {"size": 0}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("spec.size: Invalid value: 0"), "{status}");
    let (_, status) = send(
        &server,
        Method::PATCH,
        &format!("{one}/status"),
        MERGE,
        json!({"status": {"ready": true}, "spec": {"size": 9}}),
    )
    .await;
    assert_eq!((&status["status"]["ready"], &status["spec"]["size"]), (&json!(true), &json!(2)));
    let (_, scale) =
        send(&server, Method::PATCH, &format!("{one}/scale"), MERGE, json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scale["spec"]["replicas"], 5, "{scale}");
    let (_, old) =
        send(&server, Method::GET, "/apis/example.com/v1beta1/namespaces/default/foos/a", JSON, Value::Null).await;
    assert_eq!((&old["apiVersion"], &old["spec"]["size"]), (&json!("example.com/v1beta1"), &json!(5)));
    shutdown.trigger();
}

#[tokio::test]
async fn definitions_show_in_discovery_and_documents_and_take_their_objects_along() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let (_, list) = send(&server, Method::GET, "/apis/example.com/v1", JSON, Value::Null).await;
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["foos", "foos/status", "foos/scale"]);
    let (_, document) = send(&server, Method::GET, "/openapi/v3/apis/example.com/v1", JSON, Value::Null).await;
    let schema = &document["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(schema["properties"]["spec"]["required"], json!(["size"]));
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
    let (code, _) = send(&server, Method::POST, FOOS, JSON, foo(json!({"size": 1}))).await;
    assert_eq!(code, StatusCode::CREATED);
    let one = format!("{DEFINITIONS}/foos.example.com");
    let (code, _) = send(&server, Method::DELETE, &one, JSON, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let gone = async {
        while send(&server, Method::GET, &one, JSON, Value::Null).await.0 != StatusCode::NOT_FOUND
            || send(&server, Method::GET, FOOS, JSON, Value::Null).await.0 != StatusCode::NOT_FOUND
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    // Of groups that are not built in the last handler answers, with a text.
    for (path, is_page) in [("/apis/example.com", true), ("/apis/example.com/v1", true), ("/apis/apps/v9", false)] {
        let (code, status) = send(&server, Method::GET, path, JSON, Value::Null).await;
        assert_eq!((code, status.is_null()), (StatusCode::NOT_FOUND, is_page), "{path}: {status}");
    }
    define(&server).await;
    let (_, list) = send(&server, Method::GET, FOOS, JSON, Value::Null).await;
    assert_eq!(list["items"], json!([]));
    shutdown.trigger();
}

#[tokio::test]
async fn webhooks_that_cannot_be_asked_fail_as_configured() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let hook = |policy: &str| {
        json!({"metadata": {"name": "v"}, "webhooks": [{"name": "v.example.com", "sideEffects": "None", "failurePolicy": policy,
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/x"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
    };
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let (code, made) = send(&server, Method::POST, configurations, JSON, hook("Fail")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let maps = "/api/v1/namespaces/default/configmaps";
    // A read waits until the configuration is seen.
    send(&server, Method::GET, configurations, JSON, Value::Null).await;
    let (code, status) = send(&server, Method::POST, maps, JSON, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{status}");
    assert!(status["message"].as_str().unwrap().contains("failed calling webhook \"v.example.com\""));
    send(&server, Method::DELETE, &format!("{configurations}/v"), JSON, Value::Null).await;
    send(&server, Method::POST, configurations, JSON, hook("Ignore")).await;
    send(&server, Method::GET, configurations, JSON, Value::Null).await;
    let (code, _) = send(&server, Method::POST, maps, JSON, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, StatusCode::CREATED);
    let mut with_conditions = hook("Fail");
    with_conditions["metadata"]["name"] = "c".into();
    with_conditions["webhooks"][0]["matchConditions"] = json!([{"name": "x", "expression": "no such thing"}]);
    let (code, _) = send(&server, Method::POST, configurations, JSON, with_conditions.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    with_conditions["webhooks"][0]["matchConditions"] =
        json!([{"name": "x", "expression": "object.metadata.name == 'b'"}]);
    let (code, _) = send(&server, Method::POST, configurations, JSON, with_conditions).await;
    assert_eq!(code, StatusCode::CREATED);
    send(&server, Method::GET, configurations, JSON, Value::Null).await;
    for (name, expected) in [("b", StatusCode::INTERNAL_SERVER_ERROR), ("c", StatusCode::CREATED)] {
        let (code, _) = send(&server, Method::POST, maps, JSON, json!({"metadata": {"name": name}})).await;
        assert_eq!(code, expected, "{name}");
    }
    shutdown.trigger();
}

#[tokio::test]
async fn proxies_say_why_they_reach_nothing() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(send(&server, Method::POST, services, JSON, service).await.0, StatusCode::CREATED);
    for (path, code, text) in [
        // Nobody has made its Endpoints.
        ("web:80/proxy/", 404, "services \"web\" not found"),
        ("web:81/proxy/", 503, "no service port 81 found for service \"web\""),
        ("ftp:web:80/proxy/", 400, "invalid service request \"ftp:web:80\""),
        ("none/proxy/", 404, "services \"none\" not found"),
    ] {
        let (found, status) = send(&server, Method::GET, &format!("{services}/{path}"), JSON, Value::Null).await;
        assert_eq!((found.as_u16(), status["message"].as_str().unwrap()), (code, text));
    }
    shutdown.trigger();
}

#[tokio::test]
async fn a_new_storage_version_is_one_that_objects_may_be_stored_in() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let path = format!("{DEFINITIONS}/{}", definition()["metadata"]["name"].as_str().unwrap());
    let mut versions = definition()["spec"]["versions"].as_array().unwrap().clone();
    let first = versions[0]["name"].clone();
    let mut second = versions[0].clone();
    second["name"] = "v2".into();
    versions[0]["storage"] = false.into();
    versions.push(second);
    let patch = json!({"spec": {"versions": versions}});
    let (code, changed) = send(&server, Method::PATCH, &path, MERGE, patch).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    assert_eq!(changed["status"]["storedVersions"], json!([first, "v2"]));
    shutdown.trigger();
}

/// What upstream answers to bodies and methods that other kinds take otherwise.
#[tokio::test]
async fn custom_resources_name_their_type_and_are_told_by_their_verb() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let told = async |method: Method, path: &str, body: Value| {
        let (code, status) = send(&server, method, path, JSON, body).await;
        (code.as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
    };
    let without = |key: &str| {
        let mut object = foo(json!({"size": 1}));
        object.as_object_mut().unwrap().remove(key);
        object
    };
    let (code, text) = told(Method::POST, FOOS, without("kind")).await;
    assert!(code == 400 && text.contains("(must be of type Foo): Object 'Kind' is missing in"), "{text}");
    let mismatch = "does not match the expected API version (example.com/v1)";
    for (version, expected) in [(Value::Null, "()"), (json!("apps/v1"), "(apps/v1)")] {
        let mut object = without("apiVersion");
        object["apiVersion"] = version;
        let (code, text) = told(Method::POST, FOOS, object).await;
        assert_eq!((code, text), (400, format!("the API version in the data {expected} {mismatch}")));
    }
    let mut mistyped = foo(json!({"size": 1}));
    mistyped["metadata"]["labels"] = json!({"a": 1});
    let (code, text) = told(Method::POST, FOOS, mistyped).await;
    let why = "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string";
    assert_eq!((code, text), (400, format!("Foo in version \"v1\" cannot be handled as a Foo: {why}")));
    assert_eq!(told(Method::POST, FOOS, foo(json!({"size": 1}))).await.0, 201);
    let one = format!("{FOOS}/a");
    for (method, path, code, text) in [
        (Method::PUT, FOOS, 400, "name must be provided"),
        (Method::HEAD, FOOS, 200, ""),
        (Method::OPTIONS, FOOS, 405, " is not supported on resources of kind \"foos.example.com\""),
        (Method::GET, &format!("{one}/none"), 404, "foos.example.com \"a\" not found"),
        (
            Method::DELETE,
            &format!("{one}/status"),
            405,
            "delete is not supported on resources of kind \"foos.example.com\"",
        ),
    ] {
        let name = format!("{method} {path}");
        assert_eq!(told(method, path, Value::Null).await, (code, text.to_owned()), "{name}");
    }
    // What is deleted is no options.
    assert_eq!(told(Method::DELETE, FOOS, foo(json!({"size": 1}))).await.0, 400);
    let (code, status) = send(&server, Method::PATCH, &one, MERGE, json!({"apiVersion": "example.com/v1beta1"})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "FieldValueInvalid", "field": "apiVersion",
            "message": "Invalid value: \"example.com/v1beta1\": must be example.com/v1"})
    );
    shutdown.trigger();
}

#[tokio::test]
async fn what_a_status_may_change_and_who_is_told_to_have_set_what() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    // Of a value that has another type than its schema nobody can be told.
    let mut mistyped = foo(json!({"size": 1}));
    mistyped["status"] = json!({"ready": "yes"});
    let (code, made) = send(&server, Method::POST, &format!("{FOOS}?dryRun=All"), JSON, mistyped).await;
    assert_eq!((code, &made["metadata"]["managedFields"]), (StatusCode::CREATED, &Value::Null), "{made}");
    let (_, made) = send(&server, Method::POST, FOOS, JSON, foo(json!({"size": 2, "ratio": 2.0}))).await;
    assert_eq!(made["spec"]["ratio"].to_string(), "2", "a number without a fraction has none");
    let one = format!("{FOOS}/a");
    // An empty list of managers is none that was sent.
    let (_, changed) = send(&server, Method::PATCH, &one, MERGE, json!({"metadata": {"managedFields": []}})).await;
    assert_eq!(changed["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    let wish = json!({"metadata": {"labels": {"a": "b"}}, "status": {"ready": true}});
    let (_, changed) = send(&server, Method::PATCH, &format!("{one}/status"), MERGE, wish).await;
    assert_eq!((&changed["metadata"]["labels"], &changed["status"]["ready"]), (&Value::Null, &json!(true)));
    shutdown.trigger();
}

#[tokio::test]
async fn a_watch_ends_when_its_definition_changes_and_nothing_is_made_while_it_ends() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    define(&server).await;
    let mut held = foo(json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    assert_eq!(send(&server, Method::POST, FOOS, JSON, held).await.0, StatusCode::CREATED);
    let request = Request::builder().uri(format!("{FOOS}?watch=1")).body(Full::new(Bytes::new())).unwrap();
    let body = server.clone().oneshot(request).await.unwrap().into_body();
    let definition = format!("{DEFINITIONS}/foos.example.com");
    // What changes no version ends no watch.
    send(&server, Method::PATCH, &definition, MERGE, json!({"metadata": {"labels": {"a": "b"}}})).await;
    send(&server, Method::PATCH, &definition, MERGE, json!({"spec": {"names": {"shortNames": ["fo"]}}})).await;
    let text = tokio::time::timeout(std::time::Duration::from_secs(10), body.collect()).await.unwrap().unwrap();
    assert!(text.to_bytes().starts_with(b"{\"type\":\"ADDED\""));
    send(&server, Method::DELETE, &definition, JSON, Value::Null).await;
    let in_progress = |event: &Value| {
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Terminating" && c["reason"] == "InstanceDeletionInProgress")
    };
    watch_until(&server, &format!("{DEFINITIONS}?watch=1"), in_progress).await;
    let mut other = foo(json!({"size": 1}));
    other["metadata"]["name"] = "b".into();
    let (code, status) = send(&server, Method::POST, FOOS, JSON, other).await;
    let text =
        "foos.example.com \"b\" is forbidden: create not allowed while custom resource definition is terminating";
    assert_eq!((code, &status["message"]), (StatusCode::FORBIDDEN, &json!(text)));
    shutdown.trigger();
}
