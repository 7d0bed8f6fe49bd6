//! Policies that refuse.

use std::collections::BTreeMap;

use cel::{Activation, Budget, OBJECT_BUDGET, Type, Value};
use http::StatusCode;
use serde_json::Value as Json;

use super::{Binding, Hook, Policy, params};
use crate::admission::change::Change;
use crate::admission::condition::{Expression, Inputs, Verdict};
use crate::admission::event::Event;
use crate::app::Call;
use crate::expressions::{Scope, Variables, environment};
use crate::status::{Failure, Result};
use crate::tree;

/// The longest message that an expression may make.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// What a policy demands.
pub(super) struct Rules {
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: &'static str,
}

struct Annotation {
    key: String,
    value: Expression,
}

/// A demand that is not met.
struct Denial {
    message: String,
    reason: &'static str,
    /// What the binding says is not asked: the policy itself failed.
    is_absolute: bool,
    /// Position of the expression.
    index: usize,
}

/// Values of annotations by key, in the order they were made.
type Annotations = BTreeMap<String, Vec<String>>;

impl super::Rules for Rules {
    const KINDS: (&'static str, &'static str) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");

    fn read(spec: &Json, scope: Scope, variables: &Variables) -> Self {
        let full = environment(scope, Some(variables));
        let for_message = environment(Scope { authorizer: false, ..scope }, Some(variables));
        let validations = tree::list(spec, "/validations").iter().map(|v| {
            let message = v["messageExpression"].as_str().filter(|m| !m.is_empty());
            Validation {
                expression: Expression::new(tree::text(v, "/expression"), &full, &[Type::Bool]),
                message: tree::text(v, "/message").trim().to_owned(),
                message_expression: message.map(|m| Expression::new(m, &for_message, &[Type::String])),
                reason: reason(v["reason"].as_str().unwrap_or_default()),
            }
        });
        let annotations = tree::list(spec, "/auditAnnotations").iter().map(|a| Annotation {
            key: tree::text(a, "/key").to_owned(),
            value: Expression::new(tree::text(a, "/valueExpression"), &full, &[Type::String, Type::Null]),
        });
        Self { validations: validations.collect(), annotations: annotations.collect() }
    }
}

fn reason(given: &str) -> &'static str {
    let known = ["Forbidden", "Unauthorized", "RequestEntityTooLarge"];
    known.into_iter().find(|known| *known == given).unwrap_or("Invalid")
}

/// Asks all policies; the first refusal is the answer.
pub(super) async fn validate(call: &Call, change: &mut Change<'_>, hooks: &[Hook<Rules>]) -> Result<()> {
    let mut refusal: Option<Failure> = None;
    for hook in hooks {
        let Some(kind) = hook.policy.matching.kind(call, change.event()) else { continue };
        change.prepare(kind).await?;
        let refused = by_policy(call, hook, (change.event(), change.seen_as(kind)))?;
        refusal = refusal.or(refused);
    }
    refusal.map_or(Ok(()), Err)
}

/// Asks one policy. `own` is the event as the request has it, `event` the one in the version of the policy.
fn by_policy(call: &Call, hook: &Hook<Rules>, (own, event): (Event<'_>, Event<'_>)) -> Result<Option<Failure>> {
    let policy = &*hook.policy;
    let mut refusal: Option<Failure> = None;
    let mut refuse = |binding: Option<&Binding>, denial: &Denial| {
        refusal.get_or_insert_with(|| failure(call, event, (&policy.name, binding), denial));
    };
    let unconfigured = |step: &str, why: String| Denial {
        message: format!("failed to configure {step}: {why}"),
        reason: "Invalid",
        is_absolute: true,
        index: 0,
    };
    let kind = match policy.param_kind.as_ref().map(|k| k.resolve(call)).transpose() {
        Ok(kind) => kind,
        Err(why) => {
            if !policy.ignores_failure {
                refuse(None, &unconfigured("policy", why));
            }
            return Ok(refusal);
        }
    };
    let mut noted = Annotations::new();
    for binding in hook.bindings.iter().filter(|b| b.concerns(call, own)) {
        let params = match params::collect(call, own, (kind, binding.params.as_ref())) {
            Ok(params) => params,
            Err(why) => {
                if !policy.ignores_failure {
                    refuse(Some(binding), &unconfigured("binding", why));
                }
                continue;
            }
        };
        let inputs = Inputs::new(call, event)?;
        for params in &params {
            for denial in denials(policy, &inputs, params.as_ref(), &mut noted) {
                if !denial.is_absolute && acts(binding, "Audit") && call.record.is_on() {
                    note_failure(call, &policy.name, binding, &denial);
                }
                if denial.is_absolute || acts(binding, "Deny") {
                    refuse(Some(binding), &denial);
                }
                if !denial.is_absolute && acts(binding, "Warn") {
                    call.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.message
                    ));
                }
            }
        }
    }
    for (key, values) in noted.into_iter().filter(|(_, values)| !values.is_empty()) {
        call.record.annotate(&format!("{}/{key}", policy.name), values.join(", "));
    }
    Ok(refusal)
}

