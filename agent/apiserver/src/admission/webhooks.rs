//! Mutating and validating webhooks: other servers that look at objects before they are stored.
//!
//! ```text
//!  configurations ─▶ hooks, in order ─▶ which concern the request? ─▶ ask ─▶ patch, warnings, refusal
//! ```
//! The configurations are read from the cache when they changed, never per request. Mutating hooks are asked one
//! after another, validating ones all at once. What this server does itself does not pass them.

mod ask;
mod rules;

use std::sync::Arc;

use api::labels::Selector;
use api::meta::v1::{LabelSelector, LabelSelectorRequirement};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Operation;
use crate::app::{App, Call};
use crate::cache::Storage;
use crate::status::{Failure, FieldError, Result};
use crate::strategy::Part;
use crate::{codec, tree};

use ask::Answer;
pub use ask::{Client as WebhookClient, roots};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// Kinds that no hook is asked about: a broken one could not be removed otherwise.
const EXEMPT: [&str; 6] = [
    MUTATING,
    VALIDATING,
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// One webhook of a configuration.
struct Hook {
    name: String,
    client: Value,
    rules: Value,
    namespaces: Selector,
    objects: Selector,
    ignores_failure: bool,
    exact: bool,
    has_side_effects: bool,
    reinvoke: bool,
    timeout: u64,
}

/// The hooks of one kind of configuration, and the revision they were read at.
#[derive(Default)]
struct Read {
    revision: i64,
    hooks: Arc<Vec<Hook>>,
}

/// All hooks, as the configurations said when they were last read.
#[derive(Default)]
pub struct Hooks {
    mutating: Mutex<Read>,
    validating: Mutex<Read>,
}

impl Hooks {
    fn mutating(&self, app: &App) -> Arc<Vec<Hook>> {
        current(&self.mutating, app.cache.known(GROUP, MUTATING))
    }

    fn validating(&self, app: &App) -> Arc<Vec<Hook>> {
        current(&self.validating, app.cache.known(GROUP, VALIDATING))
    }
}

fn current(read: &Mutex<Read>, storage: &Storage) -> Arc<Vec<Hook>> {
    let (objects, newest) = storage.snapshot_and_cursor();
    let mut read = read.lock();
    if read.revision != newest {
        let values = objects.values().filter_map(|o| codec::to_value(storage, storage.kind, o).ok());
        let hooks = values.flat_map(|v| tree::list(&v, "/webhooks").iter().map(Hook::read).collect::<Vec<_>>());
        *read = Read { revision: newest, hooks: Arc::new(hooks.collect()) };
    }
    read.hooks.clone()
}

impl Hook {
    fn read(value: &Value) -> Self {
        let timeout = value["timeoutSeconds"].as_u64().unwrap_or(10);
        Self {
            name: tree::text(value, "/name").to_owned(),
            client: value["clientConfig"].clone(),
            rules: value["rules"].clone(),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
            ignores_failure: value["failurePolicy"] == "Ignore",
            exact: value["matchPolicy"] == "Exact",
            has_side_effects: !matches!(value["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoke: value["reinvocationPolicy"] == "IfNeeded",
            timeout,
        }
    }
}

fn selector(value: &Value) -> Selector {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let labels = value["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    let expressions = tree::list(value, "/matchExpressions").iter().map(|e| LabelSelectorRequirement {
        key: tree::text(e, "/key").to_owned(),
        operator: tree::text(e, "/operator").to_owned(),
        values: strings(&e["values"]),
    });
    let object = LabelSelector { match_labels: labels, match_expressions: expressions.collect() };
    // A selector that cannot be read selects nothing; validation of the configuration keeps such out.
    Selector::from_object(Some(&object)).unwrap_or_else(|_| Selector::nothing())
}

/// What is done to an object, as hooks are told.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) operation: &'static str,
    pub(super) new: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
}

impl<'a> Event<'a> {
    pub(super) fn of_write(operation: Operation, new: &'a Value, old: Option<&'a Value>) -> Option<Self> {
        let operation = match operation {
            Operation::Create => "CREATE",
            Operation::Update(Part::Internal) => return None,
            Operation::Update(_) => "UPDATE",
        };
        Some(Self { operation, new: Some(new), old })
    }

    fn name(&self, call: &Call) -> String {
        let object = self.new.or(self.old);
        let own = object.map_or("", |o| tree::text(o, "/metadata/name"));
        if own.is_empty() { call.info.name.clone() } else { own.to_owned() }
    }
}

/// Whether the request passes hooks at all.
fn passes(call: &Call) -> bool {
    let internal = call.headers.is_empty() && call.user.name == "system:apiserver";
    let exempt = call.kind.group == GROUP && EXEMPT.contains(&call.kind.plural);
    // Scale is another object than the one that is written here, and evictions and bindings delete and change pods
    // on behalf of this server.
    let other = matches!(call.info.subresource.as_str(), "scale" | "eviction" | "binding");
    !internal && !exempt && !other
}

/// Asks the mutating hooks about a write. Says whether the object was changed.
pub(super) async fn mutate(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<bool> {
    let hooks = call.app.hooks.mutating(&call.app);
    if hooks.is_empty() || !passes(call) {
        return Ok(false);
    }
    let mut changed_at: Option<usize> = None;
    let mut asked: Vec<usize> = Vec::new();
    for (at, hook) in hooks.iter().enumerate() {
        if mutate_by(call, hook, (operation, new, old)).await?.inspect(|_| asked.push(at)) == Some(true) {
            changed_at = Some(at);
        }
    }
    let Some(last) = changed_at else { return Ok(false) };
    // Those that ran before the last change see what came of it.
    for at in asked.into_iter().filter(|at| *at < last && hooks[*at].reinvoke) {
        mutate_by(call, &hooks[at], (operation, new, old)).await?;
    }
    Ok(true)
}

/// Asks one hook. `None` if it is not concerned, else whether it changed the object.
async fn mutate_by(
    call: &Call,
    hook: &Hook,
    (operation, new, old): (Operation, &mut Value, Option<&Value>),
) -> Result<Option<bool>> {
    let Some(event) = Event::of_write(operation, new, old) else { return Ok(None) };
    let Some(version) = concerns(call, hook, event) else { return Ok(None) };
    let Some(answer) = ask(call, hook, event, version).await? else { return Ok(None) };
    let Some(patch) = answer.patch else { return Ok(Some(false)) };
    let before = new.clone();
    let own_version = new["apiVersion"].clone();
    if !patch.0.is_empty() {
        new["apiVersion"] = version_name(call, version).into();
        json_patch::patch(new, &patch)
            .map_err(|e| Failure::internal(format!("failed calling webhook {:?}: {e}", hook.name)))?;
        new["apiVersion"] = own_version;
    }
    Ok(Some(before != *new))
}

/// Asks the validating hooks.
pub(super) async fn validate(call: &Call, event: Event<'_>) -> Result<()> {
    let hooks = call.app.hooks.validating(&call.app);
    if hooks.is_empty() || !passes(call) {
        return Ok(());
    }
    let concerned = hooks.iter().filter_map(|h| concerns(call, h, event).map(|version| (h, version)));
    let answers = concerned.map(|(hook, version)| ask(call, hook, event, version));
    for answer in futures::future::join_all(answers).await {
        answer?;
    }
    Ok(())
}

/// Asks about the deletion of an object.
pub(super) async fn look_at_deletion(call: &Call, name: &str) -> Result<()> {
    if !has_hooks(call) {
        return Ok(());
    }
    let storage = call.storage()?;
    let Some(object) = storage.get(call.namespace(), name) else { return Ok(()) };
    let old = codec::to_value(storage, call.kind, &object)?;
    look(call, Event { operation: "DELETE", new: None, old: Some(&old) }).await
}

/// Asks about a connection: the object is what the query asks for.
pub(super) async fn look_at_connection(call: &Call) -> Result<()> {
    if !has_hooks(call) {
        return Ok(());
    }
    let kind = match (call.kind.plural, call.info.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", _) => "PodProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for key in ["stdin", "stdout", "stderr", "tty"] {
        if call.query.flag(key) {
            options[key] = true.into();
        }
    }
    if call.query.has("container") {
        options["container"] = call.query.get("container").into();
    }
    let commands = call.query.all("command");
    if !commands.is_empty() {
        options["command"] = json!(commands);
    }
    look(call, Event { operation: "CONNECT", new: Some(&options), old: None }).await
}

fn has_hooks(call: &Call) -> bool {
    passes(call) && !(call.app.hooks.mutating(&call.app).is_empty() && call.app.hooks.validating(&call.app).is_empty())
}

/// Refuses configurations that ask for what is not done here.
pub(super) fn check_configuration(call: &Call, new: &Value) -> Result<()> {
    if call.kind.group != GROUP {
        return Ok(());
    }
    if !matches!(call.kind.plural, MUTATING | VALIDATING) {
        call.warn(format!("{} objects are stored but not enforced by this server", call.kind.kind));
        return Ok(());
    }
    let mut errors = Vec::new();
    for (i, hook) in tree::list(new, "/webhooks").iter().enumerate() {
        if !tree::list(hook, "/matchConditions").is_empty() {
            let field = format!("webhooks[{i}].matchConditions");
            errors.push(FieldError::forbidden(field, "match conditions are not evaluated by this server"));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(call.kind_subject(), tree::text(new, "/metadata/name"), &errors))
}

/// Asks the hooks that may only refuse or, mutating, look at what is no object: deletions and connections.
async fn look(call: &Call, event: Event<'_>) -> Result<()> {
    let hooks = call.app.hooks.mutating(&call.app);
    if passes(call) {
        for hook in hooks.iter() {
            if let Some(version) = concerns(call, hook, event) {
                ask(call, hook, event, version).await?;
            }
        }
    }
    validate(call, event).await
}

fn version_name(call: &Call, version: &str) -> String {
    if call.kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", call.kind.group) }
}

/// The version in which a hook wants to see the object, if it is concerned.
fn concerns<'a>(call: &'a Call, hook: &Hook, event: Event<'_>) -> Option<&'a str> {
    let resource = rules::Resource {
        group: call.kind.group,
        version: call.kind.version,
        plural: call.kind.plural,
        subresource: &call.info.subresource,
        namespaced: call.kind.namespaced,
    };
    let mut version = rules::matches(&hook.rules, event.operation, resource).then_some(call.kind.version);
    if version.is_none() && !hook.exact && crate::custom::is_custom(call.kind) {
        let definition = call.app.custom.definition(call.kind.group, call.kind.plural)?;
        version = definition
            .versions
            .iter()
            .map(|v| v.kind.version)
            .find(|version| rules::matches(&hook.rules, event.operation, rules::Resource { version, ..resource }));
    }
    let version = version?;
    let labels =
        |object: Option<&Value>| object.is_some_and(|o| matches_labels(&hook.objects, &o["metadata"]["labels"]));
    let by_object = hook.objects.is_empty() || labels(event.new) || labels(event.old);
    (by_object && in_namespace(call, hook, event)).then_some(version)
}

fn matches_labels(selector: &Selector, labels: &Value) -> bool {
    selector.matches_with(|key| labels[key].as_str())
}

fn in_namespace(call: &Call, hook: &Hook, event: Event<'_>) -> bool {
    if hook.namespaces.is_empty() {
        return true;
    }
    if (call.kind.group, call.kind.plural) == ("", "namespaces") {
        let object = event.new.or(event.old);
        return object.is_some_and(|o| matches_labels(&hook.namespaces, &o["metadata"]["labels"]));
    }
    if !call.kind.namespaced {
        return true;
    }
    let namespace = call.app.cache.known("", "namespaces").get("", call.namespace());
    namespace.is_some_and(|n| hook.namespaces.matches_with(|key| n.label(key)))
}

/// Asks a hook. `None` if it could not be asked and that does not matter.
async fn ask(call: &Call, hook: &Hook, event: Event<'_>, version: &str) -> Result<Option<Answer>> {
    let dry_run = call.is_dry_run()?;
    if dry_run && hook.has_side_effects {
        return Err(Failure::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(call, event, (version, &uid, dry_run));
    let client = ask::Client { app: &call.app, config: &hook.client, seconds: hook.timeout };
    match client.ask(&review, &uid).await {
        Ok(answer) => {
            for warning in &answer.warnings {
                call.warn(warning.as_str());
            }
            if answer.allowed { Ok(Some(answer)) } else { Err(refusal(&hook.name, &answer.status)) }
        }
        Err(text) if hook.ignores_failure => {
            tracing::warn!(webhook = %hook.name, error = %text, "a webhook could not be asked; its configuration says to go on");
            Ok(None)
        }
        Err(text) => Err(Failure::internal(format!("failed calling webhook {:?}: {text}", hook.name))),
    }
}

fn refusal(name: &str, status: &Value) -> Failure {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
    let code = code.and_then(|c| StatusCode::from_u16(c).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let reasons = ["Forbidden", "Invalid", "BadRequest", "Conflict", "NotFound", "AlreadyExists", "Unauthorized"];
    let reason = reasons.iter().find(|r| **r == text("reason")).copied().unwrap_or("");
    Failure::new(code, reason, message)
}

fn review(call: &Call, event: Event<'_>, (version, uid, dry_run): (&str, &str, bool)) -> Value {
    let kind = call.kind;
    let gvk = |version: &str| json!({"group": kind.group, "version": version, "kind": kind.kind});
    let gvr = |version: &str| json!({"group": kind.group, "version": version, "resource": kind.plural});
    let in_version = |object: Option<&Value>| {
        let mut object = object.cloned().unwrap_or(Value::Null);
        if object["apiVersion"].is_string() && object["kind"] == kind.kind {
            object["apiVersion"] = version_name(call, version).into();
        }
        object
    };
    let mut user = json!({"username": call.user.name, "groups": call.user.groups});
    if !call.user.uid.is_empty() {
        user["uid"] = call.user.uid.as_str().into();
    }
    if !call.user.extra.is_empty() {
        user["extra"] = json!(call.user.extra);
    }
    let options = match event.operation {
        "CREATE" => json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
        "UPDATE" if call.info.verb == "patch" => json!({"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1"}),
        "UPDATE" => json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}),
        "DELETE" => json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}),
        _ => Value::Null,
    };
    let mut request = json!({
        "uid": uid, "kind": gvk(version), "resource": gvr(version),
        "requestKind": gvk(kind.version), "requestResource": gvr(kind.version),
        "name": event.name(call), "operation": event.operation, "userInfo": user,
        "object": in_version(event.new), "oldObject": in_version(event.old), "dryRun": dry_run, "options": options,
    });
    let namespace = if kind.plural == "namespaces" { event.name(call) } else { call.namespace().to_owned() };
    if !namespace.is_empty() {
        request["namespace"] = namespace.into();
    }
    if !call.info.subresource.is_empty() {
        request["subResource"] = call.info.subresource.as_str().into();
        request["requestSubResource"] = call.info.subresource.as_str().into();
    }
    if let Some(object) = event.new.filter(|o| event.operation == "CONNECT" && o["kind"].is_string()) {
        let (group, version) = ("", "v1");
        request["kind"] = json!({"group": group, "version": version, "kind": object["kind"]});
        request["requestKind"] = request["kind"].clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_reason_in_words() {
        let failure = refusal("a.b.c", &json!({"message": "no", "code": 403, "reason": "Forbidden"}));
        assert_eq!(
            (failure.code().as_u16(), failure.message()),
            (403, "admission webhook \"a.b.c\" denied the request: no")
        );
        let failure = refusal("a", &Value::Null);
        assert_eq!(failure.code().as_u16(), 400);
        assert_eq!(failure.message(), "admission webhook \"a\" denied the request without explanation");
    }
}
