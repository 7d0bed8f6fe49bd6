//! What is asked of others by way of proxies: which proxy, and what is said when it does not lead there.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "proxies that hang or end are tried where the proxies are")]
#[path = "../../egress/tests/proxies/mod.rs"]
mod proxies;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use apiserver::{ApiService, Authorization, Config, KubeletClient, TokenWebhook};
use base64::Engine as _;
use bytes::Bytes;
use egress::Egress;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use proxies::{Conduct, Connect, Listen, Packets, Places};
use serde_json::{Value, json};
use support::{JSON, send};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tower::ServiceExt;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// The control plane is reached by `CONNECT`, the cluster by packets.
struct Ways {
    folder: tempfile::TempDir,
    control_plane: Arc<Places>,
    cluster: Arc<Places>,
    egress: Egress,
}

async fn ways(conduct: Conduct) -> Ways {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let (control_plane, cluster) = (Places::of(&[]), Places::of(&[]));
    let proxy = Connect::start(Listen::Tcp(None), control_plane.clone(), conduct.clone()).await;
    Packets::start(&socket, cluster.clone(), conduct);
    let selection = |name: &str, protocol: &str, transport: Value| {
        json!({"name": name,
        "connection": {"proxyProtocol": protocol, "transport": transport}})
    };
    let text = json!({"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
    "egressSelections": [
        selection("controlplane", "HTTPConnect", json!({"tcp": {"url": format!("http://127.0.0.1:{}", proxy.port)}})),
        selection("cluster", "GRPC", json!({"uds": {"udsName": socket}})),
    ]});
    let egress = Egress::parse(&text.to_string()).unwrap();
    Ways { folder, control_plane, cluster, egress }
}

