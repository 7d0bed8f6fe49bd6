//! The steps between a decoded object and its validation, in upstream's order. A step is a function in its own
//! module; it may change the object, or refuse it.

mod change;
mod condition;
mod devices;
mod event;
mod event_rate;
mod image_policy;
mod limits;
mod matching;
mod namespaces;
mod node_selector;
pub mod nodes;
mod optional;
mod owners;
mod plugins;
mod pod_groups;
mod pod_security;
mod policies;
mod priority;
mod quota;
mod rbac;
mod resize;
mod rounds;
mod rules;
mod runtime_class;
mod service_accounts;
mod settings;
mod storage;
mod toleration;
mod tolerations;
mod webhooks;

pub(crate) use webhooks::document;

use std::time::Instant;

use serde_json::Value;

use crate::app::Call;
use crate::handlers::{self, DeleteOptions};
use crate::metrics::Step;
use crate::status::Result;
use crate::strategy::Part;
use crate::tree;

use change::Change;
use event::is_looked_at;
use rounds::Rounds;

pub use devices::claim_errors;
pub use event_rate::EventRates;
pub use image_policy::ImagePolicy;
pub use plugins::{PluginError, Plugins, is_on};
pub use policies::Policies;
pub use quota::Turns as QuotaTurns;
pub use rbac::signer_error;
pub use settings::{AdmissionSettings, SettingsError};
pub use webhooks::{Hooks, WebhookClient, roots};

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// A part of it is changed.
    Update(Part),
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update(_) => "UPDATE",
        }
    }
}

