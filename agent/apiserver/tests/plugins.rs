//! Admission plugins that are switched and set, through the whole server.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use api::features::Features;
use apiserver::{AdmissionSettings, ApiService, Authorization, Config, Plugins};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{JSON, send};
use tower::ServiceExt as _;

const EVENTS: &str = "/api/v1/namespaces/default/events";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn server(config: Config, shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let config = Config { authorization: Authorization::AlwaysAllow, ..config };
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

fn plugins(on: &[&str], off: &[&str]) -> Plugins {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Plugins::try_new(&names(on), &names(off)).unwrap()
}

fn settings(plugin: Value) -> AdmissionSettings {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admission.yaml");
    let file =
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]});
    std::fs::write(&path, file.to_string()).unwrap();
    AdmissionSettings::from_file(&path).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "a:1"}]}})
}

#[tokio::test]
async fn events_beyond_the_limit_are_refused() {
    let shutdown = lifecycle::Shutdown::new();
    let limits = json!({"name": "EventRateLimit", "configuration": {
        "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": [{"type": "Namespace", "qps": 1, "burst": 1}],
    }});
    let (plugins, admission) = (plugins(&["EventRateLimit"], &[]), settings(limits));
    let server = server(Config { plugins, admission, ..Config::default() }, &shutdown).await;
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default", "kind": "Pod", "name": "a"}});
    assert_eq!(send(&server, Method::POST, EVENTS, JSON, event("a")).await.0, StatusCode::CREATED);
    let (mut code, mut body) = (StatusCode::CREATED, Value::Null);
    // A slow machine may give some back in between.
    for index in 0..20 {
        if code == StatusCode::CREATED {
            (code, body) = send(&server, Method::POST, EVENTS, JSON, event(&format!("b{index}"))).await;
        }
    }
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["message"], "Too many requests: limit reached on type Namespace for key default");
    let dry = format!("{EVENTS}?dryRun=All");
    assert_eq!(send(&server, Method::POST, &dry, JSON, event("c")).await.0, StatusCode::CREATED);
    shutdown.trigger();
}

#[tokio::test]
async fn pods_are_held_to_what_the_settings_demand() {
    let shutdown = lifecycle::Shutdown::new();
    let security = json!({"name": "PodSecurity", "configuration": {
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline"}, "exemptions": {"namespaces": ["kube-system"]},
    }});
    let plugins = plugins(&["AlwaysPullImages", "DenyServiceExternalIPs"], &["ServiceAccount", "Priority"]);
    let config = Config { plugins, admission: settings(security), ..Config::default() };
    let server = server(config, &shutdown).await;
    let (code, body) = send(&server, Method::POST, PODS, JSON, pod("a")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body["message"].as_str().unwrap().contains("violates PodSecurity \"baseline:latest\""), "{body}");
    let (code, made) = send(&server, Method::POST, "/api/v1/namespaces/kube-system/pods", JSON, pod("a")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert!(made["spec"]["serviceAccountName"].is_null() && made["spec"]["priority"].is_null());
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}], "externalIPs": ["1.2.3.4"]}});
    let (code, body) = send(&server, Method::POST, SERVICES, JSON, service).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(body["message"].as_str().unwrap().ends_with("Use of external IPs is denied by admission control"));
    shutdown.trigger();
}

#[tokio::test]
async fn plugins_and_features_that_are_off_do_nothing() {
    let shutdown = lifecycle::Shutdown::new();
    let features = Features::parse(["WatchList=false,StorageVersionHash=false,ComponentStatusz=false"]).unwrap();
    let plugins = plugins(&[], &["PodSecurity", "NamespaceLifecycle", "ServiceAccount"]);
    let server = server(Config { plugins, features, ..Config::default() }, &shutdown).await;
    let (code, _) = send(&server, Method::POST, "/api/v1/namespaces/nowhere/pods", JSON, pod("a")).await;
    assert_eq!(code, StatusCode::CREATED);
    let watch = format!("{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let (code, body) = send(&server, Method::GET, &watch, JSON, Value::Null).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let text = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    assert!(body["message"].as_str().unwrap().contains(text), "{body}");
    let (_, list) = send(&server, Method::GET, "/api/v1", JSON, Value::Null).await;
    assert!(list["resources"][0].get("storageVersionHash").is_none());
    assert_eq!(send(&server, Method::GET, "/statusz", JSON, Value::Null).await.0, StatusCode::NOT_FOUND);
    shutdown.trigger();
}

const NAMESPACES: &str = "/api/v1/namespaces";

/// A pod that asks for a processor, in the namespace `a`, and what became of it.
async fn made(server: &ApiService, name: &str, spec: Value) -> (StatusCode, Value) {
    let resources = json!({"requests": {"cpu": "1", "example.com/device": "1"}, "limits": {"example.com/device": "1"}});
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "a:1", "resources": resources}]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    send(server, Method::POST, "/api/v1/namespaces/a/pods", JSON, pod).await
}

