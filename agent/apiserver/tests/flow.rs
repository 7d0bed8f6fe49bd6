//! Priority and fairness, through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use apiserver::{ApiService, Body};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use support::{JSON, send, server, until};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// Makes a level of one seat for ConfigMaps, with a queue of one.
async fn configure(server: &ApiService) {
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "tiny"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}},
        }},
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "tiny"},
        "spec": {
            "matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "tiny"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"],
                }],
            }],
        },
    });
    let dangling = |object: &Value, status: &str| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Dangling" && c["status"] == status)
    };
    let watch = format!("{GROUP}/flowschemas?watch=1&fieldSelector=metadata.name%3Dtiny");
    let (code, _) = send(server, Method::POST, &format!("{GROUP}/flowschemas"), JSON, schema).await;
    assert_eq!(code, StatusCode::CREATED);
    until(server, &watch, |_, object| dangling(object, "True")).await;
    let (code, text) = send(server, Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), JSON, level).await;
    assert_eq!(code, StatusCode::CREATED, "{text}");
    until(server, &watch, |_, object| dangling(object, "False")).await;
    // The shares of the levels that every cluster has count, too, and those are made by themselves after the start:
    // ceil(600 / 251) seats are left.
    let is_shared = async {
        while !metrics(server).await.contains("nominal_limit_seats{priority_level=\"tiny\"} 3\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_shared).await.unwrap();
}

async fn metrics(server: &ApiService) -> String {
    let request = Request::get("/metrics").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    text(server.clone().oneshot(request).await.unwrap()).await
}

/// A request to make a ConfigMap whose body comes when it is told to.
fn slow(name: &str) -> (Request<Body>, oneshot::Sender<()>) {
    let (go, wait) = oneshot::channel::<()>();
    let text = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
    let body = async move {
        let _either_way = wait.await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
    };
    let body = StreamBody::new(futures::stream::once(body)).map_err(apiserver::BodyError::new).boxed_unsync();
    let uri = "/api/v1/namespaces/default/configmaps";
    (Request::post(uri).header("content-type", JSON).body(body).unwrap(), go)
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_level_lets_requests_wait_and_turns_others_away() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    configure(&server).await;
    // As many as it has seats.
    let running: Vec<_> = (0..3)
        .map(|n| {
            let (request, go) = slow(&format!("running-{n}"));
            let mut answer = Box::pin(server.clone().oneshot(request));
            assert!((&mut answer).now_or_never().is_none());
            (answer, go)
        })
        .collect();
    let (request, go) = slow("waiting");
    let mut waiting = Box::pin(server.clone().oneshot(request));
    assert!((&mut waiting).now_or_never().is_none());
    go.send(()).unwrap();
    let (request, _never) = slow("refused");
    let refused = server.clone().oneshot(request).now_or_never().unwrap().unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let header = |name: &str| refused.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((header("retry-after"), header("content-type")), ("1".into(), "text/plain; charset=utf-8".into()));
    assert_eq!(header("x-content-type-options"), "nosniff");
    let uid = header("x-kubernetes-pf-prioritylevel-uid");
    assert_eq!(text(refused).await, "Too many requests, please try again later.\n");
    let (_, level) =
        send(&server, Method::GET, &format!("{GROUP}/prioritylevelconfigurations/tiny"), JSON, Value::Null).await;
    assert_eq!(level["metadata"]["uid"], uid);
    for (answer, go) in running {
        go.send(()).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::CREATED);
    }
    assert_eq!(waiting.await.unwrap().status(), StatusCode::CREATED);
    let metrics = metrics(&server).await;
    let rejected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"tiny\",priority_level=\"tiny\",\
                    reason=\"queue-full\"} 1\n";
    assert!(metrics.contains(rejected), "{metrics}");
    shutdown.trigger();
}

#[tokio::test]
async fn tables_show_first_what_is_asked_first() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let request =
        Request::get(format!("{GROUP}/flowschemas")).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let answer = server.clone().oneshot(request.body(Body::default()).unwrap()).await.unwrap();
    let table: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let order: Vec<i64> = rows.iter().map(|row| row["cells"][2].as_i64().unwrap()).collect();
    assert!(order.len() > 5 && order.is_sorted(), "{order:?}");
}

#[tokio::test]
async fn what_every_cluster_has_comes_back() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let probes = format!("{GROUP}/flowschemas/probes");
    let (_, first) = send(&server, Method::GET, &probes, JSON, Value::Null).await;
    let producer = "api-priority-and-fairness-config-producer-v1";
    let managers = first["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["manager"] == producer), "{first}");
    assert_eq!(send(&server, Method::DELETE, &probes, JSON, Value::Null).await.0, StatusCode::OK);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let watch = format!("{GROUP}/flowschemas?watch=1&fieldSelector=metadata.name%3Dprobes");
    let again = until(&server, &watch, |kind, _| kind == "ADDED").await;
    assert_ne!(again["metadata"]["uid"], first["metadata"]["uid"]);
}
