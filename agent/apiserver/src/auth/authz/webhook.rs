//! Another server that decides, asked with a `SubjectAccessReview`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cel::{Activation, Budget, CONDITIONS_BUDGET, Program, Value};
use client::Hook;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

use super::settings::{WebhookSettings, condition};
use super::{Attributes, Authorizer, Decision};
use crate::auth::authn::BACKOFF;

/// Most answers that are remembered.
const MAX_ANSWERS: usize = 8_192;
/// Longest question whose answer is remembered.
const MAX_KEY_BYTES: usize = 10_000;

/// Asks the server.
pub struct Webhook {
    settings: WebhookSettings,
    hook: Hook,
    conditions: Vec<Program>,
    answers: Mutex<HashMap<String, (Instant, Decision)>>,
}

impl Webhook {
    /// Reads the kubeconfig; nothing is asked yet.
    ///
    /// # Errors
    /// When it, or a condition, cannot be used.
    pub fn new(settings: WebhookSettings) -> Result<Self, String> {
        if !matches!(settings.version.as_str(), "v1" | "v1beta1") {
            return Err(format!("unsupported webhook authorizer version {:?}", settings.version));
        }
        let hook = Hook::from_kubeconfig(&settings.kubeconfig, "authorization");
        let hook = hook.map_err(|e| format!("{}: {}", settings.kubeconfig.display(), stdx::chain(&e)))?;
        let conditions = settings.conditions.iter().map(|text| condition(text)).collect::<Result<_, _>>()?;
        Ok(Self { hook: hook.with_timeout(settings.timeout), settings, conditions, answers: Mutex::default() })
    }

    /// What can be said without asking, or the question.
    fn prepare(&self, attributes: &Attributes<'_>) -> Result<String, Decision> {
        let spec = Json::Object(spec(attributes, "groups"));
        match concerns(&self.conditions, &self.settings.conditions, &spec) {
            Ok(true) => {}
            Ok(false) => return Err(Decision::NoOpinion(String::new())),
            Err(why) => return Err(self.failed(why)),
        }
        let key = spec.to_string();
        let known = self.answers.lock().get(&key).filter(|(until, _)| Instant::now() < *until).map(|(_, d)| d.clone());
        known.map_or(Ok(key), Err)
    }

    fn failed(&self, why: String) -> Decision {
        Decision::Failed { why, denies: self.settings.denies_on_failure }
    }

    async fn question(&self, attributes: &Attributes<'_>, key: String) -> Decision {
        let is_old = self.settings.version == "v1beta1";
        let review = json!({
            "kind": "SubjectAccessReview", "apiVersion": format!("authorization.k8s.io/{}", self.settings.version),
            "metadata": {}, "spec": spec(attributes, if is_old { "group" } else { "groups" }), "status": {"allowed": false},
        });
        let decision = match self.hook.post_patiently(review.to_string().into(), &BACKOFF).await {
            Ok(answer) => decision(&answer),
            Err(error) => {
                let error = stdx::chain(&error).to_string();
                tracing::error!(webhook = self.settings.name, error, "a webhook that authorizes could not be asked");
                return self.failed(error);
            }
        };
        let decision = match decision {
            Ok(decision) => decision,
            Err(why) => return self.failed(why),
        };
        let ttl = if decision.is_allow() { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
        if let Some(ttl) = ttl.filter(|_| key.len() < MAX_KEY_BYTES) {
            self.remember(key, decision.clone(), ttl);
        }
        decision
    }

    fn remember(&self, key: String, decision: Decision, ttl: Duration) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, (until, _)| now < *until);
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
        }
        answers.insert(key, (now + ttl, decision));
    }
}