async fn make_namespace(server: &ApiService, annotations: Value) {
    let namespace = json!({"metadata": {"name": "a", "annotations": annotations}});
    let (code, body) = send(server, Method::POST, NAMESPACES, JSON, namespace).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
}

#[tokio::test]
async fn namespaces_are_made_for_what_is_in_them() {
    let shutdown = lifecycle::Shutdown::new();
    let plugins = plugins(&["NamespaceAutoProvision", "NamespaceExists"], &["ServiceAccount"]);
    let server = server(Config { plugins, ..Config::default() }, &shutdown).await;
    let maps = |namespace: &str, rest: &str| format!("{NAMESPACES}/{namespace}/configmaps{rest}");
    let map = || json!({"metadata": {"name": "m"}});
    let (code, body) = send(&server, Method::POST, &maps("dry", "?dryRun=All"), JSON, map()).await;
    assert_eq!((code, &body["message"]), (StatusCode::NOT_FOUND, &json!("namespaces \"dry\" not found")));
    assert_eq!(send(&server, Method::POST, &maps("made", ""), JSON, map()).await.0, StatusCode::CREATED);
    let (_, namespace) = send(&server, Method::GET, &format!("{NAMESPACES}/made"), JSON, Value::Null).await;
    assert_eq!(
        (&namespace["status"]["phase"], &namespace["spec"]["finalizers"]),
        (&json!("Active"), &json!(["kubernetes"]))
    );
    let (code, body) = send(&server, Method::POST, &maps("Wrong", ""), JSON, map()).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let text = "configmaps \"m\" is forbidden: Namespace \"Wrong\" is invalid: metadata.name: Invalid value: \"Wrong\"";
    assert!(body["message"].as_str().unwrap().starts_with(text), "{body}");
    shutdown.trigger();
}

#[tokio::test]
async fn nothing_is_done_in_namespaces_that_are_not_there() {
    let shutdown = lifecycle::Shutdown::new();
    let plugins = plugins(&["NamespaceExists"], &["NamespaceLifecycle", "ServiceAccount"]);
    let server = server(Config { plugins, ..Config::default() }, &shutdown).await;
    let (code, body) = send(&server, Method::POST, "/api/v1/namespaces/nowhere/pods", JSON, pod("a")).await;
    assert_eq!((code, &body["message"]), (StatusCode::NOT_FOUND, &json!("namespaces \"nowhere\" not found")));
    assert_eq!(send(&server, Method::POST, PODS, JSON, pod("a")).await.0, StatusCode::CREATED);
    shutdown.trigger();
}

#[tokio::test]
async fn pods_run_where_their_namespace_says() {
    let shutdown = lifecycle::Shutdown::new();
    let selectors = json!({"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": {
        "clusterDefaultNodeSelector": "zone=default", "a": "zone=here,disk=fast,size=big",
    }}});
    let plugins = plugins(&["PodNodeSelector"], &["ServiceAccount"]);
    let server = server(Config { plugins, admission: settings(selectors), ..Config::default() }, &shutdown).await;
    let (_, given) = send(&server, Method::POST, PODS, JSON, pod("a")).await;
    assert_eq!(given["spec"]["nodeSelector"], json!({"zone": "default"}));
    make_namespace(&server, json!({"scheduler.alpha.kubernetes.io/node-selector": "zone=here, disk=fast"})).await;
    let (_, given) = made(&server, "b", json!({"nodeSelector": {"size": "big"}})).await;
    assert_eq!(given["spec"]["nodeSelector"], json!({"zone": "here", "disk": "fast", "size": "big"}));
    let told = async |wanted: Value| made(&server, "c", json!({"nodeSelector": wanted})).await.1["message"].clone();
    let conflict = "pods \"c\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    assert_eq!(told(json!({"zone": "there"})).await, conflict);
    let beyond = "pods \"c\" is forbidden: pod node label selector labels conflict with its namespace whitelist";
    assert_eq!(told(json!({"size": "small"})).await, beyond);
    shutdown.trigger();
}

