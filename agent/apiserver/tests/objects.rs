//! Objects through the whole server, in process and on a store in memory.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send, server};
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_from_creation_to_deletion() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let (code, made) =
        send(&server, Method::POST, MAPS, JSON, json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await;
    assert_eq!((code, &made["kind"]), (StatusCode::CREATED, &json!("ConfigMap")));
    let one = format!("{MAPS}/a");
    assert_eq!(send(&server, Method::GET, &one, JSON, Value::Null).await.1, made);
    let (_, list) = send(&server, Method::GET, MAPS, JSON, Value::Null).await;
    assert_eq!(list["items"][0]["data"], json!({"x": "1"}));
    let patch = json!({"data": {"y": "2"}});
    let (code, new) = send(&server, Method::PATCH, &one, "application/merge-patch+json", patch).await;
    assert_eq!((code, &new["data"]), (StatusCode::OK, &json!({"x": "1", "y": "2"})));
    let (code, _) = send(&server, Method::PUT, &one, JSON, made).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let (code, status) = send(&server, Method::DELETE, &one, JSON, Value::Null).await;
    assert_eq!((code, &status["status"]), (StatusCode::OK, &json!("Success")));
    assert_eq!(send(&server, Method::GET, &one, JSON, Value::Null).await.0, StatusCode::NOT_FOUND);
    shutdown.trigger();
}

#[tokio::test]
async fn a_watch_shows_state_and_then_changes() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    send(&server, Method::POST, MAPS, JSON, json!({"metadata": {"name": "a"}})).await;
    let uri =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let request = Request::builder().uri(uri).body(Full::new(Bytes::new())).unwrap();
    let mut body = server.clone().oneshot(request).await.unwrap().into_body();
    let mut seen = Vec::new();
    for step in 0..3 {
        if step == 2 {
            send(&server, Method::POST, MAPS, JSON, json!({"metadata": {"name": "b"}})).await;
        }
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let event: Value = serde_json::from_slice(&frame).unwrap();
        seen.push(format!("{} {}", event["type"], event["object"]["metadata"]["name"]));
    }
    assert_eq!(seen, ["\"ADDED\" \"a\"", "\"BOOKMARK\" null", "\"ADDED\" \"b\""]);
    shutdown.trigger();
}

#[tokio::test]
async fn what_is_not_done_says_so() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let (code, _) = send(&server, Method::PATCH, &format!("{MAPS}/a"), "application/apply-patch+yaml", json!({})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "apply needs a field manager");
    let (code, status) = send(
        &server,
        Method::POST,
        &format!("{MAPS}?fieldValidation=Strict"),
        JSON,
        json!({"metadata": {"name": "a"}, "foo": 1}),
    )
    .await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains("strict decoding error: unknown field \"foo\""));
    let (code, _) =
        send(&server, Method::POST, "/api/v1/namespaces/none/configmaps", JSON, json!({"metadata": {"name": "a"}}))
            .await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    shutdown.trigger();
}

#[tokio::test]
async fn an_evicted_pod_says_who_disrupted_it() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let account = json!({"metadata": {"name": "default"}});
    send(&server, Method::POST, "/api/v1/namespaces/default/serviceaccounts", JSON, account).await;
    let pods = "/api/v1/namespaces/default/pods";
    let containers = json!([{"name": "a", "image": "a"}]);
    let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "containers": containers}});
    let (code, made) = send(&server, Method::POST, pods, JSON, pod).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let (code, answer) = send(&server, Method::POST, &format!("{pods}/a/eviction"), JSON, eviction).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (_, pod) = send(&server, Method::GET, &format!("{pods}/a"), JSON, Value::Null).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    shutdown.trigger();
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_in_the_name_of_others() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let request = json!({"metadata": {"name": "a"}, "spec": {
        "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K", "signerName": "example.com/signer",
        "usages": ["client auth"], "username": "system:node:other", "groups": ["system:masters"],
    }});
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let (_, made) = send(&server, Method::POST, path, JSON, request).await;
    assert_ne!(made["spec"]["username"], "system:node:other", "{made}");
    assert!(!made["spec"]["groups"].as_array().unwrap_or(&Vec::new()).contains(&json!("system:masters")), "{made}");
    shutdown.trigger();
}