async fn server(ways: &Ways, change: impl FnOnce(&mut Config), shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let mut config =
        Config { authorization: Authorization::AlwaysAllow, egress: ways.egress.clone(), ..Config::default() };
    change(&mut config);
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

async fn create(server: &ApiService, uri: &str, value: Value) -> Value {
    let (code, made) = send(server, Method::POST, uri, JSON, value).await;
    assert!(code.is_success(), "{uri}: {code} {made}");
    made
}

async fn text(server: &ApiService, uri: &str) -> (StatusCode, String) {
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn webhooks_by_url_and_by_service_go_different_ways() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Lead).await;
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let own = asked.clone();
    let (port, pem) = support::webhook::serve(move |path, review| {
        own.lock().push(path.to_owned());
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    })
    .await;
    // Where nobody is reached but by the proxies.
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    ways.control_plane.learn("localhost:1", address);
    ways.cluster.learn("10.1.2.3:9443", address);
    let server = server(&ways, |_| {}, &shutdown).await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": 9443}]}});
    create(&server, "/api/v1/namespaces/default/services", service).await;
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"name": "", "port": 9443}]});
    create(&server, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
    let hook = |name: &str, config: Value| {
        let mut config = config;
        config["caBundle"] = bundle.as_str().into();
        json!({"name": format!("{name}.example.test"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "clientConfig": config})
    };
    let hooks = json!({"metadata": {"name": "hooks"}, "webhooks": [
        hook("url", json!({"url": "https://localhost:1/url"})),
        hook("service", json!({"service": {"name": "hook", "namespace": "default", "path": "/service"}})),
    ]});
    create(&server, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", hooks).await;
    let both = async {
        while !["/url", "/service"].iter().all(|path| asked.lock().iter().any(|p| p == path)) {
            create(&server, CONFIG_MAPS, json!({"metadata": {"generateName": "probe-"}})).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.unwrap();
    assert!(ways.control_plane.asked().iter().all(|name| name == "localhost:1"));
    assert!(ways.cluster.asked().iter().all(|name| name == "10.1.2.3:9443"));
    let (_, metrics) = text(&server, "/metrics").await;
    for spoken in [r#"protocol="grpc",transport="uds""#, r#"protocol="http_connect",transport="tcp""#] {
        for name in ["dial_start_total", "dial_duration_seconds_count"] {
            assert!(metrics.contains(&format!("apiserver_egress_dialer_{name}{{{spoken}}} ")), "{name} {spoken}");
        }
    }
    shutdown.trigger();
}

/// A server that answers each request with its path and its body.
async fn says_path<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let told = head.split(' ').nth(1).unwrap().to_owned() + std::str::from_utf8(&body).unwrap();
    let cors = "access-control-allow-origin: *";
    let answer = format!("HTTP/1.1 200 OK\r\n{cors}\r\ncontent-length: {}\r\n\r\n{told}", told.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// A pod and a kubelet; certificate and key of the latter serve as those of its client, too.
async fn far(folder: &Path) -> (SocketAddr, SocketAddr) {
    let own = rcgen::generate_simple_self_signed(["10.1.2.5".to_owned()]).unwrap();
    std::fs::write(folder.join("cert"), own.cert.pem()).unwrap();
    std::fs::write(folder.join("key"), own.signing_key.serialize_pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], own.signing_key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let pod = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubelet = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let places = (pod.local_addr().unwrap(), kubelet.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = pod.accept().await {
            tokio::spawn(says_path(stream));
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = kubelet.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { says_path(acceptor.accept(stream).await?).await });
        }
    });
    places
}

/// A pod on a node, both at addresses that lead nowhere from here.
async fn workload(server: &ApiService) {
    let account = json!({"metadata": {"name": "default"}});
    create(server, "/api/v1/namespaces/default/serviceaccounts", account).await;
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.1.2.5"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
    create(server, "/api/v1/nodes", node).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i"}]}});
    let mut pod = create(server, PODS, pod).await;
    pod["status"]["podIP"] = "10.1.2.4".into();
    pod["status"]["podIPs"] = json!([{"ip": "10.1.2.4"}]);
    let (code, told) = send(server, Method::PUT, &format!("{PODS}/p/status"), JSON, pod).await;
    assert_eq!(code, StatusCode::OK, "{told}");
}

fn with_kubelets(config: &mut Config, folder: &Path) {
    config.kubelet = Some(KubeletClient {
        certificate: folder.join("cert"),
        key: folder.join("key"),
        ca: None,
        address_types: vec!["InternalIP".to_owned()],
    });
}

#[tokio::test]
async fn pods_and_kubelets_are_reached_by_the_clusters_way() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Lead).await;
    let (pod, kubelet) = far(ways.folder.path()).await;
    ways.cluster.learn("10.1.2.4:8080", pod);
    ways.cluster.learn("10.1.2.5:10250", kubelet);
    let server = server(&ways, |config| with_kubelets(config, ways.folder.path()), &shutdown).await;
    workload(&server).await;
    for (uri, expected) in [
        (format!("{PODS}/p:8080/proxy/hello?a=b"), "/hello?a=b"),
        (format!("{PODS}/p:8080/proxy//a/../b%2Fc//d/?"), "/b/c/d/"),
        (
            format!("{PODS}/p/log?tailLines=%2B3&follow=yes&previous=0&foo=bar"),
            "/containerLogs/default/p/c?follow=true&tailLines=3",
        ),
        ("/api/v1/nodes/n/proxy/stats".to_owned(), "/stats"),
    ] {
        assert_eq!(text(&server, &uri).await, (StatusCode::OK, expected.to_owned()));
    }
    assert_eq!(ways.cluster.asked(), ["10.1.2.4:8080", "10.1.2.4:8080", "10.1.2.5:10250", "10.1.2.5:10250"]);
    assert!(ways.control_plane.asked().is_empty());
    shutdown.trigger();
}

#[tokio::test]
async fn pods_get_bodies_and_services_lead_to_pods_only() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Lead).await;
    let (pod, _) = far(ways.folder.path()).await;
    ways.cluster.learn("10.1.2.4:8080", pod);
    let server = server(&ways, |config| with_kubelets(config, ways.folder.path()), &shutdown).await;
    workload(&server).await;
    let ask = async |uri: String, body: &'static str| {
        let request = Request::get(uri).header("content-length", body.len()).body(Full::from(body)).unwrap();
        let response = server.clone().oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        let (code, body) = (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes());
        (code, String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(ask(format!("{PODS}/p:8080/proxy/q"), "what?").await, (200, "/qwhat?".to_owned()));
    let services = "/api/v1/namespaces/default/services";
    let target = |namespace: &str, name: &str| json!({"kind": "Pod", "namespace": namespace, "name": name});
    let pod = |target: Value| json!([{"ip": "10.1.2.4", "targetRef": target}]);
    let stranger = json!({"ip": "10.1.2.9"});
    let among_others = json!([stranger, stranger, {"ip": "10.1.2.4", "targetRef": target("default", "p")}, stranger]);
    for (name, addresses, expected) in [
        ("pod", pod(target("default", "p")), 200),
        ("among-others", among_others, 200),
        ("nobody", pod(Value::Null), 503),
        ("away", pod(target("default", "q")), 503),
        ("elsewhere", pod(target("other", "p")), 503),
    ] {
        create(&server, services, json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})).await;
        let endpoints = json!({"metadata": {"name": name},
            "subsets": [{"addresses": addresses, "ports": [{"port": 8080}]}]});
        create(&server, "/api/v1/namespaces/default/endpoints", endpoints).await;
        // Where to begin is chance.
        for _ in 0..8 {
            assert_eq!(ask(format!("{services}/{name}/proxy/q"), "").await.0, expected, "{name}");
        }
    }
    shutdown.trigger();
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told_to_the_client() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Refuse("no agent available".to_owned())).await;
    far(ways.folder.path()).await;
    let server = server(&ways, |config| with_kubelets(config, ways.folder.path()), &shutdown).await;
    workload(&server).await;
    let told = async |uri: String| {
        let (code, text) = text(&server, &uri).await;
        let status: Value = serde_json::from_str(&text).unwrap();
        (code.as_u16(), status["message"].as_str().unwrap().to_owned())
    };
    let proxied = told(format!("{PODS}/p:8080/proxy/hello")).await;
    assert_eq!(proxied, (503, "error trying to reach service: no agent available".to_owned()));
    let log = told(format!("{PODS}/p/log")).await;
    let expected = "Get \"https://10.1.2.5:10250/containerLogs/default/p/c\": no agent available";
    assert_eq!(log, (500, expected.to_owned()));
    let (_, metrics) = text(&server, "/metrics").await;
    let failed = r#"apiserver_egress_dialer_dial_failure_count{protocol="grpc",stage="proxy",transport="uds"} 2"#;
    assert!(metrics.contains(failed), "{metrics}");
    assert!(metrics.contains(r#"konnectivity_network_proxy_client_dial_failure_total{reason="endpoint"} 2"#));
    shutdown.trigger();
}

#[tokio::test]
async fn who_knows_tokens_is_asked_by_the_control_planes_way() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Lead).await;
    let (port, pem) = support::webhook::serve(|_, review| {
        let status = json!({"authenticated": review["spec"]["token"] == "good", "user": {"username": "jane"}});
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
    })
    .await;
    ways.control_plane.learn("localhost:1", ([127, 0, 0, 1], port).into());
    let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://localhost:1/", "certificate-authority-data": bundle}}],
        "users": [{"name": "c", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    let path = ways.folder.path().join("tokens");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let webhook = TokenWebhook { kubeconfig: path, version: "v1".to_owned(), ttl: std::time::Duration::ZERO };
    let server = server(&ways, |config| config.token_webhook = Some(webhook), &shutdown).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "good"}});
    let answer = create(&server, "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(answer["status"]["user"]["username"], "jane", "{answer}");
    assert_eq!(ways.control_plane.asked(), ["localhost:1"]);
    assert!(ways.cluster.asked().is_empty());
    shutdown.trigger();
}