#[tokio::test]
async fn pods_tolerate_what_their_namespace_says() {
    let shutdown = lifecycle::Shutdown::new();
    let limits = json!({"name": "PodTolerationRestriction", "configuration": {
        "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "default": [{"key": "default", "operator": "Exists"}],
    }});
    let on = ["PodTolerationRestriction", "ExtendedResourceToleration"];
    let plugins = plugins(&on, &["ServiceAccount", "DefaultTolerationSeconds"]);
    let server = server(Config { plugins, admission: settings(limits), ..Config::default() }, &shutdown).await;
    let (_, given) = send(&server, Method::POST, PODS, JSON, pod("a")).await;
    assert_eq!(given["spec"]["tolerations"], json!([{"key": "default", "operator": "Exists"}]));
    let prefix = "scheduler.alpha.kubernetes.io/";
    let allowed = r#"[{"key": "own"}, {"operator": "Exists", "effect": "NoSchedule"}]"#;
    make_namespace(
        &server,
        json!({
            format!("{prefix}defaultTolerations"): r#"[{"key": "own", "operator": "Equal"}]"#,
            format!("{prefix}tolerationsWhitelist"): allowed,
        }),
    )
    .await;
    let (_, given) = made(&server, "b", json!({})).await;
    let of = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let expected = json!([{"key": "own", "operator": "Equal"}, of("node.kubernetes.io/memory-pressure"), of("example.com/device")]);
    assert_eq!(given["spec"]["tolerations"], expected, "{given}");
    let (code, body) =
        made(&server, "c", json!({"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]})).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    let text =
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
    assert_eq!(body["message"], text);
    shutdown.trigger();
}

/// Settings of ImagePolicyWebhook, and the folder of their kubeconfig.
fn image_policy(port: u16, pem: &str, section: Value) -> (AdmissionSettings, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), pem).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": format!("https://localhost:{port}/judge"), "certificate-authority": "ca.crt"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "users": [{"name": "a", "user": {}}],
    });
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut policy = section;
    policy["kubeConfigFile"] = path.display().to_string().into();
    (settings(json!({"name": "ImagePolicyWebhook", "configuration": {"imagePolicy": policy}})), folder)
}

#[tokio::test]
async fn another_server_judges_images() {
    let shutdown = lifecycle::Shutdown::new();
    let asked = Arc::new(std::sync::Mutex::new(Vec::<Value>::new()));
    let questions = asked.clone();
    let (port, pem) = support::webhook::serve(move |path, review| {
        assert_eq!(path, "/judge");
        questions.lock().unwrap().push(review["spec"].clone());
        let is_good = review["spec"]["containers"][0]["image"] == "a:1";
        let reason = if is_good { "" } else { "b is bad" };
        json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": {"allowed": is_good, "reason": reason}})
    })
    .await;
    let (admission, _folder) = image_policy(port, &pem, json!({"denyTTL": -1}));
    let plugins = plugins(&["ImagePolicyWebhook"], &["ServiceAccount"]);
    let server = server(Config { plugins, admission, ..Config::default() }, &shutdown).await;
    let mut good = pod("a");
    good["metadata"]["annotations"] = json!({"mine.image-policy.k8s.io/ticket": "7", "other": "1"});
    assert_eq!(send(&server, Method::POST, PODS, JSON, good.clone()).await.0, StatusCode::CREATED);
    good["metadata"]["name"] = "b".into();
    assert_eq!(send(&server, Method::POST, PODS, JSON, good).await.0, StatusCode::CREATED);
    let mut bad = pod("c");
    bad["spec"]["containers"][0]["image"] = "b:1".into();
    for _ in 0..2 {
        let (code, body) = send(&server, Method::POST, PODS, JSON, bad.clone()).await;
        let text = "pods \"c\" is forbidden: image policy webhook backend denied one or more images: b is bad";
        assert_eq!((code, body["message"].as_str().unwrap()), (StatusCode::FORBIDDEN, text));
    }
    // What was allowed is remembered, what was refused is asked about again.
    let own = json!({"mine.image-policy.k8s.io/ticket": "7"});
    let first = json!({"containers": [{"image": "a:1"}], "namespace": "default", "annotations": own});
    let refused = json!({"containers": [{"image": "b:1"}], "namespace": "default"});
    assert_eq!(*asked.lock().unwrap(), [first, refused.clone(), refused]);
    shutdown.trigger();
}

