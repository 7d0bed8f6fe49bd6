//! Policies that change objects.

use api::schema::Message;
use api::{Kind, TypeName};
use cel::{Budget, Key, List, Map, OBJECT_BUDGET, Value};
use serde_json::Value as Json;

use super::{Binding, Hook, Policy, params};
use crate::admission::change::Change;
use crate::admission::condition::{Expression, Inputs, Verdict};
use crate::admission::event::Event;
use crate::admission::rounds::Rounds;
use crate::app::Call;
use crate::expressions::{Scope, Variables, environment, json_patch_type, object_type};
use crate::managed::{self, Shape, Target};
use crate::patch::Operation;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::{codec, tree};

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

/// A policy that is for the request, by one of its bindings, with one of its parameters.
struct Invocation<'h> {
    policy: &'h Policy<Rules>,
    binding: &'h Binding,
    /// The version in which the policy wants to see the object.
    kind: &'static Kind,
    params: Option<Json>,
}

impl Invocation<'_> {
    fn key(&self) -> String {
        let text = |pointer: &str| self.params.as_ref().map_or("", |params| tree::text(params, pointer));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        [&self.policy.name, &self.binding.name, namespace, name].join("/")
    }

    fn trouble(&self, why: &str) -> Trouble {
        trouble(self.policy, self.binding, why, true)
    }
}

/// Lets the mutating policies change an object. Which are for the request is judged before any of them changes it.
pub(super) async fn mutate(
    call: &Call,
    change: &mut Change<'_>,
    (hooks, rounds): (&[Hook<Rules>], &mut Rounds),
) -> Result<()> {
    let mut troubles = Vec::new();
    let invocations: Vec<Invocation<'_>> =
        hooks.iter().flat_map(|hook| invocations(call, hook, change.event(), &mut troubles)).collect();
    rounds.policies.begin(rounds.is_second(), change.event().new);
    let mut is_touched = false;
    for invocation in &invocations {
        is_touched |= invoke(call, invocation, change, (rounds, &mut troubles)).await?;
    }
    if is_touched {
        rounds.policies.change();
        rounds.change();
    }
    rounds.policies.end(change.event().new);
    let Some(first) = troubles.first() else { return Ok(()) };
    let reason = if first.is_invalid { "Invalid" } else { "Forbidden" };
    let name = super::object_name(call, change.event());
    let failure =
        Failure::new(http::StatusCode::FORBIDDEN, reason, first.text.clone()).with_subject(call.subject(), &name);
    Err(troubles.iter().fold(failure, |failure, trouble| failure.with_cause("", &trouble.text)))
}

/// How a policy is for the request, if it is.
fn invocations<'h>(
    call: &Call,
    hook: &'h Hook<Rules>,
    event: Event<'_>,
    troubles: &mut Vec<Trouble>,
) -> Vec<Invocation<'h>> {
    let policy = &*hook.policy;
    let Some(kind) = policy.matching.kind(call, event) else { return Vec::new() };
    let param_kind = match policy.param_kind.as_ref().map(|k| k.resolve(call)).transpose() {
        Ok(param_kind) => param_kind,
        Err(why) => {
            if !policy.ignores_failure {
                let text = format!("policy {:?} denied request: failed to configure policy: {why}", policy.name);
                troubles.push(Trouble { text, is_invalid: false });
            }
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for binding in hook.bindings.iter().filter(|b| b.concerns(call, event)) {
        match params::collect(call, event, (param_kind, binding.params.as_ref())) {
            Ok(all) => found.extend(all.into_iter().map(|params| Invocation { policy, binding, kind, params })),
            Err(why) if !policy.ignores_failure => {
                troubles.push(trouble(policy, binding, &format!("failed to configure binding: {why}"), false));
            }
            Err(_) => {}
        }
    }
    found
}

fn trouble(policy: &Policy<Rules>, binding: &Binding, why: &str, is_invalid: bool) -> Trouble {
    let text = format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
    Trouble { text, is_invalid }
}

/// Lets one policy change the object. Says whether it wrote the object, be it as it was.
async fn invoke(
    call: &Call,
    invocation: &Invocation<'_>,
    change: &mut Change<'_>,
    (rounds, troubles): (&mut Rounds, &mut Vec<Trouble>),
) -> Result<bool> {
    let Invocation { policy, kind, params, .. } = invocation;
    let mut tell = |why: &str| {
        if !policy.ignores_failure {
            troubles.push(invocation.trouble(why));
        }
    };
    change.prepare(kind).await?;
    match policy.conditions.judge(&Inputs::new(call, change.seen_as(kind))?, params.as_ref(), &policy.named) {
        Verdict::Holds => {}
        Verdict::Fails => return Ok(false),
        Verdict::Unknown(why) => {
            tell(&why);
            return Ok(false);
        }
    }
    let key = invocation.key();
    if rounds.is_second() && !rounds.policies.is_again(&key) {
        return Ok(false);
    }
    let before = change.event().new.cloned();
    let mut is_written = false;
    for mutation in &policy.rules.mutations {
        change.prepare(kind).await?;
        match changed(call, policy, (mutation, params.as_ref()), change.seen_as(kind))? {
            Ok(Some(object)) => {
                change.replace(kind, object).await?;
                is_written = true;
            }
            Ok(None) => {}
            Err(why) => tell(&why),
        }
    }
    if before.as_ref() != change.event().new {
        rounds.policies.change();
        rounds.change();
    }
    if policy.rules.reinvoke {
        rounds.policies.ran(key);
    }
    Ok(is_written)
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
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, true);
    let attempt = || match mutation {
        Mutation::Apply(expression) => {
            let value = expression.evaluate(&activation, &budget)??;
            applied(call, event, &value).map(Some)
        }
        Mutation::Patch(expression) => {
            let value = expression.evaluate(&activation, &budget)??;
            patched(object, &value)
        }
    };
    let done = attempt();
    if let (Ok(Some(object)), Mutation::Patch(_), Some(schema)) = (&done, mutation, name.schema())
        && !crate::custom::is_custom(event.kind)
    {
        check_known(schema, object)?;
    }
    Ok(done)
}

