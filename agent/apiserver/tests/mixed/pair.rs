//! Two servers on one etcd, and what is asked of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::Config;
use bytes::Bytes;
use client::{Client, ResponseBody};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use lifecycle::Shutdown;
use serde_json::{Value, json};

use crate::support::JSON;
use crate::support::etcd::Etcd;
use crate::support::golden::Sample;
use crate::support::launched::{Launched, Program, TOKEN};

const FOLDER: &str = "KEELSON_TEST_UPSTREAM";
/// Upstream's address, and ours.
pub(crate) static ADVERTISED: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
/// How often an object is read, or written, whose version the servers themselves change meanwhile.
const TRIES: usize = 50;
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// One of two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Upstream,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Ours => Self::Upstream,
            Self::Upstream => Self::Ours,
        }
    }
}

/// Both of them. Upstream's is a process, ours is in this one.
pub(crate) struct Pair {
    ours: Client,
    upstream: Client,
    stop: Shutdown,
    process: Launched,
    etcd: Etcd,
}

/// A status code and a text.
pub(crate) type Answer = (StatusCode, String);

impl Pair {
    /// Starts both at once, so that they fill the empty etcd together.
    pub(crate) async fn start() -> Self {
        let folder =
            std::env::var_os(FOLDER).unwrap_or_else(|| panic!("{FOLDER} names no folder with upstream's server"));
        let folder = PathBuf::from(folder);
        let etcd = Etcd::start(folder.join("etcd"), 1, &[]);
        tokio::time::timeout(PATIENCE, etcd.healthy(0)).await.unwrap();
        let mut process = Launched::start(&Program::upstream(&folder), Some(&etcd.url(0)), ADVERTISED[0]);
        let config = Config {
            advertise: IpAddr::V4(ADVERTISED[1]),
            hostname: "ours".to_owned(),
            token_file: Some(process.tokens()),
            token_signing_key: Some(process.signing_key()),
            ..Config::default()
        };
        let stop = Shutdown::new();
        let (service, ready) = apiserver::service(config, etcd.store(None).await, &stop).unwrap();
        tokio::join!(process.ready(), ready);
        let bearer = HeaderValue::try_from(format!("Bearer {TOKEN}")).unwrap();
        let ours = Client::from_service(service).with_header(header::AUTHORIZATION, bearer);
        Self { ours, upstream: process.client(), stop, process, etcd }
    }

    /// Ends our server.
    pub(crate) fn stop_ours(&self) {
        self.stop.trigger();
    }

    /// What is under both.
    pub(crate) async fn store(&self) -> Arc<store::Etcd> {
        self.etcd.store(None).await
    }

    fn client(&self, side: Side) -> &Client {
        match side {
            Side::Ours => &self.ours,
            Side::Upstream => &self.upstream,
        }
    }