#[tokio::test]
async fn a_judge_of_images_that_does_not_answer_counts_as_the_settings_say() {
    for (default_allow, expected) in [(true, StatusCode::CREATED), (false, StatusCode::FORBIDDEN)] {
        let shutdown = lifecycle::Shutdown::new();
        let (port, _) = support::webhook::serve(|_, _| Value::Null).await;
        // Nobody knows this authority.
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
        let section = json!({"defaultAllow": default_allow, "retryBackoff": 1});
        let (admission, _folder) = image_policy(port, &other, section);
        let plugins = plugins(&["ImagePolicyWebhook"], &["ServiceAccount"]);
        let server = server(Config { plugins, admission, ..Config::default() }, &shutdown).await;
        let (code, body) = send(&server, Method::POST, PODS, JSON, pod("a")).await;
        assert_eq!(code, expected, "{body}");
        shutdown.trigger();
    }
}

#[tokio::test]
async fn a_judge_of_images_has_to_be_named() {
    let config = Config { plugins: plugins(&["ImagePolicyWebhook"], &[]), ..Config::default() };
    let store = store::Embedded::in_memory().await.unwrap();
    let failed = apiserver::service(config, Arc::new(store), &lifecycle::Shutdown::new()).err().unwrap();
    let text =
        "failed to initialize admission: couldn't init admission plugin \"ImagePolicyWebhook\": no config specified";
    assert_eq!(failed.to_string(), text);
}

/// What is said to somebody known by a token.
async fn ask(server: &ApiService, token: &str, (method, uri): (Method, &str), body: Value) -> (StatusCode, Value) {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { JSON };
    let request = Request::builder().method(method).uri(uri).header("content-type", kind);
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn owners_are_named_by_those_with_rights_for_both() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let shutdown = lifecycle::Shutdown::new();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.csv");
    std::fs::write(&tokens, "boss,boss,1,\"system:masters\"\njane,jane,2,\n").unwrap();
    let config = Config {
        plugins: plugins(&["OwnerReferencesPermissionEnforcement"], &[]),
        token_file: Some(tokens),
        authorization: Authorization::NodeRbac,
        ..Config::default()
    };
    let store = store::Embedded::in_memory().await.unwrap();
    let (server, ready) = apiserver::service(config, Arc::new(store), &shutdown).unwrap();
    ready.await;
    let allow = async |name: &str, rules: Value| {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let (code, body) = ask(&server, "boss", (Method::POST, &format!("{RBAC}/clusterroles")), role).await;
        assert_eq!(code, StatusCode::CREATED, "{body}");
        let api = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": name}, "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": "jane"}],
        });
        let (code, body) = ask(&server, "boss", (Method::POST, &format!("{RBAC}/clusterrolebindings")), binding).await;
        assert_eq!(code, StatusCode::CREATED, "{body}");
    };
    allow("write", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}])).await;
    let owned = |kind: &str, blocks: bool| {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "blockOwnerDeletion": blocks});
        json!({"metadata": {"name": "m", "ownerReferences": [owner]}})
    };
    let told = async |method: Method, uri: &str, body: Value| {
        ask(&server, "jane", (method, uri), body).await.1["message"].clone()
    };
    let held_up = "configmaps \"m\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you \
                   can't set finalizers on: , <nil>";
    assert_eq!(told(Method::POST, MAPS, owned("Secret", true)).await, held_up);
    let unknown = "configmaps \"m\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping \
                   for APIVersion v1 Kind Nothing: no matches for kind \"Nothing\" in version \"v1\"";
    assert_eq!(told(Method::POST, MAPS, owned("Nothing", true)).await, unknown);
    let one = format!("{MAPS}/m");
    let made = ask(&server, "jane", (Method::POST, MAPS), owned("Secret", false)).await;
    assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
    // Other parts of it may be changed as before, its owners only by who may delete it.
    let labelled = ask(&server, "jane", (Method::PATCH, &one), json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.0, StatusCode::OK, "{}", labelled.1);
    let not_deletable = "configmaps \"m\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(told(Method::PATCH, &one, owned("Secret", true)).await, not_deletable);
    allow("delete", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}])).await;
    assert_eq!(told(Method::PATCH, &one, owned("Secret", true)).await, held_up);
    allow("finalize", json!([{"apiGroups": [""], "resources": ["secrets/finalizers"], "verbs": ["update"]}])).await;
    assert_eq!(ask(&server, "jane", (Method::PATCH, &one), owned("Secret", true)).await.0, StatusCode::OK);
    shutdown.trigger();
}

