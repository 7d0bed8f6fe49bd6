//! NamespaceLifecycle: nothing is made in namespaces that are not there or going.

use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::status::{Failure, Result, Subject};
use crate::strategy::Part;
use crate::tree;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses objects in namespaces that are not there, and new ones in those that are going.
pub(super) async fn check(call: &Call, operation: Operation, new: &Value) -> Result<()> {
    let is_internal = operation == Operation::Update(Part::Internal);
    if !call.kind.namespaced || is_internal || call.kind.plural.ends_with("accessreviews") {
        return Ok(());
    }
    let namespaces = call.app.cache.known("", "namespaces");
    let name = call.namespace();
    let found = match namespaces.get("", name) {
        Some(found) => found,
        None => {
            // The cache may be a moment behind the namespace's creation.
            call.app.cache.fresh().await?;
            let subject = Subject { group: "", resource: "namespaces" };
            namespaces.get("", name).ok_or_else(|| Failure::not_found(subject, name))?
        }
    };
    if operation != Operation::Create || found.field(0) != "Terminating" {
        return Ok(());
    }
    let object = tree::text(new, "/metadata/name");
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let text = format!("namespace {name} is being terminated");
    let failure = Failure::forbidden(call.subject(), object, &why);
    Err(failure.with_field_cause("NamespaceTerminating", &text, "metadata.namespace"))
}

/// Keeps the namespaces that a cluster cannot do without.
pub(super) fn check_delete(call: &Call, name: &str) -> Result<()> {
    if call.kind.plural == "namespaces" && IMMORTAL.contains(&name) {
        return Err(Failure::forbidden(call.subject(), name, "this namespace may not be deleted"));
    }
    Ok(())
}
