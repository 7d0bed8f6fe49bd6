//! Webhook configurations, admission policies and their bindings.

mod json_path;
pub(super) mod policies;
mod rules;
pub(super) mod webhooks;

use api::admissionregistration::v1::MatchCondition;
use cel::Type;

use super::{Errors, Path, checks, names, shown};
use crate::expressions::{Scope, compile, environment};
use crate::status::FieldError;

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const MAX_CONDITIONS: usize = 64;

/// Conditions under which a request concerns a webhook or a policy.
fn match_conditions(path: &Path<'_>, conditions: &[MatchCondition], has_params: bool, errors: &mut Errors) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS as u64));
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let item = path.index(i);
        let expression = condition.expression.trim();
        if expression.is_empty() {
            errors.push(FieldError::required(item.child("expression"), ""));
        } else {
            let scope = Scope { params: has_params, authorizer: true, patches: false };
            if let Err(why) = compile(expression, &environment(scope, None), &[Type::Bool]) {
                errors.push(unread(item.child("expression"), expression, why));
            }
        }
        let name = condition.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(item.child("name"), ""));
            continue;
        }
        checks::text(&item.child("name"), name, names::qualified(name), errors);
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(item.child("name"), name));
        }
        seen.push(name);
    }
}

/// A word that has to be one of some.
fn word(path: &Path<'_>, value: &str, allowed: &[&str], errors: &mut Errors) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, shown::word(value), allowed));
    }
}

/// The error for an expression that cannot be read; that no program can be made of it is told as the server's own.
fn unread(field: impl Into<String>, expression: &str, why: String) -> FieldError {
    if why.starts_with("program instantiation failed") {
        return FieldError::internal(field, why);
    }
    FieldError::invalid(field, expression, why)
}
