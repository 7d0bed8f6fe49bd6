//! Kinds that come and go while the cluster runs: custom resources, and those of servers behind this one.
//!
//! They are read from discovery, as whoever uses them does: after each change of a definition, and now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Kind;
use bytes::Bytes;
use client::{Client, ListParams, WatchParams};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use reconcile::Backoff;
use serde_json::Value;
use tokio::sync::watch;

use crate::error::{During as _, Error};

/// Discovery has an answer by then.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_BYTES: usize = 16 << 20;
/// Servers behind this one change what they have without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Changes of definitions come in bursts.
const PAUSE: Duration = Duration::from_millis(200);
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The kinds that are served besides those of the table, each in the version that its group prefers.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: Client,
    /// Rows made before: they live as long as the process, because everything refers to rows by reference.
    rows: Arc<Mutex<HashMap<Row, &'static Kind>>>,
    known: watch::Sender<Vec<&'static Kind>>,
}

/// What tells two kinds apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    group: String,
    version: String,
    kind: String,
    plural: String,
    namespaced: bool,
    verbs: Vec<String>,
}

impl Kinds {
    /// Nothing is known before it is read.
    pub(crate) fn new(client: &Client) -> Self {
        Self { client: client.clone(), rows: Arc::default(), known: watch::Sender::new(Vec::new()) }
    }

    /// Those that were served when somebody last looked.
    pub(crate) fn known(&self) -> Vec<&'static Kind> {
        self.known.borrow().clone()
    }

    /// Tells of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<&'static Kind>> {
        self.known.subscribe()
    }

    /// The kind of an owner.
    pub(crate) fn find(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.known.borrow().iter().copied().find(|row| row.group == group && row.kind == kind)
    }

    /// Reads what is served now.
    ///
    /// # Errors
    /// When it cannot be read; also when a server behind this one does not say what it has, of which nothing is known.
    pub(crate) async fn read(&self) -> Result<(), Error> {
        let request = http::Request::get("/apis").header("accept", DISCOVERY).body(Bytes::new());
        let request = request.map_err(|_bad| Error::Discovery("the request is malformed".to_owned()))?;
        let read = async {
            let response = self.client.raw(request).await.during("reading discovery")?;
            let (code, mut stream) = (response.status(), response.into_body());
            let mut body = Vec::new();
            while let Some(frame) = stream.frame().await {
                let frame = frame.map_err(|error| Error::Discovery(error.to_string()))?;
                body.extend(frame.into_data().unwrap_or_default());
                if body.len() > MAX_BYTES {
                    return Err(Error::Discovery(format!("it is larger than {MAX_BYTES} bytes")));
                }
            }
            if !code.is_success() {
                return Err(Error::Discovery(format!("it is answered with {code}")));
            }
            serde_json::from_slice::<Value>(&body).map_err(|error| Error::Discovery(error.to_string()))
        };
        let late = |_| Err(Error::Discovery(format!("no answer within {READ_LIMIT:?}")));
        let document = tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(late)?;
        let found = rows(&document).into_iter().map(|row| self.row(row)).collect::<Vec<_>>();
        self.known.send_if_modified(|known| {
            let is_other = *known != found;
            *known = found;
            is_other
        });
        match stale(&document) {
            None => Ok(()),
            Some(group) => Err(Error::Discovery(format!("it is not known what {group} has"))),
        }
    }

    fn row(&self, row: Row) -> &'static Kind {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).entry(row).or_insert_with_key(make)
    }

    /// Keeps up with what is served, for ever.
    pub(crate) async fn follow(&self) {
        let mut backoff = Backoff::new(PAUSE, LOOK_AGAIN);
        loop {
            match self.advance().await {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::debug!(%error, "reading what is served"),
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Reads, and returns after the next change of a definition, or after a while.
    async fn advance(&self) -> Result<(), Error> {
        const STEP: &str = "watching definitions";
        let Some(definitions) = api::kind_by_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
            return self.read().await;
        };
        let list = self.client.list_metadata(definitions, None, &ListParams::default()).await.during(STEP)?;
        self.read().await?;
        let params = WatchParams { resource_version: list.metadata.resource_version, ..WatchParams::default() };
        let mut events = self.client.watch_metadata(definitions, &params).await.during(STEP)?;
        match tokio::time::timeout(LOOK_AGAIN, events.next()).await {
            Ok(Some(Err(error))) => Err(error).during(STEP),
            _ => Ok(()),
        }
    }
}

fn texts<'a>(list: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    list[key].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Kinds in a discovery document that are not in the table, each in the first version that has it.
fn rows(document: &Value) -> Vec<Row> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<Row> = Vec::new();
    for item in texts(document, "items") {
        let group = text(&item["metadata"]["name"]);
        if api::kinds().any(|kind| kind.group == group) {
            continue;
        }
        for (version, resource) in texts(item, "versions").flat_map(|v| texts(v, "resources").map(move |r| (v, r))) {
            let row = Row {
                group: group.clone(),
                version: text(&version["version"]),
                kind: text(&resource["responseKind"]["kind"]),
                plural: text(&resource["resource"]),
                namespaced: resource["scope"] == "Namespaced",
                verbs: texts(resource, "verbs").map(text).collect(),
            };
            if !found.iter().any(|known| (&known.group, &known.plural) == (&row.group, &row.plural)) {
                found.push(row);
            }
        }
    }
    found
}

