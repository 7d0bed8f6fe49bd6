//! Policies that change objects.

use api::Kind;
use api::schema::Message;
use cel::{Budget, OBJECT_BUDGET, Value};
use serde_json::Value as Json;

use super::{Binding, Hook, Policy, params};
use crate::admission::change::Change;
use crate::admission::condition::{Expression, Inputs, Verdict};
use crate::admission::event::Event;
use crate::app::Call;
use crate::expressions::{Scope, Variables, environment, json_patch_type, object_type};
use crate::managed;
use crate::patch::Operation;
use crate::status::{Failure, Result};
use crate::tree;

/// What a policy changes.
pub(super) struct Rules {
    mutations: Vec<Mutation>,
    reinvoke: bool,
}

enum Mutation {
    /// A configuration that is merged into the object.
    Apply(Expression),
    /// A list of JSON patch operations.
    Patch(Expression),
}

impl super::Rules for Rules {
    const KINDS: (&'static str, &'static str) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");

    fn read(spec: &Json, scope: Scope, variables: &Variables) -> Self {
        let full = environment(Scope { patches: true, ..scope }, Some(variables));
        let mutations = tree::list(spec, "/mutations").iter().map(|m| {
            if m["patchType"] == "JSONPatch" {
                let text = tree::text(m, "/jsonPatch/expression");
                Mutation::Patch(Expression::new(text, &full, &[json_patch_type()]))
            } else {
                let text = tree::text(m, "/applyConfiguration/expression");
                Mutation::Apply(Expression::new(text, &full, &[object_type()]))
            }
        });
        Self { mutations: mutations.collect(), reinvoke: spec["reinvocationPolicy"] == "IfNeeded" }
    }
}

/// What could not be done, for the answer.
struct Trouble {
    text: String,
    is_invalid: bool,
}

/// Lets the mutating policies change an object.
pub(super) async fn mutate(call: &Call, change: &mut Change<'_>, hooks: &[Hook<Rules>]) -> Result<()> {
    let mut troubles = Vec::new();
    let mut last_change = None;
    let mut invoked = Vec::new();
    for (at, hook) in hooks.iter().enumerate() {
        match by_policy(call, hook, change, &mut troubles).await? {
            Some(true) => {
                last_change = Some(at);
                invoked.push(at);
            }
            Some(false) => invoked.push(at),
            None => {}
        }
    }
    if let Some(last) = last_change {
        // Those that ran before the last change see what came of it.
        for at in invoked.into_iter().filter(|at| *at < last && hooks[*at].policy.rules.reinvoke) {
            by_policy(call, &hooks[at], change, &mut troubles).await?;
        }
    }
    let Some(first) = troubles.first() else { return Ok(()) };
    let reason = if first.is_invalid { "Invalid" } else { "Forbidden" };
    let name = super::object_name(call, change.event());
    let failure =
        Failure::new(http::StatusCode::FORBIDDEN, reason, first.text.clone()).with_subject(call.subject(), &name);
    Err(troubles.iter().fold(failure, |failure, trouble| failure.with_cause("", &trouble.text)))
}

/// Lets one policy change the object. `None` if it is not for the request, else whether the object changed.
async fn by_policy(
    call: &Call,
    hook: &Hook<Rules>,
    change: &mut Change<'_>,
    troubles: &mut Vec<Trouble>,
) -> Result<Option<bool>> {
    let policy = &*hook.policy;
    let Some(seen) = policy.matching.kind(call, change.event()) else { return Ok(None) };
    let kind = match policy.param_kind.as_ref().map(|k| k.resolve(call)).transpose() {
        Ok(kind) => kind,
        Err(why) if policy.ignores_failure => {
            tracing::debug!(policy = %policy.name, %why, "a policy is not in force");
            return Ok(None);
        }
        Err(why) => {
            let text = format!("policy {:?} denied request: failed to configure policy: {why}", policy.name);
            troubles.push(Trouble { text, is_invalid: false });
            return Ok(None);
        }
    };
    let before = change.event().new.cloned();
    let mut is_invoked = false;
    for binding in &hook.bindings {
        if !binding.concerns(call, change.event()) {
            continue;
        }
        match params::collect(call, kind, binding.params.as_ref()) {
            Ok(params) => {
                for params in &params {
                    let outcome = by_binding(call, policy, (seen, params.as_ref()), change).await?;
                    is_invoked |= outcome.is_invoked;
                    let invalid = |why: &String| trouble(policy, binding, why, true);
                    troubles.extend(outcome.failures.iter().filter(|_| !policy.ignores_failure).map(invalid));
                }
            }
            Err(why) if !policy.ignores_failure => {
                troubles.push(trouble(policy, binding, &format!("failed to configure binding: {why}"), false));
            }
            Err(_) => {}
        }
    }
    Ok(is_invoked.then(|| before.as_ref() != change.event().new))
}