fn applied(call: &Call, event: Event<'_>, value: &Value<'_>) -> std::result::Result<Json, String> {
    check_names(value)?;
    check_plain(value, "")
        .map_err(|why| format!("error applying patch: failed to convert patch object to typed object: {why}"))?;
    let object = event.new.unwrap_or(&Json::Null);
    let mut config = cel::to_json(value).map_err(|e| format!("invalid return type: {e}"))?;
    config["apiVersion"] = object["apiVersion"].clone();
    config["kind"] = object["kind"].clone();
    let name = event.kind.type_of(&call.info.subresource);
    // Types that another group has are not among those that the group of the request tells of.
    if (name.group, name.version) != (event.kind.group, event.kind.version) {
        let TypeName { group, version, kind } = name;
        return Err(format!(
            "error applying patch: failed to convert patch object to typed object: no corresponding type for \
             {group}/{version}, Kind={kind}"
        ));
    }
    let custom = crate::custom::schema_in(call, event.kind);
    let ty = match (&custom, name.schema()) {
        (None, Some(schema)) if name != event.kind.type_of("") => Shape::Message(schema),
        _ => Shape::Target(Target { kind: event.kind, part: Part::Main, schema: custom.as_deref() }),
    };
    managed::merge_config(ty, object, &config)
}

/// A configuration has no bytes, times and durations: objects know only texts, which these are not.
fn check_plain(value: &Value<'_>, path: &str) -> std::result::Result<(), String> {
    let below = |name: &str| format!("{path}.{name}");
    let shown = match value {
        Value::Struct(object) => {
            return object.fields.iter().try_for_each(|(name, value)| check_plain(value, &below(name)));
        }
        Value::Map(Map::Shared(map)) => {
            return map.iter().try_for_each(|(key, (_, value))| match key {
                Key::Text(name) => check_plain(value, &below(name)),
                _ => Ok(()),
            });
        }
        Value::List(list @ List::Shared(_)) => {
            return list.iter().enumerate().try_for_each(|(at, item)| match item {
                Ok(item) => check_plain(&item, &format!("{path}[{at}]")),
                Err(_) => Ok(()),
            });
        }
        Value::Optional(Some(inner)) => return check_plain(inner, path),
        Value::Bytes(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:#x}")).collect();
            format!("[]uint8{{{}}}", bytes.join(", "))
        }
        Value::Timestamp(time) => {
            let (moment, nanos) = (time.strftime("%Y, time.%B, %-d, %-H, %-M, %-S"), time.subsec_nanosecond());
            format!("time.Date({moment}, {nanos}, time.UTC)")
        }
        Value::Duration(nanos) => nanos.to_string(),
        _ => return Ok(()),
    };
    Err(format!("{path}: expected string, got &value.valueUnstructured{{Value:{shown}}}"))
}

/// What a patch makes of an object has no fields that its type does not have.
fn check_known(schema: &'static Message, object: &Json) -> Result<()> {
    match codec::unknown_fields(schema, object).as_slice() {
        [] => Ok(()),
        unknown => Err(Failure::internal(format!("strict decoding error: {}", unknown.join(", ")))),
    }
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
