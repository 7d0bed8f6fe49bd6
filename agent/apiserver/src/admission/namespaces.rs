//! NamespaceLifecycle: nothing is made in namespaces that are not there or going. With it NamespaceExists, which looks
//! at deletions, too, and NamespaceAutoProvision, which makes namespaces that are not there.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Operation, is_on};
use crate::app::{App, Call};
use crate::cache::Object;
use crate::status::{Failure, Result, Subject};
use crate::strategy::Part;
use crate::{codec, start, tree};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses objects in namespaces that are not there, and new ones in those that are going.
pub(super) async fn check(call: &Call, operation: Operation, new: &Value) -> Result<()> {
    let is_internal = operation == Operation::Update(Part::Internal);
    if !call.kind.namespaced || is_internal || call.kind.plural.ends_with("accessreviews") {
        return Ok(());
    }
    let name = call.namespace();
    let found = find(call).await?;
    if operation != Operation::Create || found.field(0) != "Terminating" {
        return Ok(());
    }
    let object = tree::name_given(new);
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let text = format!("namespace {name} is being terminated");
    let failure = Failure::forbidden(call.subject(), object, &why);
    Err(failure.with_field_cause("NamespaceTerminating", &text, "metadata.namespace"))
}

/// The namespace of what is asked for.
pub(super) async fn find(call: &Call) -> Result<Arc<Object>> {
    let (namespaces, name) = (call.app.cache.known("", "namespaces"), call.namespace());
    if let Some(found) = namespaces.get("", name) {
        return Ok(found);
    }
    // The cache may be a moment behind the namespace's creation.
    call.app.cache.fresh().await?;
    let subject = Subject { group: "", resource: "namespaces" };
    namespaces.get("", name).ok_or_else(|| Failure::not_found(subject, name))
}

/// What the namespace of what is asked for says of itself under a key.
pub(super) async fn annotation(call: &Call, key: &str) -> Result<Option<String>> {
    let found = find(call).await?;
    let namespaces = call.app.cache.known("", "namespaces");
    let value = codec::to_value(namespaces, namespaces.kind, &found)?;
    Ok(value["metadata"]["annotations"][key].as_str().map(str::to_owned))
}

/// NamespaceExists: refuses whatever is done in a namespace that is not there.
pub(super) async fn check_there(call: &Call) -> Result<()> {
    if !is_on(call, "NamespaceExists") || call.namespace().is_empty() {
        return Ok(());
    }
    find(call).await.map(drop)
}

/// NamespaceAutoProvision: makes the namespace of what is made.
pub(super) async fn provide(call: &Call, object: &Value) -> Result<()> {
    let name = call.namespace();
    if !is_on(call, "NamespaceAutoProvision") || name.is_empty() || call.is_dry_run()? {
        return Ok(());
    }
    let made = make(call.app.clone(), name.to_owned()).await;
    let object = tree::name_given(object);
    made.map_err(|failure| Failure::forbidden(call.subject(), object, failure.message()))
}

/// Boxed, because the creation of an object leads here.
fn make(app: Arc<App>, name: String) -> BoxFuture<'static, Result<()>> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    async move { start::make(&app, "", namespace).await }.boxed()
}

/// Keeps the namespaces that a cluster cannot do without.
pub(super) fn check_delete(call: &Call, name: &str) -> Result<()> {
    if call.kind.plural == "namespaces" && IMMORTAL.contains(&name) {
        return Err(Failure::forbidden(call.subject(), name, "this namespace may not be deleted"));
    }
    Ok(())
}
