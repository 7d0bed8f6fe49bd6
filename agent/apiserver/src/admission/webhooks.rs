//! Mutating and validating webhooks: other servers that look at objects before they are stored.
//!
//! ```text
//!  configurations ─▶ hooks, in order ─▶ which concern the request? ─▶ ask ─▶ patch, warnings, refusal
//! ```
//! The configurations are read from the cache when they changed, never per request. Mutating hooks are asked one
//! after another, validating ones all at once. What this server does itself does not pass them.

mod ask;
mod operations;
mod reply;

use std::sync::Arc;
use std::time::Instant;

use api::Kind;
use futures::FutureExt as _;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::change::Change;
use super::condition::{self, Conditions, Inputs, Named, Verdict};
use super::event::{self, Event};
use super::matching::Matching;
use super::rounds::Rounds;
use crate::app::{App, Call};
use crate::cache::Storage;
use crate::metrics::{Asked, Question, Step};
use crate::status::{Failure, Result};
use crate::validation::names;
use crate::{codec, traced, tree};

pub use ask::{Client as WebhookClient, roots};
use operations::Operations;
pub(crate) use reply::document;
use reply::{Answer, Expected};

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
    /// In which version it is asked; none that this server knows.
    version: Option<&'static str>,
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
            version: tree::list(value, "/admissionReviewVersions")
                .iter()
                .find_map(|known| reply::VERSIONS.into_iter().find(|version| known == version)),
            reinvoke: value["reinvocationPolicy"] == "IfNeeded",
            timeout,
        }
    }
}

/// Whether there are hooks that may change what is written.
pub(super) fn has_mutating(call: &Call) -> bool {
    !event::is_exempt_from_hooks(call) && !call.app.hooks.mutating(&call.app).is_empty()
}

/// Whether there are hooks that may refuse a request.
pub(super) fn has_validating(call: &Call) -> bool {
    !event::is_exempt_from_hooks(call) && !call.app.hooks.validating(&call.app).is_empty()
}

/// Asks the mutating hooks; in the second round those that want to know what became of the object.
pub(super) async fn mutate(call: &Call, change: &mut Change<'_>, rounds: &mut Rounds) -> Result<()> {
    let hooks = call.app.hooks.mutating(&call.app);
    let is_second = rounds.is_second();
    rounds.webhooks.begin(is_second, change.event().new);
    for hook in hooks.iter() {
        let Some(kind) = concerns(call, hook, change).await? else { continue };
        let key = format!("{}/{}", hook.configuration, hook.name);
        if is_second && !rounds.webhooks.is_again(&key) {
            continue;
        }
        if mutate_by(call, (hook, u8::from(is_second)), (change, kind)).await? {
            rounds.webhooks.change();
            rounds.change();
        }
        if hook.reinvoke {
            rounds.webhooks.ran(key);
        }
    }
    rounds.webhooks.end(change.event().new);
    Ok(())
}

