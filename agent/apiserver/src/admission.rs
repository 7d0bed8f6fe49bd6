//! The steps between a decoded object and its validation, in upstream's order. A step is a function in its own
//! module; it may change the object, or refuse it.

mod condition;
mod event;
mod limits;
mod matching;
mod namespaces;
pub mod nodes;
mod pod_security;
mod policies;
mod priority;
mod quota;
mod rbac;
mod rules;
mod runtime_class;
mod service_accounts;
mod storage;
mod tolerations;
mod webhooks;

use serde_json::Value;

use crate::app::Call;
use crate::status::Result;
use crate::strategy::Part;

pub use policies::Policies;
pub use quota::Turns as QuotaTurns;
pub use webhooks::{Hooks, WebhookClient, roots};

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// A part of it is changed.
    Update(Part),
}

/// Steps that may change the object.
pub async fn admit(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    complete(call, operation, new, old).await?;
    policies::mutate(call, operation, new, old)?;
    if webhooks::mutate(call, operation, new, old).await? {
        reform(call, operation, new)?;
    }
    Ok(())
}

/// Others write what they like: the object gets its form back.
fn reform(call: &Call, operation: Operation, new: &mut Value) -> Result<()> {
    *new = crate::codec::canonical(call.kind, new)?;
    crate::defaults::apply(call.kind, new);
    crate::custom::complete(call, new)?;
    if (call.kind.group, call.kind.plural, operation) == ("", "pods", Operation::Create) {
        crate::strategy::refresh_pod_status(new);
    }
    Ok(())
}

/// The steps of this server itself.
async fn complete(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    if operation == Operation::Update(Part::Main) && call.kind.plural == "pods" && call.kind.group.is_empty() {
        priority::keep(new, old);
        tolerations::add_defaults(new);
    }
    namespaces::check(call, operation, new).await?;
    if operation != Operation::Create {
        return Ok(());
    }
    match (call.kind.group, call.kind.plural) {
        ("", "pods") => {
            limits::set_defaults(call, new);
            service_accounts::admit(call, new).await?;
            priority::admit(call, new)?;
            tolerations::add_defaults(new);
            runtime_class::admit(call, new)?;
            crate::strategy::refresh_pod_status(new);
        }
        ("", "nodes") => nodes::taint(new),
        ("", "persistentvolumeclaims") => {
            storage::set_class(call, new);
            storage::protect(new, storage::CLAIM_PROTECTION);
        }
        ("", "persistentvolumes") => storage::protect(new, storage::VOLUME_PROTECTION),
        ("storage.k8s.io", "volumeattributesclasses") => storage::protect(new, storage::CLASS_PROTECTION),
        ("networking.k8s.io", "ingresses") => storage::set_ingress_class(call, new),
        _ => {}
    }
    Ok(())
}

/// Steps that only look at the finished object.
pub async fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    nodes::restrict(call, operation, new, old)?;
    rbac::check(call, operation, new, old)?;
    rbac::check_signer(call, operation, new, old)?;
    pod_security::check(call, operation, new)?;
    if let Some(event) = event::Event::of_write(operation, new, old) {
        policies::validate(call, event)?;
        webhooks::validate(call, event).await?;
    }
    limits::check(call, operation, new, old)?;
    quota::check(call, operation, new, old).await
}

/// Steps that look at a deletion.
pub async fn check_delete(call: &Call, name: &str) -> Result<()> {
    nodes::restrict_delete(call, name)?;
    namespaces::check_delete(call, name)?;
    webhooks::look_at_deletion(call, name).await
}

/// Steps that look at a connection to a pod, service or node.
pub async fn check_connect(call: &Call) -> Result<()> {
    webhooks::look_at_connection(call).await
}