/// The question as `SubjectAccessReview` spells it.
fn spec(asked: &Attributes<'_>, groups: &str) -> Map<String, Json> {
    let mut spec = Map::new();
    let filled = |pairs: &[(&str, &str)]| -> Json {
        pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| ((*key).to_owned(), Json::from(*value)))
            .collect()
    };
    if asked.is_resource() {
        let mut resource = filled(&[
            ("namespace", asked.namespace),
            ("verb", asked.verb),
            ("group", asked.group),
            ("version", asked.version),
            ("resource", asked.resource),
            ("subresource", asked.subresource),
            ("name", asked.name),
        ]);
        if !asked.field_selector.is_empty() {
            let requirements = asked.field_selector.iter();
            let requirements =
                requirements.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
            resource["fieldSelector"] = json!({"requirements": requirements.collect::<Vec<_>>()});
        }
        spec.insert("resourceAttributes".to_owned(), resource);
    } else {
        spec.insert("nonResourceAttributes".to_owned(), filled(&[("path", asked.path), ("verb", asked.verb)]));
    }
    let user = asked.user;
    for (key, value) in [("user", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            spec.insert(key.to_owned(), value.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        spec.insert(groups.to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
    spec
}

/// Whether all conditions hold; one that does not outweighs those that cannot be evaluated.
fn concerns(conditions: &[Program], texts: &[String], spec: &Json) -> Result<bool, String> {
    let budget = Budget::new(CONDITIONS_BUDGET);
    let activation = Activation::new().with("request", Value::json(spec));
    let mut failures = Vec::new();
    for (program, text) in conditions.iter().zip(texts) {
        match program.evaluate(&activation, &budget) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(error) => {
                failures.push(format!("cel evaluation error: expression '{text}' resulted in error: {error}"));
            }
        }
    }
    if failures.is_empty() { Ok(true) } else { Err(failures.join(", ")) }
}

fn decision(answer: &[u8]) -> Result<Decision, String> {
    let answer: Json = serde_json::from_slice(answer).map_err(|e| format!("the answer is no JSON: {e}"))?;
    let status = &answer["status"];
    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => Err("webhook subject access review returned both allow and deny response".to_owned()),
        (false, true) => Ok(Decision::Deny(reason)),
        (true, false) => Ok(Decision::Allow(reason)),
        (false, false) => Ok(Decision::NoOpinion(reason)),
    }
}

impl Authorizer for Webhook {
    /// For those who cannot wait: on a runtime with several threads this one waits, on others nobody is asked.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let key = match self.prepare(attributes) {
            Ok(key) => key,
            Err(decision) => return decision,
        };
        match tokio::runtime::Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| handle.block_on(self.question(attributes, key)))
            }
            _ => self.failed("the webhook cannot be waited for here".to_owned()),
        }
    }

    fn ask<'a>(&'a self, attributes: &'a Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        Some(match self.prepare(attributes) {
            Ok(key) => self.question(attributes, key).boxed(),
            Err(decision) => futures::future::ready(decision).boxed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::UserInfo;

    #[test]
    fn questions_are_spelt_as_upstreams() {
        let user = UserInfo { name: "jane".to_owned(), groups: vec!["g".to_owned()], ..UserInfo::default() };
        let pods = Attributes { namespace: "a", version: "v1", ..Attributes::resource(&user, "list", "", "pods") };
        let resource = json!({"namespace": "a", "verb": "list", "version": "v1", "resource": "pods"});
        assert_eq!(
            Json::Object(spec(&pods, "groups")),
            json!({"resourceAttributes": resource, "user": "jane", "groups": ["g"]})
        );
        let path = spec(&Attributes::path(&user, "get", "/x"), "group");
        let expected = json!({"nonResourceAttributes": {"path": "/x", "verb": "get"}, "user": "jane", "group": ["g"]});
        assert_eq!(Json::Object(path), expected);
    }

    #[test]
    fn conditions_are_all_to_hold() {
        let judged = |texts: &[&str], spec: &Json| {
            let programs: Vec<Program> = texts.iter().map(|text| condition(text).unwrap()).collect();
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            concerns(&programs, &texts, spec)
        };
        let spec = json!({"resourceAttributes": {"namespace": "a", "verb": "get"}, "user": "jane", "groups": ["g"]});
        let (is_a, fails) =
            ("request.resourceAttributes.namespace == 'a'", "request.nonResourceAttributes.path == '/'");
        assert_eq!(judged(&[is_a, "'g' in request.groups"], &spec), Ok(true));
        assert_eq!(judged(&["!has(request.resourceAttributes)"], &spec), Ok(false));
        assert!(judged(&[fails], &spec).unwrap_err().contains("resulted in error"));
        assert_eq!(judged(&[fails, "request.user == 'x'"], &spec), Ok(false));
    }

    #[test]
    fn answers_are_decisions() {
        let told = |status: Json| decision(json!({"status": status}).to_string().as_bytes());
        assert_eq!(told(json!({"allowed": true, "reason": "r"})), Ok(Decision::Allow("r".to_owned())));
        assert_eq!(told(json!({"denied": true})), Ok(Decision::Deny(String::new())));
        assert_eq!(told(json!({"allowed": false, "reason": "r"})), Ok(Decision::NoOpinion("r".to_owned())));
        assert!(told(json!({"allowed": true, "denied": true})).is_err());
        assert!(decision(b"<html>").is_err());
    }
}
