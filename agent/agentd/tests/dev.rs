//! `keelson dev` as other projects' tests use it: started, spoken to by its kubeconfig, asked to end.

#![allow(clippy::unwrap_used, reason = "a test ends with the first thing that is wrong")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use api::core::v1::{ConfigMap, ServiceAccount};
use bytes::Bytes;
use client::{Client, WatchEvent, WatchParams};
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Enough on a busy machine with a build without optimization.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

struct Dev {
    child: Child,
    kubeconfig: PathBuf,
}

impl Dev {
    async fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keelson"))
            .args(["dev", "--port=0", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("ready", lines.next_line()).await.unwrap().expect("it ended before it was ready");
        Self { child, kubeconfig: line.into() }
    }

    fn client(&self) -> Client {
        Client::new(client::Config::from_kubeconfig(&self.kubeconfig).unwrap()).unwrap()
    }

    async fn end(mut self) {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(soon("the end", self.child.wait()).await.unwrap().success());
    }

    async fn token(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.arg("token").args(words).arg("--kubeconfig").arg(&self.kubeconfig);
        let output = soon("keelson token", command.output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = "default".to_owned();
    map.metadata.name = name.to_owned();
    map.data = [("key".to_owned(), "value".to_owned())].into();
    map
}

/// Waits for an object that a controller makes.
async fn default_account(client: &Client) {
    let params = WatchParams { field_selector: "metadata.name=default".to_owned(), ..WatchParams::default() };
    let mut events = client.watch::<ServiceAccount>(Some("default"), &params).await.unwrap();
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(_) = event.unwrap() {
            return;
        }
    }
    panic!("the watch ended");
}

#[tokio::test]
async fn objects_are_kept_and_controllers_work() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path()).await;
    let client = dev.client();
    client.create(&config_map("a")).await.unwrap();
    soon("the default service account", default_account(&client)).await;
    dev.end().await;
    let dev = Dev::start(folder.path()).await;
    let found: ConfigMap = dev.client().get(Some("default"), "a").await.unwrap();
    assert_eq!(found.data["key"], "value");
    dev.end().await;
}

#[tokio::test]
async fn tokens_are_created_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path()).await;
    let created = dev.token(&["create", "--ttl=1h", "--description=rack 7"]).await;
    let value = |key: &str| {
        let line = created.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("no {key} in {created}")).trim_matches('"').to_owned()
    };
    assert!(value("endpoint").starts_with("https://127.0.0.1:"));
    assert!(value("ca-hash").starts_with("sha256:"));
    let token = value("token");
    // The token is known to the server, which tells a stranger from one who may not.
    let mut config = client::Config::from_kubeconfig(&dev.kubeconfig).unwrap();
    config.identity = client::Identity::Token(token.clone());
    let joiner = Client::new(config).unwrap();
    let refused = joiner.get::<ConfigMap>(Some("default"), "a").await.unwrap_err();
    assert!(refused.to_string().contains("system:bootstrap:"), "{refused}");
    let id = token.split('.').next().unwrap();
    assert!(dev.token(&["list"]).await.contains("rack 7"));
    assert!(dev.token(&["list", "--output=json"]).await.contains(id));
    dev.token(&["delete", &token]).await;
    assert!(!dev.token(&["list"]).await.contains(id));
    dev.end().await;
}

/// Sends a document; what comes back, with its code.
async fn send(client: &Client, (method, path): (&str, &str), document: &Value) -> (StatusCode, Value) {
    let body = if document.is_null() { Bytes::new() } else { document.to_string().into() };
    let request = http::Request::builder().method(method).uri(path).header("accept", "application/json");
    let request = request.header("content-type", "application/json").body(body).unwrap();
    let response = soon(path, client.raw(request)).await.unwrap();
    let code = response.status();
    let bytes = soon(path, response.into_body().collect()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Sends until the answer has that code.
async fn until(client: &Client, request: (&str, &str), document: &Value, wanted: StatusCode) -> Value {
    let done = async {
        loop {
            let (code, body) = send(client, request, document).await;
            if code == wanted {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(&format!("{request:?} is answered with {wanted}"), done).await
}

#[tokio::test]
async fn objects_go_with_their_custom_owner_and_those_with_their_namespace() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path()).await;
    let client = dev.client();
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "metadata": {"name": "things.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(send(&client, ("POST", definitions), &definition).await.0, StatusCode::CREATED);
    let things = |namespace: &str, name: &str| format!("/apis/test.example/v1/namespaces/{namespace}/things{name}");
    let thing = |metadata: Value| json!({"apiVersion": "test.example/v1", "kind": "Thing", "metadata": metadata});
    let owner =
        until(&client, ("POST", &things("default", "")), &thing(json!({"name": "a"})), StatusCode::CREATED).await;
    let reference = json!({
        "apiVersion": "test.example/v1", "kind": "Thing", "name": "a", "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true,
    });
    // In the foreground the owner waits for both: the one of the table, and the one that is of its own kind.
    let owned = |name: &str| json!({"name": name, "ownerReferences": [reference]});
    assert_eq!(send(&client, ("POST", MAPS), &json!({"metadata": owned("m")})).await.0, StatusCode::CREATED);
    let made = send(&client, ("POST", &things("default", "")), &thing(owned("b"))).await;
    assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
    let foreground = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    let (code, _) = send(&client, ("DELETE", &things("default", "/a")), &foreground).await;
    assert_eq!(code, StatusCode::OK);
    for path in [&format!("{MAPS}/m"), &things("default", "/b"), &things("default", "/a")] {
        until(&client, ("GET", path), &Value::Null, StatusCode::NOT_FOUND).await;
    }
    let namespace = json!({"metadata": {"name": "n"}});
    assert_eq!(send(&client, ("POST", "/api/v1/namespaces"), &namespace).await.0, StatusCode::CREATED);
    let (code, _) = send(&client, ("POST", &things("n", "")), &thing(json!({"name": "c"}))).await;
    assert_eq!(code, StatusCode::CREATED);
    send(&client, ("DELETE", "/api/v1/namespaces/n"), &Value::Null).await;
    until(&client, ("GET", "/api/v1/namespaces/n"), &Value::Null, StatusCode::NOT_FOUND).await;
    assert_eq!(send(&client, ("GET", &things("n", "/c")), &Value::Null).await.0, StatusCode::NOT_FOUND);
    dev.end().await;
}