/// The warnings of an answer to a patch.
async fn warned(server: &ApiService, uri: &str, patch: &Value) -> Vec<String> {
    let request = Request::patch(uri).header("content-type", "application/merge-patch+json");
    let request = request.body(Full::new(Bytes::from(patch.to_string()))).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.headers().get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn labels_that_demand_more_tell_which_pods_do_not_meet_them() {
    let shutdown = lifecycle::Shutdown::new();
    let server = server(Config { plugins: plugins(&[], &["ServiceAccount"]), ..Config::default() }, &shutdown).await;
    for name in ["a", "b"] {
        assert_eq!(send(&server, Method::POST, PODS, JSON, pod(name)).await.0, StatusCode::CREATED);
    }
    let mut ported = pod("c");
    ported["spec"]["hostNetwork"] = false.into();
    ported["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    assert_eq!(send(&server, Method::POST, PODS, JSON, ported).await.0, StatusCode::CREATED);
    support::until(&server, &format!("{PODS}?watch=1"), |_, pod| pod["metadata"]["name"] == "c").await;
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let uri = format!("{NAMESPACES}/default?dryRun=All");
    let told = [
        "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
        "299 - \"a (and 1 other pod): host namespaces\"",
        "299 - \"c: hostPort\"",
    ];
    assert_eq!(warned(&server, &uri, &label("baseline")).await, told);
    assert_eq!(warned(&server, &uri, &label("privileged")).await, Vec::<String>::new());
    let (code, body) = send(&server, Method::PATCH, &uri, "application/merge-patch+json", label("none")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    shutdown.trigger();
}

/// What a node is answered that posts something.
async fn as_node(server: &ApiService, uri: &str, object: &Value) -> (StatusCode, Value) {
    let request = Request::post(uri).header("content-type", JSON).header("impersonate-user", "system:node:n1");
    let request = request.header("impersonate-group", "system:nodes");
    let answer =
        server.clone().oneshot(request.body(Full::new(Bytes::from(object.to_string()))).unwrap()).await.unwrap();
    let code = answer.status();
    (code, serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

#[tokio::test]
async fn nodes_make_pods_that_are_their_own() {
    let shutdown = lifecycle::Shutdown::new();
    let plugins = plugins(&["NodeRestriction"], &["ServiceAccount"]);
    let server = server(Config { plugins, ..Config::default() }, &shutdown).await;
    let node = json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}});
    let (_, node) = send(&server, Method::POST, "/api/v1/nodes", JSON, node).await;
    let owner =
        json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": true});
    let changed = |key: &str, value: Value| {
        let mut owner = owner.clone();
        owner[key] = value;
        json!([owner])
    };
    let other = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"});
    let only = |what: &str| format!("node \"n1\" can only create pods with {what} owner reference set to itself");
    for (owners, why) in [
        (json!([]), only("an")),
        (json!([owner, other]), only("a single")),
        (changed("name", "n2".into()), only("an")),
        (changed("controller", Value::Null), only("a controller")),
        (
            changed("blockOwnerDeletion", true.into()),
            "node \"n1\" must not set blockOwnerDeletion on an owner reference".to_owned(),
        ),
        (
            changed("uid", "u".into()),
            format!("node n1 UID mismatch: expected u got {}", node["metadata"]["uid"].as_str().unwrap()),
        ),
        (json!([owner]), String::new()),
    ] {
        let mut mirror = pod("m");
        mirror["spec"]["nodeName"] = "n1".into();
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        mirror["metadata"]["ownerReferences"] = owners;
        let (code, answer) = as_node(&server, PODS, &mirror).await;
        if why.is_empty() {
            assert_eq!(code, StatusCode::CREATED, "{answer}");
            assert_eq!(answer["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z"}));
        } else {
            assert_eq!(
                (code, answer["message"].as_str()),
                (StatusCode::FORBIDDEN, Some(format!("pods \"m\" is forbidden: {why}").as_str()))
            );
        }
    }
    shutdown.trigger();
}
