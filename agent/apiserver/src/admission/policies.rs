//! Admission policies: expressions that look at objects, or change them, before they are stored.
//!
//! ```text
//!  policies, bindings ─▶ read when the cache learns of them ─▶ hooks, in order
//!  request ─▶ which policies, which bindings, which parameters? ─▶ conditions ─▶ refusal, warning, change
//! ```
//! Nothing here waits, and no request reads an expression: a policy is read again only when it was written.

mod mutating;
mod params;
mod validating;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::change::Change;
use super::condition::{Conditions, Named};
use super::event::Event;
use super::matching::Matching;
use super::rounds::Rounds;
use crate::app::{App, Call};
use crate::cache::Storage;
use crate::codec;
use crate::expressions::{Scope, Variables};
use crate::status::Result;
use crate::tree;

use params::{ParamKind, ParamRef};

const GROUP: &str = "admissionregistration.k8s.io";

/// All policies, as they were last read.
#[derive(Default)]
pub struct Policies {
    validating: Known<validating::Rules>,
    mutating: Known<mutating::Rules>,
}

/// What kind of policy it is: what it does beyond what all policies have.
trait Rules: Sized {
    /// The plural names of policies and bindings.
    const KINDS: (&'static str, &'static str);

    /// Reads a policy's own part.
    fn read(spec: &Value, scope: Scope, variables: &Variables) -> Self;
}

/// A policy, ready to be evaluated.
struct Policy<R> {
    name: String,
    ignores_failure: bool,
    matching: Matching,
    conditions: Conditions,
    named: Named,
    param_kind: Option<ParamKind>,
    rules: R,
}

/// What puts a policy in force.
struct Binding {
    name: String,
    matching: Option<Matching>,
    params: Option<ParamRef>,
    actions: Vec<String>,
}

/// A policy and its bindings.
struct Hook<R> {
    policy: Arc<Policy<R>>,
    bindings: Vec<Binding>,
}

/// Policies of one kind, and the revisions they were read at.
struct Known<R>(Mutex<Read<R>>);

struct Read<R> {
    revisions: (i64, i64),
    /// Policies by name, with the revision of each.
    policies: HashMap<String, (i64, Arc<Policy<R>>)>,
    hooks: Arc<Vec<Hook<R>>>,
}

impl<R> Default for Known<R> {
    fn default() -> Self {
        Self(Mutex::new(Read { revisions: (0, 0), policies: HashMap::new(), hooks: Arc::default() }))
    }
}

impl<R: Rules> Known<R> {
    /// The policies that are in force now.
    fn current(&self, app: &App) -> Arc<Vec<Hook<R>>> {
        let (policies, bindings) = (app.cache.known(GROUP, R::KINDS.0), app.cache.known(GROUP, R::KINDS.1));
        let (objects, newest) = policies.snapshot_and_cursor();
        let (bound, newest_bound) = bindings.snapshot_and_cursor();
        let mut read = self.0.lock();
        if read.revisions == (newest, newest_bound) {
            return read.hooks.clone();
        }
        let mut by_policy: HashMap<String, Vec<Binding>> = HashMap::new();
        for object in bound.values() {
            if let Ok(value) = codec::to_value(bindings, bindings.kind, object) {
                by_policy
                    .entry(tree::text(&value, "/spec/policyName").to_owned())
                    .or_default()
                    .push(Binding::read(&value));
            }
        }
        let mut known = HashMap::new();
        let mut hooks = Vec::new();
        for object in objects.values() {
            let Some(policy) = read.policy(policies, object) else { continue };
            known.insert(object.name().to_owned(), (object.revision, policy.clone()));
            if let Some(bindings) = by_policy.remove(object.name()) {
                hooks.push(Hook { policy, bindings });
            }
        }
        *read = Read { revisions: (newest, newest_bound), policies: known, hooks: Arc::new(hooks) };
        read.hooks.clone()
    }
}

