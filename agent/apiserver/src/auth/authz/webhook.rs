//! Another server that decides, asked with a `SubjectAccessReview`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::labels::{Operator, Requirement};
use cel::{Activation, Budget, CONDITIONS_BUDGET, Program, Value};
use client::{Hook, Way};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};

use super::settings::{WebhookSettings, condition};
use super::{Attributes, Authorizer, Decision, Rules};
use crate::auth::authn::BACKOFF;
use crate::auth::identity::UserInfo;
use crate::reviewed::{self, Asked};

const KIND: &str = "SubjectAccessReview";
/// What answers have to fit.
const SCHEMA: &str = "k8s.io.api.authorization.v1.SubjectAccessReview";
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
    /// Reads the kubeconfig; nothing is asked yet. It is asked straight, or by another way.
    ///
    /// # Errors
    /// When it, or a condition, cannot be used.
    pub fn new(settings: WebhookSettings, way: Option<Arc<dyn Way>>) -> Result<Self, String> {
        if !matches!(settings.version.as_str(), "v1" | "v1beta1") {
            return Err(format!("unsupported webhook authorizer version {:?}", settings.version));
        }
        let hook = Hook::from_kubeconfig_by(way, &settings.kubeconfig, "authorization");
        let hook = hook.map_err(|e| format!("{}: {}", settings.kubeconfig.display(), stdx::chain(&e)))?;
        let conditions = settings.conditions.iter().map(|text| condition(text)).collect::<Result<_, _>>()?;
        Ok(Self { hook: hook.with_timeout(settings.timeout), settings, conditions, answers: Mutex::default() })
    }

    /// What can be said without asking, or the question.
    fn prepare(&self, attributes: &Attributes<'_>) -> Result<String, Decision> {
        let mut spec = spec(attributes, "groups");
        let key = Json::Object(spec.clone()).to_string();
        fill(&mut spec);
        match concerns(&self.conditions, &self.settings.conditions, &Json::Object(spec)) {
            Ok(true) => {}
            Ok(false) => return Err(Decision::NoOpinion(String::new())),
            Err(why) => return Err(self.failed(why)),
        }
        let known = self.answers.lock().get(&key).filter(|(until, _)| Instant::now() < *until).map(|(_, d)| d.clone());
        known.map_or(Ok(key), Err)
    }

    fn failed(&self, why: String) -> Decision {
        Decision::Failed { why, reason: String::new(), denies: self.settings.denies_on_failure }
    }

    async fn question(&self, attributes: &Attributes<'_>, key: String) -> Decision {
        let is_old = self.settings.version == "v1beta1";
        let api_version = format!("authorization.k8s.io/{}", self.settings.version);
        let review = json!({
            "kind": KIND, "apiVersion": api_version, "metadata": {},
            "spec": spec(attributes, if is_old { "group" } else { "groups" }), "status": {"allowed": false},
        });
        // The fields of an answer are the same in both versions.
        let asked = Asked { api_version: &api_version, kind: KIND, schema: SCHEMA };
        let answer = match reviewed::ask(&self.hook, &asked, &review, &BACKOFF).await {
            Ok(answer) => answer["status"].clone(),
            Err(error) => {
                tracing::error!(webhook = self.settings.name, error, "a webhook that authorizes could not be asked");
                return self.failed(error);
            }
        };
        let is_yes = answer["allowed"] == true;
        let ttl = if is_yes { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
        let decision = decision(&answer);
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
        for (key, list) in [("fieldSelector", asked.selected.fields), ("labelSelector", asked.selected.labels)] {
            let requirements: Vec<Json> = list.iter().filter_map(requirement).collect();
            if !requirements.is_empty() {
                resource[key] = json!({ "requirements": requirements });
            }
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

/// Conditions see texts and lists that are empty, too.
fn fill(spec: &mut Map<String, Json>) {
    let complete = |map: &mut Map<String, Json>, keys: &[&str], empty: Json| {
        for key in keys {
            map.entry(*key).or_insert_with(|| empty.clone());
        }
    };
    complete(spec, &["user", "uid"], "".into());
    complete(spec, &["groups"], json!([]));
    complete(spec, &["extra"], json!({}));
    for (part, keys) in [
        ("resourceAttributes", &["namespace", "verb", "group", "version", "resource", "subresource", "name"][..]),
        ("nonResourceAttributes", &["path", "verb"][..]),
    ] {
        if let Some(Json::Object(map)) = spec.get_mut(part) {
            complete(map, keys, "".into());
        }
    }
}

/// A requirement in the words of the question; none if it has no words for it.
fn requirement(of: &Requirement) -> Option<Json> {
    let operator = match of.operator {
        Operator::In => "In",
        Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let mut shown = json!({"key": of.key, "operator": operator});
    if !of.values.is_empty() {
        shown["values"] = json!(of.values);
    }
    Some(shown)
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

fn decision(status: &Json) -> Decision {
    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => {
            let why = "webhook subject access review returned both allow and deny response".to_owned();
            Decision::Failed { why, reason, denies: true }
        }
        (false, true) => Decision::Deny(reason),
        (true, false) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
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

    fn rules_of(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        let errors = vec!["webhook authorizer does not support user rule resolution".to_owned()];
        Rules { is_incomplete: true, errors, ..Rules::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authz::Selected;

    #[test]
    fn questions_are_spelt_as_upstreams() {
        let user = UserInfo { name: "jane".to_owned(), groups: vec!["g".to_owned()], ..UserInfo::default() };
        let pods = Attributes { namespace: "a", version: "v1", ..Attributes::resource(&user, "list", "", "pods") };
        let resource = json!({"namespace": "a", "verb": "list", "version": "v1", "resource": "pods"});
        assert_eq!(
            Json::Object(spec(&pods, "groups")),
            json!({"resourceAttributes": resource, "user": "jane", "groups": ["g"]})
        );
        let requirement = |key: &str, operator, values: &[&str]| Requirement {
            key: key.to_owned(),
            operator,
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        let fields = [requirement("spec.nodeName", Operator::NotIn, &["n"])];
        let labels = [requirement("a", Operator::Exists, &[]), requirement("b", Operator::GreaterThan, &["1"])];
        let selected = Selected { fields: &fields, labels: &labels };
        let asked = spec(&Attributes { selected, ..pods }, "groups");
        let of_fields = json!({"requirements": [{"key": "spec.nodeName", "operator": "NotIn", "values": ["n"]}]});
        assert_eq!(asked["resourceAttributes"]["fieldSelector"], of_fields);
        let of_labels = json!({"requirements": [{"key": "a", "operator": "Exists"}]});
        assert_eq!(asked["resourceAttributes"]["labelSelector"], of_labels);
        let path = spec(&Attributes::path(&user, "get", "/x"), "group");
        let expected = json!({"nonResourceAttributes": {"path": "/x", "verb": "get"}, "user": "jane", "group": ["g"]});
        assert_eq!(Json::Object(path), expected);
    }

    #[test]
    fn conditions_see_what_is_empty() {
        let user = UserInfo { name: "jane".to_owned(), ..UserInfo::default() };
        let mut asked = spec(&Attributes::resource(&user, "list", "", "pods"), "groups");
        fill(&mut asked);
        let asked = Json::Object(asked);
        let text = "request.resourceAttributes.namespace == '' && !('g' in request.groups) && request.uid == ''";
        let holds = |text: &str| concerns(&[condition(text).unwrap()], &[text.to_owned()], &asked);
        assert_eq!(holds(text), Ok(true));
        assert_eq!(holds("has(request.nonResourceAttributes)"), Ok(false));
        assert_eq!(holds("has(request.resourceAttributes.fieldSelector)"), Ok(false));
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
        let told = |status: Json| decision(&status);
        assert_eq!(told(json!({"allowed": true, "reason": "r"})), Decision::Allow("r".to_owned()));
        assert_eq!(told(json!({"denied": true})), Decision::Deny(String::new()));
        assert_eq!(told(json!({"allowed": false, "reason": "r"})), Decision::NoOpinion("r".to_owned()));
        let both = told(json!({"allowed": true, "denied": true}));
        assert!(matches!(both, Decision::Failed { denies: true, .. }), "{both:?}");
    }
}