#[tokio::test]
async fn a_subresource_takes_bodies_of_its_own_kind() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let container = json!({"name": "c", "image": "i"});
    let controller = json!({"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}}});
    let (code, made) = send(&server, Method::POST, controllers, JSON, controller).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let scale = format!("{controllers}/a/scale");
    let cases =
        [("v1", "Scale", 400), ("autoscaling/v1", "Bogus", 400), ("autoscaling/v1", "Scale", 200), ("", "", 200)];
    for (version, kind, expected) in cases {
        let body = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "default"},
            "spec": {"replicas": 0}});
        let (code, answer) = send(&server, Method::PUT, &scale, JSON, body).await;
        assert_eq!(code.as_u16(), expected, "{version} {kind}: {answer}");
    }
    shutdown.trigger();
}

#[tokio::test]
async fn addresses_of_load_balancers_are_virtual_by_default() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    let (code, made) = send(&server, Method::POST, "/api/v1/namespaces/default/services", JSON, service).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let path = "/api/v1/namespaces/default/services/s/status";
    let (code, changed) = send(&server, Method::PATCH, path, "application/merge-patch+json", patch).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    assert_eq!(changed["status"]["loadBalancer"]["ingress"], json!([{"ip": "203.0.113.1", "ipMode": "VIP"}]));
    shutdown.trigger();
}

#[tokio::test]
async fn a_quota_gives_out_what_it_has_and_no_more() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"count/configmaps": "3"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let (code, mut quota) = send(&server, Method::POST, quotas, JSON, quota).await;
    assert_eq!(code, StatusCode::CREATED);
    quota["status"] = json!({"hard": hard, "used": {"count/configmaps": "0"}});
    let (code, _) = send(&server, Method::PUT, &format!("{quotas}/q/status"), JSON, quota).await;
    assert_eq!(code, StatusCode::OK);
    let make = async |n: usize| {
        let map = json!({"metadata": {"name": format!("m{n}")}});
        send(&server, Method::POST, MAPS, JSON, map).await
    };
    let answers = futures::future::join_all((0..8).map(make)).await;
    let made = answers.iter().filter(|(code, _)| *code == StatusCode::CREATED).count();
    let refused: Vec<_> = answers.iter().filter(|(code, _)| *code == StatusCode::FORBIDDEN).collect();
    assert_eq!((made, refused.len()), (3, 5), "{answers:?}");
    let message = refused[0].1["message"].as_str().unwrap();
    let reason =
        "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3";
    assert!(message.ends_with(reason), "{message}");
    let (_, quota) = send(&server, Method::GET, &format!("{quotas}/q"), JSON, Value::Null).await;
    assert_eq!(quota["status"]["used"], json!({"count/configmaps": "3"}));
    shutdown.trigger();
}

