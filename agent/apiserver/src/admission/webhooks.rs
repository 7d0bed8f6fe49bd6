//! Mutating and validating webhooks: other servers that look at objects before they are stored.
//!
//! ```text
//!  configurations ─▶ hooks, in order ─▶ which concern the request? ─▶ ask ─▶ patch, warnings, refusal
//! ```
//! The configurations are read from the cache when they changed, never per request. Mutating hooks are asked one
//! after another, validating ones all at once. What this server does itself does not pass them.

mod ask;

use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Operation;
use super::condition::{self, Conditions, Inputs, Named, Verdict};
use super::event::{self, Event, is_looked_at, version_name};
use super::matching::Matching;
use crate::app::{App, Call};
use crate::cache::Storage;
use crate::status::{Failure, Result};
use crate::{codec, tree};

use ask::Answer;
pub use ask::{Client as WebhookClient, roots};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// One webhook of a configuration.
struct Hook {
    name: String,
    /// The configuration that it is of.
    configuration: String,
    /// Its position among all.
    at: usize,
    client: Value,
    matching: Matching,
    conditions: Arc<Conditions>,
    ignores_failure: bool,
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
        let of_one = |v: Value| -> Vec<Hook> {
            let name = tree::text(&v, "/metadata/name");
            tree::list(&v, "/webhooks").iter().map(|hook| Hook::read(hook, name)).collect()
        };
        let mut hooks: Vec<Hook> = values.flat_map(of_one).collect();
        hooks.iter_mut().enumerate().for_each(|(at, hook)| hook.at = at);
        *read = Read { revision: newest, hooks: Arc::new(hooks) };
    }
    read.hooks.clone()
}