#[tokio::test]
async fn an_issuer_needs_the_way_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authentication.yaml");
    let told = async |way: &str, egress: Egress| {
        let issuer = json!({"url": "https://issuer.example", "audiences": ["a"], "egressSelectorType": way});
        let username = json!({"claim": "sub", "prefix": ""});
        let text = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{"issuer": issuer, "claimMappings": {"username": username}}]});
        std::fs::write(&path, text.to_string()).unwrap();
        let config = Config { authentication: Some(path.clone()), egress, ..Config::default() };
        let store = Arc::new(store::Embedded::in_memory().await.unwrap());
        let made = apiserver::service(config, store, &lifecycle::Shutdown::new());
        made.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let only = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
                - {name: cluster, connection: {proxyProtocol: Direct}}\n";
    let only = Egress::parse(only).unwrap();
    let none = told("cluster", Egress::default()).await;
    assert!(none.contains("oidc: egress lookup required with egress selector type \"cluster\""), "{none}");
    let other = told("controlplane", only.clone()).await;
    assert!(other.contains("oidc: egress lookup for \"controlplane\" is not configured"), "{other}");
    let unknown = told("etcd", only.clone()).await;
    assert!(unknown.contains("egress selector must be either controlplane or cluster"), "{unknown}");
    assert_eq!(told("cluster", only).await, "");
}

#[tokio::test]
async fn spans_go_to_their_collector_by_the_control_plane() {
    let shutdown = lifecycle::Shutdown::new();
    let ways = ways(Conduct::Lead).await;
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    ways.control_plane.learn("collector.test:4317", collector.local_addr().unwrap());
    let settings = "{kind: TracingConfiguration, apiVersion: apiserver.config.k8s.io/v1, \
                    endpoint: \"collector.test:4317\", samplingRatePerMillion: 1000000}";
    let settings = traces::Settings::parse(settings).unwrap();
    let server = server(&ways, |config| config.traces = Some(settings), &shutdown).await;
    assert_eq!(text(&server, "/version").await.0, StatusCode::OK);
    let mut preface = [0; 14];
    let met = async { collector.accept().await.unwrap().0.read_exact(&mut preface).await };
    tokio::time::timeout(std::time::Duration::from_secs(60), met).await.expect("the collector is asked").unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0");
    assert_eq!(ways.control_plane.asked(), ["collector.test:4317"]);
    shutdown.trigger();
}
