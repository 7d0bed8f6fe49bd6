//! The cluster as its users see it: through its API, and through the sample application's port.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use client::{Client, Config};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request; a machine under emulation is slow, but not that slow.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// The API of a cluster, spoken in JSON as kubectl does.
pub struct Api(Client);

/// A node, as far as the harness cares.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub is_ready: bool,
    /// Why it is not, in the kubelet's words.
    pub message: String,
    /// Its pods' addresses.
    pub pod_cidr: Option<String>,
}

/// A pod of one container, as far as the harness cares.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Unlike the name, never used again.
    pub uid: String,
    /// Where it runs.
    pub node: String,
    /// In the pod network.
    pub address: Option<IpAddr>,
    /// Pending, Running, ...
    pub phase: String,
    /// Whether Services lead to it.
    pub is_ready: bool,
    /// Whether it was told to end.
    pub is_ending: bool,
    /// The container that runs, or the last one.
    pub container: String,
    /// How often the container was started again.
    pub restarts: u64,
    /// Why the container does not run, in one word.
    pub waiting: Option<String>,
    /// How the container before this one ended.
    pub last_exit: Option<i64>,
}

impl Pod {
    /// Whether it is here to stay and works.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.is_ready && !self.is_ending
    }
}

impl Api {
    /// By a kubeconfig file.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let config = Config::from_kubeconfig(kubeconfig).context("read the kubeconfig")?.with_component("cluster");
        Ok(Self(Client::new(config).context("make a client")?))
    }

    /// Sends a request; answers its code and body. A patch is a merge patch.
    ///
    /// # Errors
    /// No answer comes.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes)> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONTENT_TYPE, kind)
            .body(body)?;
        let answer = async {
            let response = self.0.raw(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(REQUEST_DEADLINE, answer).await.with_context(|| format!("{path}: no answer in time"))?
    }

    /// Gets an object or a list.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a request that must succeed; answers the object that comes back.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.send(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", message(&answer));
        }
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}: not JSON"))
    }

    /// Gets plain text, such as a log.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn text(&self, path: &str) -> Result<String> {
        let (status, body) = self.send(Method::GET, path, None).await?;
        if !status.is_success() {
            bail!("GET {path}: {status}: {}", message(&body));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The pods of the namespace `default` with the label `app`.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let list = self.get(&format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{app}")).await?;
        Ok(list["items"].as_array().into_iter().flatten().map(pod).collect())
    }

    /// Whether the server says it is ready; if not, why.
    ///
    /// # Errors
    /// No answer comes.
    pub async fn check_ready(&self) -> Result<()> {
        let (status, body) = self.send(Method::GET, "/readyz", None).await?;
        if status.is_success() { Ok(()) } else { bail!("/readyz: {status}: {}", String::from_utf8_lossy(&body).trim()) }
    }

    /// All nodes.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let list = self.get("/api/v1/nodes").await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().map(node).collect())
    }

    /// Creates the objects of a YAML file in the namespace `default`; those that exist stay.
    ///
    /// # Errors
    /// The file holds something unknown, or the server refuses.
    pub async fn create_all(&self, file: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).with_context(|| format!("read {}", file.display()))?;
            let path = collection(&object)?;
            let (status, body) = self.send(Method::POST, &path, Some(&object)).await?;
            if !status.is_success() && status != StatusCode::CONFLICT {
                bail!("create {} {}: {status}: {}", object["kind"], object["metadata"]["name"], message(&body));
            }
        }
        Ok(())
    }
}

fn node(object: &Value) -> Node {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Node {
        name: text(&object["metadata"]["name"]),
        is_ready: ready.is_some_and(|condition| condition["status"] == "True"),
        message: ready.map_or_else(|| "no condition Ready yet".to_owned(), |condition| text(&condition["message"])),
        pod_cidr: object["spec"]["podCIDR"].as_str().map(str::to_owned),
    }
}

fn pod(object: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let container = &status["containerStatuses"][0];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    Pod {
        name: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        node: text(&object["spec"]["nodeName"]),
        address: status["podIP"].as_str().and_then(|address| address.parse().ok()),
        phase: text(&status["phase"]),
        is_ready: conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        is_ending: metadata["deletionTimestamp"].is_string(),
        container: text(&container["containerID"]),
        restarts: container["restartCount"].as_u64().unwrap_or_default(),
        waiting: container["state"]["waiting"]["reason"].as_str().map(str::to_owned),
        last_exit: container["lastState"]["terminated"]["exitCode"].as_i64(),
    }
}

/// Where objects like this one are created.
fn collection(object: &Value) -> Result<String> {
    let (group, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let plural = match kind {
        "ConfigMap" | "Deployment" | "Pod" | "Secret" | "Service" | "DaemonSet" => format!("{}s", kind.to_lowercase()),
        _ => bail!("the harness does not know where {kind:?} is created"),
    };
    let root = if group.contains('/') { "apis" } else { "api" };
    Ok(format!("/{root}/{group}/namespaces/default/{plural}"))
}

fn message(body: &[u8]) -> String {
    let status: Option<Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status["message"].as_str()).map(str::to_owned);
    message.unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect())
}

/// What a web server on the host's loopback answers at `/`.
///
/// # Errors
/// It does not answer, or not with success.
pub async fn ask(port: u16) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: sample\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    let text = tokio::time::timeout(REQUEST_DEADLINE, exchange).await.context("no answer in time")??;
    let (head, body) = text.split_once("\r\n\r\n").context("the connection ended without an answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.trim().to_owned()) } else { bail!("answers {status}") }
}