impl Hook {
    fn read(value: &Value, configuration: &str) -> Self {
        let timeout = value["timeoutSeconds"].as_u64().unwrap_or(10);
        Self {
            name: tree::text(value, "/name").to_owned(),
            configuration: configuration.to_owned(),
            at: 0,
            client: value["clientConfig"].clone(),
            matching: Matching::of_hook(value),
            conditions: condition::of_hook(value),
            ignores_failure: value["failurePolicy"] == "Ignore",
            has_side_effects: !matches!(value["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoke: value["reinvocationPolicy"] == "IfNeeded",
            timeout,
        }
    }
}

/// Asks the mutating hooks about a write. Says whether the object was changed.
pub(super) async fn mutate(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<bool> {
    let hooks = call.app.hooks.mutating(&call.app);
    if hooks.is_empty() || !is_looked_at(call) {
        return Ok(false);
    }
    let mut changed_at: Option<usize> = None;
    let mut asked: Vec<usize> = Vec::new();
    for (at, hook) in hooks.iter().enumerate() {
        if mutate_by(call, (hook, 0), (operation, new, old)).await?.inspect(|_| asked.push(at)) == Some(true) {
            changed_at = Some(at);
        }
    }
    let Some(last) = changed_at else { return Ok(false) };
    // Those that ran before the last change see what came of it.
    for at in asked.into_iter().filter(|at| *at < last && hooks[*at].reinvoke) {
        mutate_by(call, (&hooks[at], 1), (operation, new, old)).await?;
    }
    Ok(true)
}

/// Asks one hook. `None` if it is not concerned, else whether it changed the object.
async fn mutate_by(
    call: &Call,
    (hook, round): (&Hook, usize),
    (operation, new, old): (Operation, &mut Value, Option<&Value>),
) -> Result<Option<bool>> {
    let Some(event) = Event::of_write(operation, new, old) else { return Ok(None) };
    let Some(version) = concerns(call, hook, event)? else { return Ok(None) };
    let place = format!("{MUTATED}round_{round}_index_{}", hook.at);
    let Some(answer) = ask(call, (hook, &place), event, version).await? else { return Ok(None) };
    let Some(patch) = answer.patch else {
        note_mutation(call, hook, &place, false);
        return Ok(Some(false));
    };
    let before = new.clone();
    let own_version = new["apiVersion"].clone();
    if !patch.0.is_empty() {
        new["apiVersion"] = version_name(call, version).into();
        json_patch::patch(new, &patch)
            .map_err(|e| Failure::internal(format!("failed calling webhook {:?}: {e}", hook.name)))?;
        new["apiVersion"] = own_version;
    }
    let is_changed = before != *new;
    note_mutation(call, hook, &place, is_changed);
    if !patch.0.is_empty() && call.record.wants_request_object() {
        let (configuration, webhook) = (&hook.configuration, &hook.name);
        let noted = Patched { configuration, webhook, patch: &patch, patch_type: "JSONPatch" };
        let key = place.replacen(MUTATED, PATCHED, 1);
        call.record.annotate(&key, serde_json::to_string(&noted).unwrap_or_default());
    }
    Ok(Some(is_changed))
}

/// Beginnings of the keys under which the audit log has what became of hooks.
const MUTATED: &str = "mutation.webhook.admission.k8s.io/";
const PATCHED: &str = "patch.webhook.admission.k8s.io/";
const VALIDATED: &str = "validating.webhook.admission.k8s.io/";

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Patched<'a> {
    configuration: &'a str,
    webhook: &'a str,
    patch: &'a json_patch::Patch,
    patch_type: &'static str,
}

fn note_mutation(call: &Call, hook: &Hook, place: &str, mutated: bool) {
    #[derive(serde::Serialize)]
    struct Mutated<'a> {
        configuration: &'a str,
        webhook: &'a str,
        mutated: bool,
    }
    if call.record.is_on() {
        let noted = Mutated { configuration: &hook.configuration, webhook: &hook.name, mutated };
        call.record.annotate(place, serde_json::to_string(&noted).unwrap_or_default());
    }
}

/// Asks the validating hooks.
pub(super) async fn validate(call: &Call, event: Event<'_>) -> Result<()> {
    let hooks = call.app.hooks.validating(&call.app);
    if hooks.is_empty() || !is_looked_at(call) {
        return Ok(());
    }
    let mut concerned = Vec::new();
    for hook in hooks.iter() {
        concerned.extend(concerns(call, hook, event)?.map(|version| (hook, version)));
    }
    let answers = concerned.into_iter().map(|(hook, version)| async move {
        ask(call, (hook, &format!("{VALIDATED}round_0_index_{}", hook.at)), event, version).await
    });
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
    let hooks = &call.app.hooks;
    let has_any = !hooks.mutating(&call.app).is_empty() || !hooks.validating(&call.app).is_empty();
    is_looked_at(call) && (has_any || super::policies::has_validating(call))
}

/// Asks the hooks that may only refuse or, mutating, look at what is no object: deletions and connections.
async fn look(call: &Call, event: Event<'_>) -> Result<()> {
    let hooks = call.app.hooks.mutating(&call.app);
    if is_looked_at(call) {
        for hook in hooks.iter() {
            if let Some(version) = concerns(call, hook, event)? {
                let place = format!("{MUTATED}round_0_index_{}", hook.at);
                ask(call, (hook, &place), event, version).await?;
            }
        }
    }
    super::policies::validate(call, event)?;
    validate(call, event).await
}

/// The version in which a hook wants to see the object, if it is concerned.
fn concerns<'a>(call: &'a Call, hook: &Hook, event: Event<'_>) -> Result<Option<&'a str>> {
    let Some(version) = hook.matching.version(call, event) else { return Ok(None) };
    if hook.conditions.is_empty() {
        return Ok(Some(version));
    }
    let inputs = Inputs::new(call, event, version)?;
    match hook.conditions.judge(&inputs, None, &Named::default()) {
        Verdict::Holds => Ok(Some(version)),
        Verdict::Fails => Ok(None),
        Verdict::Unknown(_) if hook.ignores_failure => Ok(None),
        Verdict::Unknown(why) => Err(Failure::forbidden(call.subject(), &event.name(call), &why)),
    }
}

/// Asks a hook. `None` if it could not be asked and that does not matter.
async fn ask(call: &Call, (hook, place): (&Hook, &str), event: Event<'_>, version: &str) -> Result<Option<Answer>> {
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
            for (key, value) in &answer.annotations {
                call.record.annotate_anew(&format!("{}/{key}", hook.name), value.as_str());
            }
            if answer.allowed { Ok(Some(answer)) } else { Err(refusal(&hook.name, &answer.status)) }
        }
        Err(text) if hook.ignores_failure => {
            call.record.annotate(&format!("failed-open.{place}"), hook.name.as_str());
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
    let in_version = |object: Option<&Value>| {
        let mut object = object.cloned().unwrap_or(Value::Null);
        if object["apiVersion"].is_string() && object["kind"] == call.kind.kind {
            object["apiVersion"] = version_name(call, version).into();
        }
        object
    };
    let mut request = event::request(call, event, (version, dry_run));
    request["uid"] = uid.into();
    request["object"] = in_version(event.new);
    request["oldObject"] = in_version(event.old);
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
