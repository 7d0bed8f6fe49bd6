//! Policies that refuse.

use cel::{Activation, Budget, OBJECT_BUDGET, Type, Value};
use http::StatusCode;
use serde_json::Value as Json;

use super::{Binding, Hook, Policy, params};
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
    value: Expression,
}

/// A demand that is not met.
struct Denial {
    message: String,
    reason: &'static str,
    /// What the binding says is not asked: the policy itself failed.
    is_absolute: bool,
}

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
pub(super) fn validate(call: &Call, event: Event<'_>, hooks: &[Hook<Rules>]) -> Result<()> {
    let mut refusal: Option<Failure> = None;
    for hook in hooks {
        let policy = &*hook.policy;
        let Some(version) = policy.matching.version(call, event) else { continue };
        let mut refuse = |binding: Option<&Binding>, denial: &Denial| {
            refusal.get_or_insert_with(|| failure(call, event, (&policy.name, binding), denial));
        };
        let unconfigured = |step: &str, why: String| Denial {
            message: format!("failed to configure {step}: {why}"),
            reason: "Invalid",
            is_absolute: true,
        };
        let kind = match policy.param_kind.as_ref().map(|k| k.resolve(call)).transpose() {
            Ok(kind) => kind,
            Err(why) => {
                if !policy.ignores_failure {
                    refuse(None, &unconfigured("policy", why));
                }
                continue;
            }
        };
        for binding in hook.bindings.iter().filter(|b| b.concerns(call, event)) {
            let params = match params::collect(call, kind, binding.params.as_ref()) {
                Ok(params) => params,
                Err(why) => {
                    if !policy.ignores_failure {
                        refuse(Some(binding), &unconfigured("binding", why));
                    }
                    continue;
                }
            };
            let inputs = Inputs::new(call, event, version)?;
            for params in &params {
                for denial in denials(policy, &inputs, params.as_ref()) {
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
    }
    refusal.map_or(Ok(()), Err)
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
fn failed(policy: &Policy<Rules>, message: String, is_absolute: bool) -> Option<Denial> {
    (!policy.ignores_failure).then_some(Denial { message, reason: "Invalid", is_absolute })
}

fn denials(policy: &Policy<Rules>, inputs: &Inputs<'_>, params: Option<&Json>) -> Vec<Denial> {
    match policy.conditions.judge(inputs, params, &policy.named) {
        Verdict::Holds => {}
        Verdict::Fails => return Vec::new(),
        Verdict::Unknown(why) => return failed(policy, why, false).into_iter().collect(),
    }
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, true);
    let for_message = inputs.activation(params, &policy.named, &budget, false);
    let mut denials = Vec::new();
    for validation in &policy.rules.validations {
        match validation.expression.evaluate(&activation, &budget) {
            Ok(Ok(Value::Bool(true))) => {}
            Ok(Ok(_)) => {
                let message = message(validation, &for_message, &budget);
                denials.push(Denial { message, reason: validation.reason, is_absolute: false });
            }
            Ok(Err(why)) => denials.extend(failed(policy, why, false)),
            Err(spent) => return failed(policy, spent, false).into_iter().collect(),
        }
    }
    denials.extend(annotations(policy, inputs, params));
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

/// Annotations go to the audit log, which this server does not keep; one that cannot be made refuses all the same.
fn annotations(policy: &Policy<Rules>, inputs: &Inputs<'_>, params: Option<&Json>) -> Vec<Denial> {
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = inputs.activation(params, &policy.named, &budget, false);
    let mut denials = Vec::new();
    for annotation in &policy.rules.annotations {
        match annotation.value.evaluate(&activation, &budget) {
            Ok(Ok(_)) => {}
            Ok(Err(why)) => denials.extend(failed(policy, why, true)),
            Err(spent) => return failed(policy, spent, false).into_iter().collect(),
        }
    }
    denials
}