/// Asks one hook. Says whether it changed the object.
async fn mutate_by(
    call: &Call,
    (hook, round): (&Hook, u8),
    (change, kind): (&mut Change<'_>, &'static Kind),
) -> Result<bool> {
    let event = change.seen_as(kind);
    let place = format!("{MUTATED}round_{round}_index_{}", hook.at);
    let answer = ask(call, (hook, Step::Admit, &place), event).await.inspect_err(|_| {
        note_mutation(call, hook, &place, false);
    })?;
    let Some(answer) = answer else {
        note_mutation(call, hook, &place, false);
        return Ok(false);
    };
    let Some(patch) = answer.patch else {
        note_mutation(call, hook, &place, false);
        return Ok(false);
    };
    let Some(before) = event.new else {
        note_mutation(call, hook, &place, false);
        return Err(Failure::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let mut new = before.clone();
    // Another hook must not be told what no object can be.
    patch.apply(&mut new).map_err(|why| {
        note_mutation(call, hook, &place, false);
        Failure::internal(why)
    })?;
    let is_changed = *before != new;
    note_mutation(call, hook, &place, is_changed);
    if call.record.wants_request_object() {
        let (configuration, webhook) = (&hook.configuration, &hook.name);
        let noted = Patched { configuration, webhook, patch: &patch, patch_type: "JSONPatch" };
        let key = place.replacen(MUTATED, PATCHED, 1);
        call.record.annotate(&key, serde_json::to_string(&noted).unwrap_or_default());
    }
    if is_changed {
        change.replace(kind, new).await?;
    }
    Ok(is_changed)
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
    patch: &'a Operations,
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
pub(super) async fn validate(call: &Call, change: &mut Change<'_>) -> Result<()> {
    let hooks = call.app.hooks.validating(&call.app);
    let mut concerned = Vec::new();
    for hook in hooks.iter() {
        concerned.extend(concerns(call, hook, change).await?.map(|kind| (hook, kind)));
    }
    let change = &*change;
    let answers = concerned.into_iter().map(|(hook, kind)| async move {
        let place = format!("{VALIDATED}round_0_index_{}", hook.at);
        ask(call, (hook, Step::Validate, &place), change.seen_as(kind)).await
    });
    for answer in futures::future::join_all(answers).await {
        answer?;
    }
    Ok(())
}

/// The version in which a hook wants to see the change, if it is concerned; the change is then prepared for it.
async fn concerns(call: &Call, hook: &Hook, change: &mut Change<'_>) -> Result<Option<&'static Kind>> {
    if event::is_exempt_from_hooks(call) {
        return Ok(None);
    }
    let Some(kind) = hook.matching.kind(call, change.event()) else { return Ok(None) };
    change.prepare(kind).await?;
    if hook.conditions.is_empty() {
        return Ok(Some(kind));
    }
    let event = change.seen_as(kind);
    match hook.conditions.judge(&Inputs::new(call, event)?, None, &Named::default()) {
        Verdict::Holds => Ok(Some(kind)),
        Verdict::Fails => Ok(None),
        Verdict::Unknown(_) if hook.ignores_failure => Ok(None),
        Verdict::Unknown(why) => Err(Failure::forbidden(call.subject(), &event.name(call), &why)),
    }
}

/// Asks a hook, and counts that. `None` if it could not be asked and that does not matter.
async fn ask(call: &Call, (hook, step, place): (&Hook, Step, &str), event: Event<'_>) -> Result<Option<Answer>> {
    if event.dry_run && hook.has_side_effects {
        return Err(Failure::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
    }
    let Some(version) = hook.version else {
        let why =
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return judge(call, (hook, place), Err(why.to_owned())).1;
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(call, event, (version, &uid));
    let client = ask::Client { app: &call.app, config: &hook.client, seconds: hook.timeout };
    let begun = Instant::now();
    let expected = Expected { version, uid: &uid, mutating: step == Step::Admit };
    let span = span(call, hook, (step, event.operation), &uid);
    let answer = traced::inside(span, client.ask(&review, expected).boxed()).await;
    let (asked, judged) = judge(call, (hook, place), answer);
    let question = Question { hook: &hook.name, step, operation: event.operation };
    call.app.metrics.admission.hook(question, asked, begun.elapsed());
    judged
}

/// The span of a question, as upstream describes it; none where it is not recorded.
fn span(call: &Call, hook: &Hook, (step, operation): (Step, &str), uid: &str) -> Option<traces::Span> {
    let name = match step {
        Step::Admit => "Call mutating webhook",
        Step::Validate => "Call validating webhook",
    };
    let mut span = traces::child(name, traces::Kind::Internal)?;
    let info = &call.info;
    let resource = format!("{}/{}, Resource={}", info.group, info.version, info.resource);
    for (key, value) in [
        ("configuration", &*hook.configuration),
        ("webhook", &*hook.name),
        ("resource", &resource),
        ("subresource", &info.subresource),
        ("operation", operation),
        ("UID", uid),
    ] {
        span.text(key, value);
    }
    Some(span)
}

/// What an answer, or the want of one, means.
fn judge(
    call: &Call,
    (hook, place): (&Hook, &str),
    answer: std::result::Result<Answer, String>,
) -> (Asked, Result<Option<Answer>>) {
    match answer {
        Ok(answer) => {
            for warning in &answer.warnings {
                call.warn(warning.as_str());
            }
            for (key, value) in &answer.annotations {
                let key = format!("{}/{key}", hook.name);
                // Others could not be told from those of this server.
                if names::qualified(&key).is_empty() {
                    call.record.annotate(&key, value.as_str());
                }
            }
            if answer.allowed {
                return (Asked::Allowed, Ok(Some(answer)));
            }
            let failure = refusal(&hook.name, &answer.status);
            (Asked::Refused(failure.code().as_u16()), Err(failure))
        }
        Err(text) if hook.ignores_failure => {
            call.record.annotate(&format!("failed-open.{place}"), hook.name.as_str());
            tracing::warn!(webhook = %hook.name, error = %text, "a webhook could not be asked; its configuration says to go on");
            (Asked::FailedOpen, Ok(None))
        }
        Err(text) => (Asked::Failed, Err(Failure::internal(format!("failed calling webhook {:?}: {text}", hook.name)))),
    }
}

/// The hook's own `Status`, as a refusal.
fn refusal(name: &str, status: &Value) -> Failure {
    let known = codec::known(codec::schema(crate::answer::STATUS), status);
    let mut status = known.unwrap_or_else(|_| json!({"metadata": {}}));
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| *c >= 400);
    let code = code.and_then(|c| StatusCode::from_u16(c).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    if matches!(text("status"), "" | "Success") {
        status["status"] = "Failure".into();
    }
    Failure::told(code, message, status)
}

fn review(call: &Call, event: Event<'_>, (version, uid): (&str, &str)) -> Value {
    let mut request = event::request(call, event);
    request["uid"] = uid.into();
    request["object"] = event.new.cloned().unwrap_or_default();
    request["oldObject"] = event.old.cloned().unwrap_or_default();
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
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
        let own = json!({"message": "no", "code": 418, "reason": "Teapot", "details": {"name": "x"}});
        let shown = refusal("a", &own).to_value();
        assert_eq!(
            (&shown["code"], &shown["reason"], &shown["details"]),
            (&json!(418), &json!("Teapot"), &own["details"])
        );
        let failure = refusal("a", &Value::Null);
        assert_eq!(failure.code().as_u16(), 400);
        assert_eq!(failure.message(), "admission webhook \"a\" denied the request without explanation");
    }
}