#[tokio::test]
async fn a_list_that_is_sent_in_pieces_is_one_list() {
    const MANY: usize = 60;
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    for n in 0..MANY {
        let map = json!({"metadata": {"name": format!("m{n:02}")}, "data": {"x": format!("{n}").repeat(8_000)}});
        assert_eq!(send(&server, Method::POST, MAPS, JSON, map).await.0, StatusCode::CREATED);
    }
    let get = async |accept: &str, coding: &str| {
        let request = Request::get(MAPS).header("accept", accept).header("accept-encoding", coding);
        let response = server.clone().oneshot(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        assert_eq!(response.headers().get("content-encoding").is_some(), coding == "gzip");
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let plain = get(JSON, "identity").await;
    let list: Value = serde_json::from_slice(&plain).unwrap();
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|m| m["metadata"]["name"].as_str()).collect();
    assert!(names.is_sorted() && names.len() == MANY, "{names:?}");
    let packed = get(JSON, "gzip").await;
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert!(packed.len() < plain.len() / 4 && unpacked == plain);
    let proto = get("application/vnd.kubernetes.protobuf", "identity").await;
    let list: api::core::v1::ConfigMapList = api::envelope::decode_message(&proto).unwrap();
    assert_eq!(list.items.len(), MANY);
    let proto =
        get("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "identity").await;
    let list: api::meta::v1::PartialObjectMetadataList = api::envelope::decode_message(&proto).unwrap();
    let last = list.items.last().unwrap();
    assert_eq!((list.items.len(), &*last.metadata.name), (MANY, &*format!("m{:02}", MANY - 1)));
    assert!(list.metadata.resource_version == last.metadata.resource_version);
    let yaml = get("application/yaml", "identity").await;
    assert!(yaml.starts_with(b"apiVersion: v1\nitems:\n- data:\n    x: \"000") && yaml.ends_with(b"\"\n"));
    let read: Value = serde_yaml_ng::from_slice(&yaml).unwrap();
    assert_eq!(read, serde_json::from_slice::<Value>(&plain).unwrap());
    shutdown.trigger();
}

#[tokio::test]
async fn what_holds_nothing_counts_until_it_is_stored() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let role = |names: Value| {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": names});
        json!({"metadata": {"name": "a"}, "rules": [rule]})
    };
    let (code, _) = send(&server, Method::POST, &format!("{group}?fieldManager=one"), JSON, role(json!(null))).await;
    assert_eq!(code, StatusCode::CREATED);
    let put = format!("{group}/a?fieldManager=two");
    let (_, same) = send(&server, Method::PUT, &put, JSON, role(json!(null))).await;
    assert_eq!(same["metadata"]["managedFields"][0]["manager"], "one");
    let (_, taken) = send(&server, Method::PUT, &put, JSON, role(json!([]))).await;
    assert_eq!(taken["metadata"]["managedFields"][0]["manager"], "two");
    assert_eq!(taken["rules"], same["rules"]);
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec});
    let (code, _) = send(&server, Method::POST, policies, JSON, policy(json!({"podSelector": {}}))).await;
    assert_eq!(code, StatusCode::CREATED);
    let blank = policy(json!({"podSelector": {}, "ingress": []}));
    let (_, policy) = send(&server, Method::PUT, &format!("{policies}/a"), JSON, blank).await;
    assert_eq!((&policy["metadata"]["generation"], &policy["spec"]["ingress"]), (&json!(2), &Value::Null));
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {}}, "spec": pod["spec"]}}});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let (_, refused) = send(&server, Method::POST, sets, JSON, set).await;
    let why = "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`";
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
    shutdown.trigger();
}

#[tokio::test]
async fn administrators_access_to_devices_needs_a_namespace_for_it() {
    const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let exactly = json!({"deviceClassName": "c", "adminAccess": true});
    let claim =
        json!({"metadata": {"name": "a"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}});
    let (code, status) = send(&server, Method::POST, CLAIMS, JSON, claim.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(status["details"]["causes"][0]["field"], "spec.devices.requests[0].adminAccess");
    let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    let namespace = "/api/v1/namespaces/default";
    assert_eq!(send(&server, Method::PATCH, namespace, "application/merge-patch+json", labels).await.0, StatusCode::OK);
    assert_eq!(send(&server, Method::POST, CLAIMS, JSON, claim).await.0, StatusCode::CREATED);
    shutdown.trigger();
}

#[tokio::test]
async fn a_pod_has_the_overhead_of_its_class_and_no_other() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(&shutdown).await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "1"}}});
    assert_eq!(send(&server, Method::POST, classes, JSON, class).await.0, StatusCode::CREATED);
    let account = json!({"metadata": {"name": "default"}});
    send(&server, Method::POST, "/api/v1/namespaces/default/serviceaccounts", JSON, account).await;
    let table = [
        (Some("vm"), Value::Null, StatusCode::CREATED),
        (Some("vm"), json!({"cpu": "1000m"}), StatusCode::CREATED),
        (Some("vm"), json!({"cpu": "2"}), StatusCode::FORBIDDEN),
        (None, json!({"cpu": "1"}), StatusCode::FORBIDDEN),
        (None, json!({}), StatusCode::FORBIDDEN),
        (None, Value::Null, StatusCode::CREATED),
    ];
    for (class, overhead, wanted) in table {
        let spec =
            json!({"runtimeClassName": class, "overhead": overhead, "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"metadata": {"generateName": "p"}, "spec": spec});
        let (code, answer) = send(&server, Method::POST, "/api/v1/namespaces/default/pods", JSON, pod).await;
        assert_eq!(code, wanted, "{class:?} {overhead}: {answer}");
        if class.is_some() && code == StatusCode::CREATED {
            assert_eq!(answer["spec"]["overhead"], json!({"cpu": "1"}));
        }
    }
    shutdown.trigger();
}