impl<R: Rules> Read<R> {
    fn policy(&self, storage: &Storage, object: &crate::cache::Object) -> Option<Arc<Policy<R>>> {
        match self.policies.get(object.name()) {
            Some((revision, policy)) if *revision == object.revision => Some(policy.clone()),
            _ => codec::to_value(storage, storage.kind, object).ok().map(|value| Arc::new(Policy::read(&value))),
        }
    }
}

impl<R: Rules> Policy<R> {
    fn read(value: &Value) -> Self {
        let spec = &value["spec"];
        let param_kind = ParamKind::read(&spec["paramKind"]);
        let scope = Scope { params: param_kind.is_some(), authorizer: true, patches: false };
        let (named, variables) = Named::read(tree::list(spec, "/variables"), scope);
        Self {
            name: tree::text(value, "/metadata/name").to_owned(),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            matching: Matching::of_resources(&spec["matchConstraints"]),
            conditions: Conditions::read(tree::list(spec, "/matchConditions"), scope, Some(&variables)),
            rules: R::read(spec, scope, &variables),
            named,
            param_kind,
        }
    }
}

impl Binding {
    fn read(value: &Value) -> Self {
        let spec = &value["spec"];
        let resources = spec.get("matchResources").filter(|r| r.is_object());
        let actions = tree::list(spec, "/validationActions").iter().filter_map(Value::as_str);
        Self {
            name: tree::text(value, "/metadata/name").to_owned(),
            matching: resources.map(Matching::of_resources),
            params: ParamRef::read(&spec["paramRef"]),
            actions: actions.map(str::to_owned).collect(),
        }
    }

    fn concerns(&self, call: &Call, event: Event<'_>) -> bool {
        self.matching.as_ref().is_none_or(|m| m.kind(call, event).is_some())
    }
}

/// Kinds that no policy is asked about: a cluster that cannot ask who somebody is, and whether they may, stands still,
/// and one whose policies are broken must be able to remove them.
const EXCLUDED: [(&str, &str); 10] = [
    (GROUP, "mutatingadmissionpolicies"),
    (GROUP, "mutatingadmissionpolicybindings"),
    (GROUP, "validatingadmissionpolicies"),
    (GROUP, "validatingadmissionpolicybindings"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

fn is_excluded(call: &Call) -> bool {
    EXCLUDED.contains(&(call.kind.group, call.kind.plural))
}

/// Whether there are policies that may change what is written.
pub(super) fn has_mutating(call: &Call) -> bool {
    !is_excluded(call) && !call.app.policies.mutating.current(&call.app).is_empty()
}

/// Whether there are policies that may refuse the request.
pub(super) fn has_validating(call: &Call) -> bool {
    !is_excluded(call) && !call.app.policies.validating.current(&call.app).is_empty()
}

/// Lets the validating policies look at what is about to be done.
pub(super) async fn validate(call: &Call, change: &mut Change<'_>) -> Result<()> {
    if is_excluded(call) {
        return Ok(());
    }
    validating::validate(call, change, &call.app.policies.validating.current(&call.app)).await
}

/// Lets the mutating policies change what is about to be written.
pub(super) async fn mutate(call: &Call, change: &mut Change<'_>, rounds: &mut Rounds) -> Result<()> {
    // Of what goes nothing can be changed.
    if is_excluded(call) || change.event().operation == "DELETE" {
        return Ok(());
    }
    let hooks = call.app.policies.mutating.current(&call.app);
    mutating::mutate(call, change, (&hooks, rounds)).await
}

/// The object's name in a refusal.
fn object_name(call: &Call, event: Event<'_>) -> String {
    let name = event.name(call);
    if !name.is_empty() {
        return name;
    }
    let base = event.new.map_or("", |o| tree::text(o, "/metadata/generateName"));
    if base.is_empty() { "Unknown".to_owned() } else { base.to_owned() }
}
