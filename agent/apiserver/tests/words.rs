//! What clients are told, and in which form: the words and codes that those of upstream rely on.
#![allow(clippy::unwrap_used)]

mod support;

use apiserver::ApiService;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send, server};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const STEPS: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

/// Sends a text and returns the code, the media type and the answer.
async fn ask(server: &ApiService, (method, uri): (Method, &str), accept: &str, body: &str) -> (u16, String, Value) {
    let kind = if method == Method::PATCH { MERGE } else { JSON };
    let request = Request::builder().method(method).uri(uri).header("content-type", kind).header("accept", accept);
    let response = server.clone().oneshot(request.body(Full::new(body.to_owned().into())).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, media, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// The code and the message of what is refused.
async fn told(server: &ApiService, method: Method, uri: &str, (kind, body): (&str, &str)) -> (u16, String) {
    let request = Request::builder().method(method).uri(uri).header("content-type", kind);
    let response =
        server.clone().oneshot(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

async fn make(server: &ApiService, uri: &str, object: Value) {
    let (code, made) = send(server, Method::POST, uri, JSON, object).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
}

#[tokio::test]
async fn whoever_wants_metadata_gets_metadata_of_writes_too() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let one = format!("{MAPS}/a");
    let object = json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}, "data": {"x": "1"}}).to_string();
    let writes = [
        (Method::POST, MAPS, object.as_str()),
        (Method::PUT, &one, object.as_str()),
        (Method::PATCH, &one, r#"{"data":{"x":"2"}}"#),
        (Method::DELETE, &one, ""),
        (Method::GET, &one, ""),
    ];
    for (method, uri, body) in writes.clone() {
        let (code, _, answer) = ask(&server, (method.clone(), uri), METADATA, body).await;
        assert!(code < 300 && answer["kind"] == "PartialObjectMetadata", "{method}: {answer}");
        assert!(answer["metadata"]["uid"].is_string() && answer["data"].is_null(), "{method}: {answer}");
    }
    for (method, uri, body) in writes.into_iter().skip(1) {
        let (code, _, answer) = ask(&server, (method.clone(), uri), TABLE, body).await;
        assert!(code < 300 && answer["rows"][0]["cells"][0] == "a", "{method}: {answer}");
    }
    let (code, _, answer) = ask(&server, (Method::GET, &one), METADATA_LIST, "").await;
    let text = "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)";
    assert_eq!((code, &answer["message"]), (406, &json!(text)));
    let (code, _, answer) = ask(&server, (Method::GET, MAPS), METADATA, "").await;
    let text = "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
    assert_eq!((code, &answer["message"]), (406, &json!(text)));
    // A failure has no form but its own.
    let both = format!("{},{JSON}", METADATA.replace("json", "vnd.kubernetes.protobuf"));
    let (code, media, answer) = ask(&server, (Method::GET, &format!("{MAPS}/none")), &both, "").await;
    assert_eq!((code, media.as_str(), &answer["kind"]), (404, JSON, &json!("Status")));
    shutdown.trigger();
}

#[tokio::test]
async fn a_deletion_with_a_body_is_what_the_body_says() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    make(&server, MAPS, json!({"metadata": {"name": "a"}})).await;
    let one = format!("{MAPS}/a");
    let delete = |uri: String, body: &'static str| {
        let server = server.clone();
        async move { told(&server, Method::DELETE, &uri, (JSON, body)).await }
    };
    let wrong = [
        (&one, "[]", 400, "couldn't get version/kind; json parse error: json: cannot unmarshal array"),
        (&one, r#"{"dryRun":"All"}"#, 400, "struct field DeleteOptions.dryRun of type []string"),
        (&one, r#"{"gracePeriodSeconds":"x"}"#, 400, "struct field DeleteOptions.gracePeriodSeconds of type int64"),
        (&one, r#"{"propagationPolicy":""}"#, 422, r#"propagationPolicy: Unsupported value: """#),
        (&format!("{one}?dryRun=x"), "", 422, r#"dryRun: Unsupported value: ["x"]"#),
        (&format!("{one}?gracePeriodSeconds="), "", 400, r#"parsing "": invalid syntax"#),
        (&format!("{MAPS}?sendInitialEvents=true"), "", 422, "sendInitialEvents is forbidden for list"),
    ];
    for (uri, body, code, text) in wrong {
        let (found, message) = delete(uri.clone(), body).await;
        assert!(found == code && message.contains(text), "{uri} {body}: {found} {message}");
    }
    assert_eq!(delete(format!("{one}?dryRun=All"), "").await.0, 200);
    assert_eq!(told(&server, Method::GET, &one, (JSON, "")).await.0, 200);
    // The query does not count beside a body.
    assert_eq!(delete(format!("{one}?dryRun=All"), "{}").await.0, 200);
    assert_eq!(told(&server, Method::GET, &one, (JSON, "")).await.0, 404);
    shutdown.trigger();
}

#[tokio::test]
async fn lists_say_what_they_cannot_do() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    for name in ["a", "b", "c"] {
        make(&server, MAPS, json!({"metadata": {"name": name}})).await;
    }
    let (_, page) = send(&server, Method::GET, &format!("{MAPS}?limit=1"), JSON, Value::Null).await;
    let next = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let queries = [
        (
            "resourceVersionMatch=Foo".to_owned(),
            422,
            "forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported",
        ),
        (
            format!("continue={next}&resourceVersionMatch=NotOlderThan&resourceVersion=1"),
            422,
            "forbidden when continue is provided",
        ),
        ("resourceVersion=abc&limit=2".to_owned(), 400, "invalid resource version: resourceVersion: Invalid value"),
        ("limit=".to_owned(), 400, r#"parsing "": invalid syntax"#),
        ("limit=99999999999999999999".to_owned(), 400, "value out of range"),
        ("timeout=1".to_owned(), 400, "time: missing unit in duration"),
        (format!("continue={next}%3D"), 400, "illegal base64 data at input byte"),
        ("continue=e30".to_owned(), 400, "server does not recognize this encoded version "),
        ("continue=W10".to_owned(), 400, "cannot unmarshal array into Go value of type storage.continueToken"),
    ];
    for (query, code, text) in queries {
        let (found, message) = told(&server, Method::GET, &format!("{MAPS}?{query}"), (JSON, "")).await;
        assert!(found == code && message.contains(text), "{query}: {found} {message}");
    }
    // What is there anyway is not cut into pages.
    let (_, all) = send(&server, Method::GET, &format!("{MAPS}?limit=1&resourceVersion=0"), JSON, Value::Null).await;
    assert!(all["items"].as_array().unwrap().len() >= 3 && all["metadata"]["continue"].is_null(), "{all}");
    let (code, text) = told(&server, Method::GET, &format!("{MAPS}/a?export=true"), (JSON, "")).await;
    assert!(code == 400 && text.contains("no longer supported"), "{code} {text}");
    shutdown.trigger();
}

#[tokio::test]
async fn patches_are_refused_in_known_words() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    make(&server, MAPS, json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await;
    let one = format!("{MAPS}/a?dryRun=All");
    let rejected = "the server rejected our request due to an error in our request";
    let cases = [
        (
            STEPS,
            r#"[1]"#,
            400,
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (STEPS, r#"[{"op":1}]"#, 400, "into Go struct field jsonPatchOp.op of type string"),
        (STEPS, "null", 200, ""),
        (STEPS, r#"[{"op":"add","path":"","value":{}}]"#, 422, rejected),
        (STEPS, r#"[{"op":"add","path":"/data/y"}]"#, 200, ""),
        (STEPS, r#"[{"op":"replace","path":"/kind","value":"Foo"}]"#, 422, r#"no kind "Foo" is registered"#),
        (MERGE, "null", 400, "Invalid JSON Patch"),
        (
            MERGE,
            r#"{"apiVersion":"apps/v1","kind":"Deployment"}"#,
            422,
            "converting (v1.Deployment) to (core.ConfigMap): unknown conversion",
        ),
        (MERGE, r#"{"apiVersion":null}"#, 400, "was undeterminable"),
        (STRATEGIC, "null", 200, ""),
        (STRATEGIC, "[]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (STRATEGIC, r#"{"kind":"Foo"}"#, 200, ""),
    ];
    for (kind, body, code, text) in cases {
        let (found, message) = told(&server, Method::PATCH, &one, (kind, body)).await;
        assert!(found == code && message.contains(text), "{body}: {found} {message}");
        assert!(kind != STRATEGIC || !message.starts_with("error decoding"), "{message}");
    }
    // What is not there is told before what is wrong with its patch.
    let (code, _) = told(&server, Method::PATCH, &format!("{MAPS}/none"), (STEPS, "x")).await;
    assert_eq!(code, 404);
    let apply = format!("{MAPS}/new?fieldManager=m");
    let nameless = r#"{"apiVersion":"v1","kind":"ConfigMap"}"#;
    assert_eq!(told(&server, Method::PATCH, &apply, (APPLY, nameless)).await.0, 400);
    let with_uid = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new","uid":"1"}}"#;
    let (code, message) = told(&server, Method::PATCH, &apply, (APPLY, with_uid)).await;
    assert!(code == 409 && message.contains("uid mismatch"), "{code} {message}");
    shutdown.trigger();
}

#[tokio::test]
async fn a_scale_of_another_type_scales_nothing() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let all = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    make(&server, all, json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let scale = format!("{all}/d/scale");
    let cases = [
        (
            Method::PUT,
            r#"{"metadata":{"name":"d"},"spec":{"replicas":"x"}}"#,
            400,
            "Scale in version \"v1\" cannot be handled as a Scale",
        ),
        (Method::PUT, r#"{"metadata":{"name":"d"},"spec":{"replicas":1.5}}"#, 400, "cannot unmarshal number 1.5"),
        (Method::PUT, r#"{"spec":{"replicas":1}}"#, 400, "was undeterminable"),
        (Method::PUT, "[]", 400, "the object provided is unrecognized (must be of type Scale)"),
        (Method::PATCH, r#"{"spec":{"replicas":"x"}}"#, 422, "ScaleSpec.spec.replicas of type int32"),
        // Who has the replicas is a part of the Scale that is patched.
        (Method::PATCH, r#"{"spec":1}"#, 422, r#"\"fieldsV1\":{\"f:spec\":{\"f:replicas\":{}}}"#),
        (Method::PATCH, r#"{"kind":"Foo"}"#, 422, "no kind \"Foo\" is registered for version \"autoscaling/v1\""),
        (Method::PATCH, r#"{"metadata":{"uid":"x"}}"#, 409, "Precondition failed: UID in precondition: x"),
        (Method::PATCH, r#"{"metadata":{"namespace":"x"}}"#, 400, "does not match the namespace"),
    ];
    for (method, body, code, text) in cases {
        let kind = if method == Method::PATCH { MERGE } else { JSON };
        let (found, message) = told(&server, method, &scale, (kind, body)).await;
        assert!(found == code && message.contains(text), "{body}: {found} {message}");
    }
    let strict = format!("{scale}?fieldValidation=Strict");
    let (code, message) = told(&server, Method::PATCH, &strict, (MERGE, r#"{"spec":{"foo":1,"replicas":1}}"#)).await;
    assert!(code == 422 && message.ends_with("strict decoding error: unknown field \"spec.foo\""), "{code} {message}");
    let (_, now) = send(&server, Method::GET, &scale, JSON, Value::Null).await;
    assert_eq!(now["spec"]["replicas"], 3);
    // Who wants no replicas at all has none.
    let owners = async |replicas: i64| {
        let body = json!({"spec": {"replicas": replicas}}).to_string();
        assert_eq!(told(&server, Method::PATCH, &scale, (MERGE, &body)).await.0, 200);
        let (_, object) = send(&server, Method::GET, &format!("{all}/d"), JSON, Value::Null).await;
        let managers = object["metadata"]["managedFields"].as_array().unwrap().clone();
        managers.iter().filter(|m| m["fieldsV1"]["f:spec"]["f:replicas"].is_object()).count()
    };
    assert_eq!([owners(4).await, owners(0).await, owners(5).await], [1, 0, 0]);
    shutdown.trigger();
}

#[tokio::test]
async fn what_a_binding_lacks_is_told_before_its_name() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    for (body, expected) in [
        (json!({}), (500, "target.name: Required value")),
        (json!({"target": {"name": "n"}}), (400, "Name parameter required.")),
    ] {
        let body = body.to_string();
        let refused = told(&server, Method::POST, "/api/v1/namespaces/default/bindings", (JSON, &body)).await;
        assert_eq!(refused, (expected.0, expected.1.to_owned()));
    }
}

#[tokio::test]
async fn old_clients_get_tables_and_metadata_of_their_version() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    make(&server, MAPS, json!({"metadata": {"name": "a"}})).await;
    let (one, old) = (&format!("{MAPS}/a"), |form: &str| form.replace("v=v1", "v=v1beta1"));
    let version = "meta.k8s.io/v1beta1";
    for (uri, form) in [(one.as_str(), TABLE), (MAPS, TABLE), (one, METADATA), (MAPS, METADATA_LIST)] {
        let (code, _, shown) = ask(&server, (Method::GET, uri), &old(form), "").await;
        assert_eq!((code, &shown["apiVersion"]), (200, &version.into()), "{form} {shown}");
        for row in shown["rows"].as_array().into_iter().flatten() {
            assert_eq!(row["object"]["apiVersion"], version);
        }
        assert!(shown["metadata"]["resourceVersion"].is_string(), "{shown}");
        // Rows that are kept for others are of their version.
        let (_, _, shown) = ask(&server, (Method::GET, uri), form, "").await;
        assert_eq!(shown["apiVersion"], "meta.k8s.io/v1");
    }
    shutdown.trigger();
}

#[tokio::test]
async fn tables_of_nothing_have_rows_where_the_kind_has_a_printer() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let rows = async |uri: &str| ask(&server, (Method::GET, uri), TABLE, "").await.2["rows"].take();
    assert_eq!(rows(MAPS).await, json!([]));
    assert_eq!(rows("/api/v1/limitranges").await, Value::Null);
    let tried =
        ask(&server, (Method::POST, &format!("{MAPS}?dryRun=All")), TABLE, r#"{"metadata":{"name":"a"}}"#).await;
    assert_eq!((tried.0, &tried.2["metadata"]), (201, &json!({})), "{}", tried.2);
    shutdown.trigger();
}
