//! The objects that every cluster has from its first moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Method};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::handlers::create_object;
use crate::negotiate::Accept;
use crate::request::{Query, RequestInfo};
use crate::status::Result;
use crate::user::User;

/// Pause before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes what is missing, trying again until everything is there.
pub async fn run(app: &Arc<App>) {
    let mut revisions = app.cache.revisions();
    if revisions.wait_for(|r| *r > 0).await.is_err() {
        return;
    }
    while let Err(failure) = make_all(app).await {
        tracing::warn!(%failure, "the first objects could not be written, trying again");
        tokio::time::sleep(PAUSE).await;
    }
    app.bootstrapped.store(true, Ordering::Release);
}

async fn make_all(app: &Arc<App>) -> Result<()> {
    for name in ["kube-system", "kube-public", "kube-node-lease", "default"] {
        make(app, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    }
    for (name, value, text) in PRIORITY_CLASSES {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": text,
        });
        make(app, "", object).await?;
    }
    crate::services::start(app).await
}

const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// Makes an object unless it is there.
pub async fn make(app: &Arc<App>, namespace: &str, value: Value) -> Result<()> {
    let kind = api::kind_by_name(value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default());
    let Some(kind) = kind else { return Ok(()) };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let there = app.cache.storage(kind.group, kind.plural).is_some_and(|s| s.get(namespace, name).is_some());
    if there {
        return Ok(());
    }
    let call = internal_call(app, kind, namespace, "create");
    match create_object(&call, value).await {
        Err(failure) if failure.reason() != "AlreadyExists" => Err(failure),
        _ => Ok(()),
    }
}

/// A request that this server makes to itself.
#[must_use]
pub fn internal_call(app: &Arc<App>, kind: &'static api::Kind, namespace: &str, verb: &'static str) -> Call {
    let scope = Some(namespace).filter(|n| !n.is_empty());
    let info = RequestInfo::parse(&Method::POST, &kind.path(scope), &Query::default());
    Call {
        app: app.clone(),
        info: RequestInfo { verb, ..info },
        query: Query::default(),
        headers: HeaderMap::new(),
        user: User { name: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() },
        accept: Accept::JSON,
        kind,
        warnings: Mutex::new(Vec::new()),
    }
}