/// A group of which it is not known now what it has.
fn stale(document: &Value) -> Option<&str> {
    let is_stale = |item: &&Value| texts(item, "versions").any(|version| version["freshness"] == "Stale");
    texts(document, "items").find(is_stale).and_then(|item| item["metadata"]["name"].as_str())
}

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// A row that has what metadata is read by, and nothing that only the table knows.
fn make(row: &Row) -> &'static Kind {
    let (group, plural) = (kept(&row.group), kept(&row.plural));
    Box::leak(Box::new(Kind {
        group,
        version: kept(&row.version),
        kind: kept(&row.kind),
        plural,
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: row.namespaced,
        verbs: Box::leak(row.verbs.iter().map(|verb| kept(verb)).collect()),
        storage_version: "",
        storage_version_hash: "",
        etcd_prefix: kept(&format!("/registry/{group}/{plural}")),
        stored_as_json: true,
        message: 0,
        shown: 0,
        list_message: None,
        subresources: &[],
        by_default: true,
        gate: "",
        priority: &[],
        deprecation: "",
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str, versions: &[(&str, &[&str])]) -> Value {
        let resource = |plural: &&str| json!({"resource": plural, "responseKind": {"kind": "X"}, "scope": "Namespaced", "verbs": ["list", "watch"]});
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, plurals)| {
                let freshness = if plurals.is_empty() { "Stale" } else { "Current" };
                let resources: Vec<Value> = plurals.iter().map(resource).collect();
                json!({"version": version, "freshness": freshness, "resources": resources})
            })
            .collect();
        json!({"metadata": {"name": name}, "versions": versions})
    }

    #[test]
    fn kinds_count_once_and_those_of_the_table_not_at_all() {
        let all = [group("apps", &[("v1", &["deployments"])]), group("a.b", &[("v2", &["xs"]), ("v1", &["xs", "ys"])])];
        let document = json!({"items": all});
        let found: Vec<String> = rows(&document).iter().map(|row| format!("{} {}", row.version, row.plural)).collect();
        assert_eq!(found, ["v2 xs", "v1 ys"]);
        assert_eq!(stale(&document), None);
        let kind = make(&rows(&document)[0]);
        assert!(
            kind.has_verb("watch")
                && !kind.has_verb("delete")
                && kind.path(Some("n")) == "/apis/a.b/v2/namespaces/n/xs"
        );
    }

    #[test]
    fn a_server_that_says_nothing_is_told_of() {
        assert_eq!(stale(&json!({"items": [group("a.b", &[("v1", &[])])]})), Some("a.b"));
    }
}