    /// Asks one of them something.
    pub(crate) async fn ask(&self, side: Side, method: Method, path: &str, (kind, body): (&str, &Value)) -> Answer {
        let sign = if path.contains('?') { '&' } else { '?' };
        let manager = if kind == APPLY { "applier" } else { "mixed" };
        let uri = match method {
            Method::GET | Method::DELETE => path.to_owned(),
            _ => format!("{path}{sign}fieldManager={manager}"),
        };
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, kind);
        let request = request.header(header::ACCEPT, JSON).body(bytes).unwrap();
        let asked = async {
            let answer = self.client(side).raw(request).await.unwrap();
            let code = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_elapsed| panic!("{side:?} says nothing to {path}"))
    }

    /// Asks for what has to succeed.
    pub(crate) async fn done(
        &self,
        side: Side,
        method: Method,
        path: &str,
        body: (&str, &Value),
    ) -> Result<Value, String> {
        let (code, text) = self.ask(side, method.clone(), path, body).await;
        if code.is_success() { Ok(value(&text)) } else { Err(format!("{method} {path} at {side:?}: {code} {text}")) }
    }

    async fn get(&self, side: Side, path: &str) -> Answer {
        self.ask(side, Method::GET, path, (JSON, &Value::Null)).await
    }

    /// Waits until one of them answers as wanted.
    pub(crate) async fn until(&self, side: Side, path: &str, holds: impl Fn(StatusCode, &Value) -> bool) {
        let last = std::cell::RefCell::default();
        let asked = async {
            loop {
                let (code, text) = self.get(side, path).await;
                if holds(code, &value(&text)) {
                    return;
                }
                last.replace(text);
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{side:?}, {path}: {last:?}"));
    }

    /// Waits until both do.
    pub(crate) async fn until_both(&self, path: &str, holds: impl Fn(StatusCode, &Value) -> bool) {
        self.until(Side::Ours, path, &holds).await;
        self.until(Side::Upstream, path, &holds).await;
    }

    /// The revision of a list now.
    pub(crate) async fn revision(&self, collection: &str) -> String {
        let (code, list) = self.get(Side::Upstream, &format!("{collection}?limit=1")).await;
        assert_eq!(code, StatusCode::OK, "{collection}: {list}");
        value(&list)["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    /// Watches at one of them, on a connection of its own: what nobody reads yet would hold up what else is on it.
    pub(crate) async fn watch(&self, side: Side, collection: &str, since: &str) -> Watch {
        let uri = format!("{collection}?watch=1&resourceVersion={since}");
        let request = Request::get(uri).header(header::ACCEPT, JSON).body(Bytes::new()).unwrap();
        let client = match side {
            Side::Ours => self.ours.clone(),
            Side::Upstream => self.process.client(),
        };
        let answer = client.raw(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{collection}");
        Watch(answer.into_body())
    }

    /// An object's whole life: one makes it, and they change it in turns. Whatever one wrote both show alike, and in the
    /// other's encoding it is the same bytes: written back there as it is, it stays as it is. Returns the first answer.
    pub(crate) async fn life(&self, sample: &Sample, name: &str, first: Side) -> Result<Answer, String> {
        let (second, path) = (first.other(), format!("{}/{name}", sample.collection));
        let made = self.ask(first, Method::POST, &sample.collection, (JSON, &sample.named(name))).await;
        if made.0 != StatusCode::CREATED {
            return Ok(made);
        }
        self.same(&path).await?;
        self.rewritten(second, &path).await?;
        let patch = json!({"metadata": {"annotations": {"patched": "yes"}}});
        self.done(second, Method::PATCH, &path, (MERGE, &patch)).await?;
        self.same(&path).await?;
        self.rewritten(first, &path).await?;
        let applied = json!({
            "apiVersion": sample.object["apiVersion"], "kind": sample.object["kind"],
            "metadata": {"name": name, "labels": {"applied": "yes"}},
        });
        self.done(first, Method::PATCH, &path, (APPLY, &applied)).await?;
        self.same(&path).await?;
        self.rewritten(second, &path).await?;
        self.done(second, Method::DELETE, &path, (JSON, &json!({"gracePeriodSeconds": 0}))).await?;
        self.same(&path).await?;
        Ok(made)
    }

    /// Whether there is nothing at a path.
    pub(crate) async fn is_gone(&self, path: &str) -> bool {
        self.get(Side::Upstream, path).await.0 == StatusCode::NOT_FOUND
    }

    /// Both show the same text.
    async fn same(&self, path: &str) -> Result<(), String> {
        let mut told = String::new();
        for _ in 0..TRIES {
            let (ours, upstream) = tokio::join!(self.get(Side::Ours, path), self.get(Side::Upstream, path));
            if ours == upstream {
                return Ok(());
            }
            let is_other_version = version(&value(&ours.1)) != version(&value(&upstream.1));
            told = format!("read at ours, {}\n{}\nread at upstream's, {}\n{}", ours.0, ours.1, upstream.0, upstream.1);
            if !is_other_version {
                break;
            }
        }
        Err(told)
    }

    /// One writes what it reads, and nothing changes.
    async fn rewritten(&self, side: Side, path: &str) -> Result<(), String> {
        for _ in 0..TRIES {
            let (_, before) = self.get(side, path).await;
            let (code, after) = self.ask(side, Method::PUT, path, (JSON, &value(&before))).await;
            if code == StatusCode::CONFLICT {
                continue;
            }
            let is_same = code == StatusCode::OK && version(&value(&before)) == version(&value(&after));
            let told = || format!("what {side:?} reads and writes back\n{before}\nbecomes, {code}\n{after}");
            return if is_same { Ok(()) } else { Err(told()) };
        }
        Err(format!("{path} never stays as it is"))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

/// A watch as it comes.
pub(crate) struct Watch(ResponseBody);

impl Watch {
    /// Its lines about objects with these names, each until the last: of those that are gone their deletion, of others
    /// that they are marked for it.
    pub(crate) async fn lives(&mut self, names: &[(String, bool)]) -> Vec<String> {
        let read = async {
            let (mut lines, mut left, mut text) = (Vec::new(), names.len(), Vec::new());
            while left > 0 {
                let frame = self.0.frame().await.expect("a watch goes on").unwrap();
                text.extend_from_slice(&frame.into_data().unwrap());
                while let Some(end) = text.iter().position(|byte| *byte == b'\n').filter(|_| left > 0) {
                    let line = String::from_utf8(text.drain(..=end).collect()).unwrap();
                    let event = value(&line);
                    let metadata = &event["object"]["metadata"];
                    if let Some((_, is_gone)) = names.iter().find(|(name, _)| metadata["name"] == name.as_str()) {
                        let is_marked = event["type"] == "MODIFIED" && !metadata["deletionTimestamp"].is_null();
                        left -= usize::from(if *is_gone { event["type"] == "DELETED" } else { is_marked });
                        lines.push(line);
                    }
                }
            }
            lines
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a watch tells all")
    }
}
