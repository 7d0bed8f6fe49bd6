//! The objects that every cluster has from its first moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, Method};
use lifecycle::Shutdown;
use parking_lot::Mutex;
use serde_json::Value;

use crate::app::{App, Call, now};
use crate::auth::bootstrap;
use crate::cache::store_failure;
use crate::codec;
use crate::handlers::create_object;
use crate::handlers::write::modify_tree;
use crate::negotiate::Accept;
use crate::request::{Query, RequestInfo};
use crate::status::Result;
use crate::strategy::Part;
use crate::tree;
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
    let mut ready = app.custom_ready.subscribe();
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    app.bootstrapped.store(true, Ordering::Release);
}

/// How long what decides about the flow of requests may be gone, or be another.
const FLOW_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps the objects that decide about the flow of requests until shutdown.
pub async fn keep_flow(app: &Arc<App>, shutdown: &Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLOW_INTERVAL) => {}
            () = shutdown.wait() => return,
        }
        let all = bootstrap::objects(&app.config.features, now());
        for wanted in all.iter().filter(|object| object.kind.group == "flowcontrol.apiserver.k8s.io") {
            if let Err(failure) = make_or_mend(app, wanted).await {
                tracing::warn!(%failure, name = %wanted.name, "an object that decides about the flow of requests could not be kept");
            }
        }
    }
}

/// Objects that are written at the same time. Each write waits for the store's disk, and it takes many in one go.
const WRITERS: usize = 32;

async fn make_all(app: &Arc<App>) -> Result<()> {
    let mut objects = bootstrap::objects(&app.config.features, now());
    let registered = bootstrap::api_services(&app.config.served, now());
    unregister(app, &registered).await?;
    objects.extend(registered);
    let (namespaces, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| o.kind.plural == "namespaces");
    for wanted in [namespaces, others] {
        let writes = wanted.into_iter().map(|wanted| {
            let app = app.clone();
            async move { make_or_mend(&app, &wanted).await }.boxed()
        });
        stream::iter(writes).buffer_unordered(WRITERS).try_collect::<()>().await?;
    }
    crate::aggregate::publish_authorities(app).await?;
    crate::services::start(app).await
}

/// Takes away what registers group versions that are built in but no longer served.
async fn unregister(app: &Arc<App>, wanted: &[bootstrap::Object]) -> Result<()> {
    let storage = app.cache.known("apiregistration.k8s.io", "apiservices");
    for (name, object) in storage.snapshot().iter() {
        let (label, value) = bootstrap::MANAGED_LABEL;
        if object.label(label) == Some(value) && !wanted.iter().any(|wanted| *wanted.name == **name) {
            let key = storage.store_key("", name);
            app.cache.store().delete(key.into(), object.revision).await.map_err(store_failure)?;
        }
    }
    Ok(())
}

async fn make_or_mend(app: &Arc<App>, wanted: &bootstrap::Object) -> Result<()> {
    let storage = app.cache.known(wanted.kind.group, wanted.kind.plural);
    let Some(object) = storage.get(&wanted.namespace, &wanted.name) else {
        make(app, &wanted.namespace, wanted.value.clone()).await?;
        // An APIService of our own is available from the start; creation drops the status.
        if tree::has(&wanted.value, "/status") {
            put(app, wanted, Part::Status, wanted.value.clone()).await?;
        }
        return Ok(());
    };
    let existing = codec::to_value(storage, wanted.kind, &object)?;
    match bootstrap::reconcile(&existing, wanted) {
        bootstrap::Reconciled::Keep => Ok(()),
        bootstrap::Reconciled::Update(value) => put(app, wanted, Part::Main, value).await,
        bootstrap::Reconciled::Recreate => {
            let key = storage.store_key(&wanted.namespace, &wanted.name);
            app.cache.store().delete(key.into(), object.revision).await.map_err(store_failure)?;
            app.cache.fresh().await?;
            make(app, &wanted.namespace, wanted.value.clone()).await
        }
    }
}

async fn put(app: &Arc<App>, wanted: &bootstrap::Object, part: Part, value: Value) -> Result<()> {
    let call = internal_call(app, wanted.kind, &wanted.namespace, "update").on(&wanted.name);
    modify_tree(&call, part, |old| {
        let mut new = value.clone();
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        Ok(new)
    })
    .await
    .map(|_| ())
}

/// Makes an object unless it is there.
pub async fn make(app: &Arc<App>, namespace: &str, value: Value) -> Result<()> {
    let kind =
        api::kind_by_name(value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default());
    let Some(kind) = kind else { return Ok(()) };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let there = app.cache.storage(kind.group, kind.plural).is_some_and(|s| s.get(namespace, name).is_some());
    if there {
        return Ok(());
    }
    let call = internal_call(app, kind, namespace, "create");
    match create_object(&call, codec::canonical(call.kind, &value)?).await {
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
        info: Arc::new(RequestInfo { verb, ..info }),
        query: Query::default(),
        headers: HeaderMap::new(),
        user: Arc::new(User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        }),
        accept: Accept::JSON,
        kind,
        warnings: Mutex::default(),
        place: Mutex::new(None),
        record: audit::Record::default(),
    }
}
