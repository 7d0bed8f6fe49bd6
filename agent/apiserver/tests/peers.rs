//! Several servers on one store.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config};
use http::{Method, StatusCode};
use lifecycle::Shutdown;
use serde_json::{Value, json};
use store::Store as _;
use support::{JSON, send, until};

async fn member(store: &Arc<store::Embedded>, last: u8, shutdown: &Shutdown) -> ApiService {
    let config = Config {
        authorization: Authorization::AlwaysAllow,
        advertise: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
        hostname: format!("host-{last}"),
        ..Config::default()
    };
    let (service, ready) = apiserver::service(config, store.clone(), shutdown).unwrap();
    ready.await;
    service
}

fn addresses(endpoints: &Value) -> Vec<&str> {
    let addresses = endpoints["subsets"][0]["addresses"].as_array();
    addresses.into_iter().flatten().filter_map(|a| a["ip"].as_str()).collect()
}

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints?watch=1&fieldSelector=metadata.name%3Dkubernetes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

#[tokio::test(flavor = "multi_thread")]
async fn servers_list_their_addresses_and_take_them_back() {
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let (first_stop, second_stop) = (Shutdown::new(), Shutdown::new());
    let first = member(&store, 1, &first_stop).await;
    until(&first, ENDPOINTS, |_, endpoints| addresses(endpoints) == ["192.0.2.1"]).await;
    let second = member(&store, 2, &second_stop).await;
    until(&first, ENDPOINTS, |_, endpoints| addresses(endpoints) == ["192.0.2.1", "192.0.2.2"]).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?watch=1";
    until(&first, slices, |_, slice| slice["endpoints"].as_array().is_some_and(|e| e.len() == 2)).await;
    let leases = format!("{LEASES}?watch=1&labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver");
    let lease =
        until(&first, &leases, |_, lease| lease["metadata"]["labels"]["kubernetes.io/hostname"] == "host-2").await;
    let leases = format!("{leases}&resourceVersion={}", lease["metadata"]["resourceVersion"].as_str().unwrap());
    second_stop.trigger();
    until(&first, &leases, |kind, lease| {
        kind == "DELETED" && lease["metadata"]["labels"]["kubernetes.io/hostname"] == "host-2"
    })
    .await;
    until(&first, ENDPOINTS, |_, endpoints| addresses(endpoints) == ["192.0.2.1"]).await;
    let keys = store.range(store::RangeRequest::prefix("/registry/masterleases/")).await.unwrap().kvs;
    assert_eq!(keys.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), [b"/registry/masterleases/192.0.2.1"]);
    drop(second);
    first_stop.trigger();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_left_behind_is_removed_by_the_next_at_its_address() {
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let stop = Shutdown::new();
    let old = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {
            "name": "apiserver-gone", "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"},
        },
        "spec": {
            "holderIdentity": "x", "leaseDurationSeconds": 3600, "renewTime": "2020-01-01T00:00:00.000000Z",
        },
    });
    let first = member(&store, 1, &stop).await;
    let (code, answer) = send(&first, Method::POST, LEASES, JSON, old).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let next_stop = Shutdown::new();
    let next = member(&store, 2, &next_stop).await;
    let since = answer["metadata"]["resourceVersion"].as_str().unwrap();
    let gone = |kind: &str, lease: &Value| kind == "DELETED" && lease["metadata"]["name"] == "apiserver-gone";
    until(&first, &format!("{LEASES}?watch=1&resourceVersion={since}"), gone).await;
    let tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let watch = "/api/v1/namespaces/kube-system/configmaps?watch=1";
    until(&next, watch, |_, object| object["data"]["since"].as_str().is_some_and(|since| since.len() == 10)).await;
    let broken = json!({"data": {"since": "long ago"}});
    let (code, _) = send(&next, Method::PATCH, tracking, "application/merge-patch+json", broken).await;
    assert_eq!(code, StatusCode::OK);
    until(&next, watch, |_, object| object["data"]["since"].as_str().is_some_and(|since| since.len() == 10)).await;
    stop.trigger();
    next_stop.trigger();
}