fn trouble(policy: &Policy<Rules>, binding: &Binding, why: &str, is_invalid: bool) -> Trouble {
    let text = format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
    Trouble { text, is_invalid }
}

#[derive(Default)]
struct Outcome {
    is_invoked: bool,
    failures: Vec<String>,
}

async fn by_binding(
    call: &Call,
    policy: &Policy<Rules>,
    (kind, params): (&'static Kind, Option<&Json>),
    change: &mut Change<'_>,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    change.prepare(kind).await?;
    match policy.conditions.judge(&Inputs::new(call, change.seen_as(kind))?, params, &policy.named) {
        Verdict::Holds => outcome.is_invoked = true,
        Verdict::Fails => return Ok(outcome),
        Verdict::Unknown(why) => {
            outcome.failures.push(why);
            return Ok(outcome);
        }
    }
    for mutation in &policy.rules.mutations {
        change.prepare(kind).await?;
        match changed(call, policy, (mutation, params), change.seen_as(kind))? {
            Ok(Some(object)) => change.replace(kind, object).await?,
            Ok(None) => {}
            Err(why) => outcome.failures.push(why),
        }
    }
    Ok(outcome)
}

/// The object as a mutation would have it; none if it stays as it is.
fn changed(
    call: &Call,
    policy: &Policy<Rules>,
    (mutation, params): (&Mutation, Option<&Json>),
    event: Event<'_>,
) -> Result<std::result::Result<Option<Json>, String>> {
    let inputs = Inputs::new(call, event)?;
    let Some(object) = event.new else { return Ok(Ok(None)) };
    let name = event.kind.type_of(&call.info.subresource);
    let is_own = name == event.kind.type_of("");
    let schema = if is_own { Some(event.kind.schema()) } else { name.schema() };
    let schema = schema.ok_or_else(|| Failure::internal(format!("no message is called {}", name.kind)))?;
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, true);
    let attempt = || match mutation {
        Mutation::Apply(expression) => {
            let value = expression.evaluate(&activation, &budget)??;
            applied(schema, object, &value).map(Some)
        }
        Mutation::Patch(expression) => {
            let value = expression.evaluate(&activation, &budget)??;
            patched(object, &value)
        }
    };
    Ok(attempt())
}

fn applied(schema: &'static Message, object: &Json, value: &Value<'_>) -> std::result::Result<Json, String> {
    check_names(value)?;
    let mut config = cel::to_json(value).map_err(|e| format!("invalid return type: {e}"))?;
    config["apiVersion"] = object["apiVersion"].clone();
    config["kind"] = object["kind"].clone();
    managed::merge_config(schema, object, &config)
}

/// Types of values that are written out say where in the object they belong.
fn check_names(value: &Value<'_>) -> std::result::Result<(), String> {
    let Value::Struct(object) = value else { return Ok(()) };
    let mut wrong = Vec::new();
    mismatches(value, object.name, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

fn mismatches(value: &Value<'_>, place: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Struct(object) => {
            if object.name != place {
                wrong.push(format!(
                    "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                    object.name
                ));
            }
            for (name, field) in &object.fields {
                mismatches(field, &format!("{place}.{name}"), wrong);
            }
        }
        Value::List(list) => list.iter().flatten().for_each(|item| mismatches(&item, place, wrong)),
        _ => {}
    }
}

fn patched(object: &Json, value: &Value<'_>) -> std::result::Result<Option<Json>, String> {
    let Value::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut operations = Vec::new();
    for item in list.iter() {
        let item = item.map_err(|e| e.to_string())?;
        if let Value::Struct(operation) = &item {
            operation.fields.iter().filter(|(name, _)| *name == "value").try_for_each(|(_, v)| check_names(v))?;
        }
        let operation = cel::to_json(&item)
            .map_err(|e| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}"))?;
        let Json::Object(fields) = operation else { return Err("JSON Patch: not an operation".to_owned()) };
        operations.push(Operation::read(fields).unwrap_or_default());
    }
    let (mut changed, mut copied) = (object.clone(), 0);
    for operation in &operations {
        match operation.apply_or_tell(&mut changed, &mut copied) {
            Ok(()) => {}
            // A test that fails says that the patch is not to be applied.
            Err(_) if operation.is_test() => return Ok(None),
            Err(why) => return Err(format!("JSON Patch: {why}")),
        }
    }
    Ok(Some(changed))
}