/// Counts how long a step takes, and whether it refuses.
async fn counted<T>(
    call: &Call,
    (step, operation): (Step, &'static str),
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let done = work.await;
    call.app.metrics.admission.step(step, operation, done.is_err(), begun.elapsed());
    done
}

/// Does what a plugin does, if it is on, and counts it.
async fn plugged<T: Default>(
    call: &Call,
    plugin: &'static str,
    at: (Step, &'static str),
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if !is_on(call, plugin) {
        return Ok(T::default());
    }
    let begun = Instant::now();
    let done = work.await;
    call.app.metrics.admission.plugin(plugin, at, done.is_err(), begun.elapsed());
    done
}

/// Steps that may change the object.
pub async fn admit(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    counted(call, (Step::Admit, operation.name()), change_all(call, operation, new, old)).await?;
    rbac::check(call, new, old)
}

async fn change_all(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    let mut rounds = Rounds::default();
    loop {
        complete(call, operation, new, old).await?;
        if !has_mutating(call) {
            return Ok(());
        }
        let Some(mut change) = Change::of_write(call, operation, new, old)? else { return Ok(()) };
        mutate(call, &mut change, &mut rounds).await?;
        match change.into_changed() {
            Some(scale) if call.info.subresource == "scale" => handlers::scale::put_back(call, new, &scale),
            Some(object) => {
                *new = object;
                handlers::check_namespace(call, new)?;
            }
            None => {}
        }
        if !rounds.go_on() {
            return Ok(());
        }
    }
}

/// Steps that may change what is posted to a subresource, or to a kind that is never stored.
pub async fn admit_message(call: &Call, message: &mut Value) -> Result<()> {
    namespaces::provide(call, message).await?;
    if !has_mutating(call) {
        return Ok(());
    }
    let mut change = Change::of_message(call, message)?;
    mutate_all(call, &mut change).await?;
    if let Some(changed) = change.into_changed() {
        *message = changed;
    }
    Ok(())
}

/// Both rounds of what others wrote, where this server has no steps in between.
async fn mutate_all(call: &Call, change: &mut Change<'_>) -> Result<()> {
    let mut rounds = Rounds::default();
    mutate(call, change, &mut rounds).await?;
    if rounds.go_on() {
        mutate(call, change, &mut rounds).await?;
    }
    Ok(())
}

/// What others wrote that may change objects: policies come first.
async fn mutate(call: &Call, change: &mut Change<'_>, rounds: &mut Rounds) -> Result<()> {
    let at = (Step::Admit, change.operation());
    if changes_by_policies(call) {
        plugged(call, "MutatingAdmissionPolicy", at, policies::mutate(call, change, rounds)).await?;
    }
    plugged(call, "MutatingAdmissionWebhook", at, webhooks::mutate(call, change, rounds)).await
}

/// What others wrote that may only refuse.
async fn validate(call: &Call, change: &mut Change<'_>) -> Result<()> {
    let at = (Step::Validate, change.operation());
    plugged(call, "ValidatingAdmissionPolicy", at, policies::validate(call, change)).await?;
    plugged(call, "ValidatingAdmissionWebhook", at, webhooks::validate(call, change)).await
}

fn changes_by_policies(call: &Call) -> bool {
    let gate = "MutatingAdmissionPolicy";
    is_on(call, gate) && call.app.config.features.is_on(gate)
}

fn has_mutating(call: &Call) -> bool {
    let by_policies = || changes_by_policies(call) && policies::has_mutating(call);
    let by_webhooks = || is_on(call, "MutatingAdmissionWebhook") && webhooks::has_mutating(call);
    is_looked_at(call) && (by_policies() || by_webhooks())
}

fn has_validating(call: &Call) -> bool {
    let by_policies = || is_on(call, "ValidatingAdmissionPolicy") && policies::has_validating(call);
    let by_webhooks = || is_on(call, "ValidatingAdmissionWebhook") && webhooks::has_validating(call);
    is_looked_at(call) && (by_policies() || by_webhooks())
}

/// Others write what they like: the object gets its form back.
fn reform(call: &Call, new: &mut Value) -> Result<()> {
    *new = crate::codec::canonical(call.kind, new)?;
    crate::defaults::apply(call.kind, new);
    crate::custom::complete(call, new)?;
    Ok(())
}

/// The steps of this server itself.
async fn complete(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    let has = |plugin: &str| is_on(call, plugin);
    if operation == Operation::Update(Part::Main) && call.kind.plural == "pods" && call.kind.group.is_empty() {
        optional::pull_always(call, new, old);
        if has("Priority") {
            priority::keep(new, old);
        }
        if has("DefaultTolerationSeconds") {
            tolerations::add_defaults(call, new);
        }
        tolerations::add_wanted(call, operation, new).await?;
    }
    if operation == Operation::Create {
        namespaces::provide(call, new).await?;
    }
    if has("NamespaceLifecycle") {
        namespaces::check(call, operation, new).await?;
    }
    if operation != Operation::Create {
        return Ok(());
    }
    match (call.kind.group, call.kind.plural) {
        ("", "pods") => complete_pod(call, new).await?,
        ("", "nodes") if has("TaintNodesByCondition") => nodes::taint(new),
        ("", "persistentvolumeclaims") if has("DefaultStorageClass") => storage::set_class(call, new),
        ("networking.k8s.io", "ingresses") if has("DefaultIngressClass") => storage::set_ingress_class(call, new),
        ("scheduling.k8s.io", "podgroups") => {
            if has("Priority") && call.app.config.features.is_on("WorkloadAwarePreemption") {
                priority::admit_group(call, new)?;
            }
            pod_groups::protect(call, new);
        }
        _ => {}
    }
    if has("StorageObjectInUseProtection") {
        match (call.kind.group, call.kind.plural) {
            ("", "persistentvolumeclaims") => storage::protect(new, storage::CLAIM_PROTECTION),
            ("", "persistentvolumes") => storage::protect(new, storage::VOLUME_PROTECTION),
            ("storage.k8s.io", "volumeattributesclasses") => storage::protect(new, storage::CLASS_PROTECTION),
            _ => {}
        }
    }
    Ok(())
}

async fn complete_pod(call: &Call, pod: &mut Value) -> Result<()> {
    if is_on(call, "LimitRanger") {
        limits::set_defaults(call, pod);
    }
    if is_on(call, "ServiceAccount") {
        service_accounts::admit(call, pod).await?;
    }
    optional::pull_always(call, pod, None);
    node_selector::admit(call, pod).await?;
    if is_on(call, "Priority") {
        priority::admit(call, pod)?;
    }
    if is_on(call, "DefaultTolerationSeconds") {
        tolerations::add_defaults(call, pod);
    }
    tolerations::add_wanted(call, Operation::Create, pod).await?;
    if is_on(call, "RuntimeClass") {
        runtime_class::admit(call, pod)?;
    }
    let labels = nodes::topology_of(call, tree::text(pod, "/spec/nodeName"));
    if !labels.is_empty() {
        tree::object_at(&mut pod["metadata"], "labels").extend(labels);
    }
    Ok(())
}

/// Steps that only look at the finished object.
pub async fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    counted(call, (Step::Validate, operation.name()), check_all(call, operation, new, old)).await
}

async fn check_all(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    if operation != Operation::Update(Part::Internal) {
        namespaces::check_there(call).await?;
    }
    nodes::restrict(call, operation, new, old)?;
    rbac::check_signer(call, operation, new, old)?;
    rbac::check_attestation(call, new, old)?;
    optional::check(call, operation, new, old)?;
    let at = (Step::Validate, operation.name());
    plugged(call, "ImagePolicyWebhook", at, image_policy::check(call, operation, new)).await?;
    if is_on(call, "PodSecurity") {
        pod_security::check(call, operation, new, old)?;
    }
    node_selector::check(call, operation, new).await?;
    tolerations::check(call, operation, new).await?;
    if is_on(call, "EventRateLimit") {
        event_rate::check(call, new)?;
    }
    owners::check(call, operation, new, old)?;
    pod_groups::check(call, operation, new, old).await?;
    if is_on(call, "RuntimeClass") {
        runtime_class::check(call, operation, new)?;
    }
    if has_validating(call)
        && let Some(mut change) = Change::of_write(call, operation, new, old)?
    {
        validate(call, &mut change).await?;
    }
    resize::check(call, operation, new, old)?;
    if is_on(call, "LimitRanger") {
        limits::check(call, operation, new, old)?;
    }
    plugged(call, "ResourceQuota", at, quota::check(call, operation, new, old)).await?;
    if operation == Operation::Update(Part::Internal) {
        return Ok(());
    }
    optional::deny(call, tree::name_given(new))
}

/// Steps that only look at what is posted to a subresource, or to a kind that is never stored.
pub async fn check_message(call: &Call, message: &Value) -> Result<()> {
    namespaces::check_there(call).await?;
    if !has_validating(call) {
        return Ok(());
    }
    validate(call, &mut Change::of_message(call, message)?).await
}

/// Steps that look at a deletion. One that is part of an eviction was asked about as such.
pub async fn check_delete(call: &Call, old: &Value, options: &DeleteOptions) -> Result<()> {
    counted(call, (Step::Validate, "DELETE"), check_removal(call, old, options)).await
}

async fn check_removal(call: &Call, old: &Value, options: &DeleteOptions) -> Result<()> {
    let name = tree::text(old, "/metadata/name");
    namespaces::check_there(call).await?;
    nodes::restrict_delete(call, name)?;
    if is_on(call, "NamespaceLifecycle") {
        namespaces::check_delete(call, name)?;
    }
    optional::deny(call, name)?;
    if call.info.subresource.is_empty() && (has_mutating(call) || has_validating(call)) {
        let mut change = Change::of_deletion(call, old, options)?;
        mutate_all(call, &mut change).await?;
        validate(call, &mut change).await?;
    }
    Ok(())
}

/// Steps that look at a connection to a pod, service or node: the object is what the client asks for. Returns what it
/// is after them.
pub async fn check_connect(call: &Call, options: Value) -> Result<Value> {
    if !(has_mutating(call) || has_validating(call)) {
        return Ok(options);
    }
    let mut change = Change::of_connection(call, options.clone())?;
    mutate_all(call, &mut change).await?;
    validate(call, &mut change).await?;
    Ok(change.into_changed().unwrap_or(options))
}