/// Notes a demand that is not met where the binding says so.
fn note_failure(call: &Call, policy: &str, binding: &Binding, denial: &Denial) {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failed<'a> {
        message: &'a str,
        policy: &'a str,
        binding: &'a str,
        expression_index: usize,
        validation_actions: &'a [String],
    }
    let failed = Failed {
        message: &denial.message,
        policy,
        binding: &binding.name,
        expression_index: denial.index,
        validation_actions: &binding.actions,
    };
    if let Ok(text) = serde_json::to_string(&[failed]) {
        call.record.annotate("validation.policy.admission.k8s.io/validation_failure", text);
    }
}

fn acts(binding: &Binding, action: &str) -> bool {
    binding.actions.iter().any(|a| a == action)
}

fn failure(call: &Call, event: Event<'_>, (policy, binding): (&str, Option<&Binding>), denial: &Denial) -> Failure {
    let by = binding.map_or(String::new(), |b| format!(" with binding '{}'", b.name));
    let text = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {}", denial.message);
    let code = match denial.reason {
        "Forbidden" => StatusCode::FORBIDDEN,
        "Unauthorized" => StatusCode::UNAUTHORIZED,
        "RequestEntityTooLarge" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Failure::forbidden(call.subject(), &super::object_name(call, event), &text)
        .with_code(code, denial.reason)
        .with_cause("", &text)
}

/// What a failing expression comes to.
fn failed(policy: &Policy<Rules>, message: String, is_absolute: bool, index: usize) -> Option<Denial> {
    (!policy.ignores_failure).then_some(Denial { message, reason: "Invalid", is_absolute, index })
}

fn denials(policy: &Policy<Rules>, inputs: &Inputs<'_>, params: Option<&Json>, noted: &mut Annotations) -> Vec<Denial> {
    match policy.conditions.judge(inputs, params, &policy.named) {
        Verdict::Holds => {}
        Verdict::Fails => return Vec::new(),
        Verdict::Unknown(why) => return failed(policy, why, false, 0).into_iter().collect(),
    }
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, true);
    let for_message = inputs.activation(params, &policy.named, &budget, false);
    let mut denials = Vec::new();
    for (index, validation) in policy.rules.validations.iter().enumerate() {
        match validation.expression.evaluate(&activation, &budget) {
            Ok(Ok(Value::Bool(true))) => {}
            Ok(Ok(_)) => {
                let message = message(validation, &for_message, &budget);
                denials.push(Denial { message, reason: validation.reason, is_absolute: false, index });
            }
            Ok(Err(why)) => denials.extend(failed(policy, why, false, index)),
            Err(spent) => return failed(policy, spent, false, 0).into_iter().collect(),
        }
    }
    denials.extend(annotations(policy, inputs, params, noted));
    denials
}

fn message<'a>(validation: &'a Validation, activation: &Activation<'a>, budget: &Budget) -> String {
    let made = validation.message_expression.as_ref().and_then(|m| m.evaluate(activation, budget).ok()?.ok());
    let made = made.as_ref().and_then(Value::as_str).map(str::trim).unwrap_or_default();
    let is_fit = !made.is_empty() && made.len() <= MAX_MESSAGE_BYTES && !made.contains('\n');
    match (is_fit, validation.message.as_str()) {
        (true, _) => made.to_owned(),
        (false, "") => format!("failed expression: {}", validation.expression.text().trim()),
        (false, given) => given.to_owned(),
    }
}

/// Most of an annotation's value that is noted.
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

/// Annotations go to the audit log; one that cannot be made refuses the request.
fn annotations(
    policy: &Policy<Rules>,
    inputs: &Inputs<'_>,
    params: Option<&Json>,
    noted: &mut Annotations,
) -> Vec<Denial> {
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, false);
    let mut denials = Vec::new();
    for annotation in &policy.rules.annotations {
        match annotation.value.evaluate(&activation, &budget) {
            Ok(Ok(value)) => {
                let mut text = value.as_str().unwrap_or_default().trim().to_owned();
                text.truncate(text.floor_char_boundary(MAX_ANNOTATION_BYTES));
                let values = noted.entry(annotation.key.clone()).or_default();
                if !values.contains(&text) && !text.is_empty() {
                    values.push(text);
                }
            }
            Ok(Err(why)) => denials.extend(failed(policy, why, true, 0)),
            Err(spent) => return failed(policy, spent, false, 0).into_iter().collect(),
        }
    }
    denials
}
