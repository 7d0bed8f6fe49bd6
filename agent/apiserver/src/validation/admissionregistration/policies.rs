//! Admission policies and their bindings.

use api::admissionregistration::v1::{
    AuditAnnotation, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation, ParamKind,
    ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation, Variable,
};
use cel::{Environment, Type};
use serde_json::json;

use super::{FAILURE_POLICIES, REINVOCATION_POLICIES, json_path, rules};
use crate::expressions::{self, Scope, Variables, compile, environment};
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Change, Errors, Path, checks, conditions, names};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
const NOT_FOUND_ACTIONS: [&str; 2] = ["Deny", "Allow"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION_BYTES: usize = 5 * 1024;
const NOTHING: &str = "validations or auditAnnotations must contain at least one item";

pub(in crate::validation) fn validating(change: &Change<'_, ValidatingAdmissionPolicy>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        status(new, errors);
        return;
    }
    let spec = &new.spec;
    let path = Path::root("spec");
    let has_params = spec.param_kind.is_some();
    head(&path, spec.failure_policy.as_deref(), spec.param_kind.as_ref(), errors);
    constraints(&path, spec.match_constraints.as_ref(), errors);
    let same = |old: &ValidatingAdmissionPolicy| {
        old.spec.param_kind == spec.param_kind && old.spec.match_conditions == spec.match_conditions
    };
    if !change.old.is_some_and(same) {
        super::match_conditions(&path.child("matchConditions"), &spec.match_conditions, has_params, errors);
    }
    let with_authorizer = Scope { params: has_params, authorizer: true, patches: false };
    let known = variables(&path.child("variables"), &spec.variables, with_authorizer, errors);
    let known = (!spec.variables.is_empty()).then_some(&known);
    if spec.validations.is_empty() && spec.audit_annotations.is_empty() {
        errors.push(FieldError::required(path.child("validations"), NOTHING));
        errors.push(FieldError::required(path.child("auditAnnotations"), NOTHING));
        return;
    }
    let full = environment(with_authorizer, known);
    let message = environment(Scope { authorizer: false, ..with_authorizer }, known);
    for (i, one) in spec.validations.iter().enumerate() {
        validation(&path.child("validations").index(i), one, (&full, &message), errors);
    }
    annotations(&path.child("auditAnnotations"), &new.metadata.name, (&spec.audit_annotations, &full), errors);
}

fn head(path: &Path<'_>, failure_policy: Option<&str>, kind: Option<&ParamKind>, errors: &mut Errors) {
    match failure_policy {
        None => errors.push(FieldError::required(path.child("failurePolicy"), "")),
        Some(policy) => super::word(&path.child("failurePolicy"), policy, &FAILURE_POLICIES, errors),
    }
    if let Some(kind) = kind {
        param_kind(&path.child("paramKind"), kind, errors);
    }
}

fn constraints(path: &Path<'_>, constraints: Option<&MatchResources>, errors: &mut Errors) {
    let path = path.child("matchConstraints");
    let Some(constraints) = constraints else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    rules::match_resources(&path, constraints, errors);
    if constraints.resource_rules.is_empty() {
        errors.push(FieldError::required(path.child("resourceRules"), ""));
    }
}

fn param_kind(path: &Path<'_>, kind: &ParamKind, errors: &mut Errors) {
    let version_path = path.child("apiVersion");
    let given = kind.api_version.as_str();
    if given.is_empty() {
        errors.push(FieldError::required(version_path, ""));
    } else if given.matches('/').count() > 1 {
        errors.push(FieldError::invalid(version_path, given, format!("unexpected GroupVersion string: {given}")));
    } else {
        let (group, version) = if given == "/" { ("", "") } else { given.split_once('/').unwrap_or(("", given)) };
        let complaints = names::dns1123_subdomain(group);
        if !group.is_empty() && !complaints.is_empty() {
            errors.push(FieldError::invalid(version_path, group, complaints.join(",")));
        }
        let complaints = names::dns1035_label(version);
        if version.is_empty() {
            errors.push(FieldError::invalid(version_path, given, "version must be specified"));
        } else if !complaints.is_empty() {
            errors.push(FieldError::invalid(version_path, version, complaints.join(",")));
        }
    }
    let complaints = names::dns1035_label(&kind.kind.to_lowercase());
    if kind.kind.is_empty() {
        errors.push(FieldError::required(path.child("kind"), ""));
    } else if !complaints.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
        errors.push(FieldError::invalid(path.child("kind"), &kind.kind, why));
    }
}

fn is_identifier(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit()) && !cel::is_reserved(name)
}

/// Variables may refer to those before them.
fn variables(path: &Path<'_>, list: &[Variable], scope: Scope, errors: &mut Errors) -> Variables {
    let mut known = Variables::new();
    for (i, variable) in list.iter().enumerate() {
        let item = path.index(i);
        if variable.name.trim().is_empty() {
            errors.push(FieldError::required(item.child("name"), "name is not specified"));
        } else if !is_identifier(&variable.name) {
            errors.push(FieldError::invalid(item.child("name"), &variable.name, "must be a valid CEL identifier"));
        }
        if variable.expression.trim().is_empty() {
            errors.push(FieldError::required(item.child("expression"), "expression is not specified"));
            continue;
        }
        let ty = match compile(&variable.expression, &environment(scope, Some(&known)), &[]) {
            Ok(program) => expressions::variable_type(program.output_type()),
            Err(why) => {
                errors.push(super::unread(item.child("expression"), &variable.expression, why));
                Type::Dyn
            }
        };
        known.insert(variable.name.clone(), ty);
    }
    known
}

fn validation(
    path: &Path<'_>,
    one: &Validation,
    (full, for_message): (&Environment, &Environment),
    errors: &mut Errors,
) {
    if one.expression.trim().is_empty() {
        errors.push(FieldError::required(path.child("expression"), "expression is not specified"));
    } else if let Err(why) = compile(&one.expression, full, &[Type::Bool]) {
        errors.push(super::unread(path.child("expression"), &one.expression, why));
    }
    let given = &one.message_expression;
    if !given.is_empty() && given.trim().is_empty() {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(path.child("messageExpression"), given, why));
    } else if !given.is_empty()
        && let Err(why) = compile(given, for_message, &[Type::String])
    {
        errors.push(super::unread(path.child("messageExpression"), given, why));
    }
    let message = one.message.trim();
    if !one.message.is_empty() && message.is_empty() {
        errors.push(FieldError::invalid(path.child("message"), &one.message, "must be non-empty if specified"));
    } else if message.contains(['\n', '\r']) {
        errors.push(FieldError::invalid(path.child("message"), &one.message, "must not contain line breaks"));
    }
    if let Some(reason) = &one.reason {
        super::word(&path.child("reason"), reason, &REASONS, errors);
    }
}

fn annotations(path: &Path<'_>, name: &str, (list, full): (&[AuditAnnotation], &Environment), errors: &mut Errors) {
    if list.len() > MAX_ANNOTATIONS {
        let shown: Vec<_> = list.iter().map(|a| json!({"Key": a.key, "ValueExpression": a.value_expression})).collect();
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(path, json!(shown), why));
    }
    for (i, annotation) in list.iter().enumerate() {
        let item = path.index(i);
        let key = item.child("key");
        if name.is_empty() {
            errors.push(FieldError::invalid(key, &annotation.key, "requires metadata.name be non-empty"));
        } else {
            let whole = format!("{name}/{}", annotation.key);
            checks::text(&key, &whole, names::qualified(&whole), errors);
        }
        let value = item.child("valueExpression");
        let trimmed = annotation.value_expression.trim();
        if trimmed.is_empty() {
            errors.push(FieldError::required(value, "valueExpression is not specified"));
        } else if trimmed.len() > MAX_VALUE_EXPRESSION_BYTES {
            let why = format!("must not exceed {MAX_VALUE_EXPRESSION_BYTES} bytes in length");
            errors.push(FieldError::required(value, why));
        } else if let Err(why) = compile(trimmed, full, &[Type::String, Type::Null]) {
            errors.push(super::unread(value, &annotation.value_expression, why));
        }
        if list[..i].iter().any(|other| other.key == annotation.key) {
            errors.push(FieldError::duplicate(key, &annotation.key));
        }
    }
}

fn status(policy: &ValidatingAdmissionPolicy, errors: &mut Errors) {
    let warnings = policy.status.type_checking.iter().flat_map(|t| &t.expression_warnings);
    let path = Path::root("status");
    let (checking, list) = (path.child("typeChecking"), "expressionWarnings");
    for (i, warning) in warnings.enumerate() {
        let item = checking.child(list);
        checks::required(&item.index(i).child("warning"), &warning.warning, errors);
        let (field, list) = (&warning.field_ref, item.index(i));
        checks::required(&list.child("fieldRef"), field.trim(), errors);
        if let Some(why) = json_path::complaint(field) {
            errors.push(FieldError::invalid(
                list.child("fieldRef"),
                field.as_str(),
                format!("invalid JSONPath: {why}"),
            ));
        }
    }
    conditions::conditions(&path.child("conditions"), &policy.status.conditions, errors);
}

pub(in crate::validation) fn mutating(change: &Change<'_, MutatingAdmissionPolicy>, errors: &mut Errors) {
    let spec = &change.new.spec;
    let path = Path::root("spec");
    let has_params = spec.param_kind.is_some();
    head(&path, spec.failure_policy.as_deref(), spec.param_kind.as_ref(), errors);
    constraints(&path, spec.match_constraints.as_ref(), errors);
    if let Some(constraints) = &spec.match_constraints {
        rules::mutable_operations(&path.child("matchConstraints"), constraints, errors);
    }
    let same = |old: &MutatingAdmissionPolicy| {
        old.spec.param_kind == spec.param_kind && old.spec.match_conditions == spec.match_conditions
    };
    if !change.old.is_some_and(same) {
        super::match_conditions(&path.child("matchConditions"), &spec.match_conditions, has_params, errors);
    }
    let scope = Scope { params: has_params, authorizer: true, patches: false };
    let known = variables(&path.child("variables"), &spec.variables, scope, errors);
    if spec.mutations.is_empty() {
        errors.push(FieldError::required(path.child("mutations"), "mutations must contain at least one item"));
    }
    let full = environment(Scope { patches: true, ..scope }, Some(&known));
    for (i, one) in spec.mutations.iter().enumerate() {
        mutation(&path.child("mutations").index(i), one, &full, errors);
    }
    checks::one_of(&path.child("reinvocationPolicy"), &spec.reinvocation_policy, &REINVOCATION_POLICIES, errors);
}

fn mutation(path: &Path<'_>, one: &Mutation, full: &Environment, errors: &mut Errors) {
    let given = one.patch_type.as_str();
    let (patch, apply) = (path.child("jsonPatch"), path.child("applyConfiguration"));
    match given {
        "" => errors.push(FieldError::required(path.child("patchType"), "")),
        "JSONPatch" => {
            match &one.json_patch {
                None => errors.push(FieldError::required(patch, "must be specified when patchType is JSONPatch")),
                Some(p) => mutation_text(&patch, &p.expression, (full, expressions::json_patch_type()), errors),
            }
            if one.apply_configuration.is_some() {
                let why = "must not be specified when patchType is JSONPatch";
                errors.push(FieldError::invalid(apply, "{applyConfiguration}", why));
            }
        }
        "ApplyConfiguration" => {
            match &one.apply_configuration {
                None => {
                    let why = "must be specified when patchType is ApplyConfiguration";
                    errors.push(FieldError::required(apply, why));
                }
                Some(a) => mutation_text(&apply, &a.expression, (full, expressions::object_type()), errors),
            }
            if one.json_patch.is_some() {
                let why = "must not be specified when patchType is ApplyConfiguration";
                errors.push(FieldError::invalid(patch, "{jsonPatch}", why));
            }
        }
        other => errors.push(FieldError::not_supported(path.child("patchType"), other, &PATCH_TYPES)),
    }
}

fn mutation_text(path: &Path<'_>, text: &str, (full, result): (&Environment, Type), errors: &mut Errors) {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        errors.push(FieldError::required(path.child("expression"), ""));
    } else if let Err(why) = compile(trimmed, full, &[result]) {
        errors.push(super::unread(path.child("expression"), trimmed, why));
    }
}

pub(in crate::validation) fn validating_binding(
    change: &Change<'_, ValidatingAdmissionPolicyBinding>,
    errors: &mut Errors,
) {
    let spec = &change.new.spec;
    let path = Path::root("spec");
    let parts = (spec.policy_name.as_str(), spec.param_ref.as_ref(), spec.match_resources.as_ref());
    binding(&path, parts, errors);
    actions(&path.child("validationActions"), &spec.validation_actions, errors);
}

pub(in crate::validation) fn mutating_binding(
    change: &Change<'_, MutatingAdmissionPolicyBinding>,
    errors: &mut Errors,
) {
    let spec = &change.new.spec;
    let path = Path::root("spec");
    let parts = (spec.policy_name.as_str(), spec.param_ref.as_ref(), spec.match_resources.as_ref());
    binding(&path, parts, errors);
    if let Some(resources) = &spec.match_resources {
        rules::mutable_operations(&path.child("matchResources"), resources, errors);
    }
}

fn binding(
    path: &Path<'_>,
    (policy, reference, resources): (&str, Option<&ParamRef>, Option<&MatchResources>),
    errors: &mut Errors,
) {
    if policy.is_empty() {
        errors.push(FieldError::required(path.child("policyName"), ""));
    } else {
        checks::text(&path.child("policyName"), policy, names::dns1123_subdomain(policy), errors);
    }
    if let Some(reference) = reference {
        param_ref(&path.child("paramRef"), reference, errors);
    }
    if let Some(resources) = resources {
        rules::match_resources(&path.child("matchResources"), resources, errors);
    }
}

fn param_ref(path: &Path<'_>, reference: &ParamRef, errors: &mut Errors) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let name = reference.name.as_str();
    if !name.is_empty() {
        checks::text(&path.child("name"), name, names::path_segment(name), errors);
        if reference.selector.is_some() {
            errors.push(FieldError::forbidden(path.child("name"), BOTH));
        }
    }
    if let Some(selector) = &reference.selector {
        labels::selector(&path.child("selector"), selector, SelectorOptions::default(), errors);
        if !name.is_empty() {
            errors.push(FieldError::forbidden(path.child("selector"), BOTH));
        }
    } else if name.is_empty() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let action = reference.parameter_not_found_action.as_deref().unwrap_or_default();
    checks::one_of(&path.child("parameterNotFoundAction"), action, &NOT_FOUND_ACTIONS, errors);
}

fn actions(path: &Path<'_>, actions: &[String], errors: &mut Errors) {
    for (i, action) in actions.iter().enumerate() {
        super::word(&path.index(i), action, &ACTIONS, errors);
        if actions[..i].contains(action) {
            errors.push(FieldError::duplicate(path.index(i), action));
        }
    }
    let has = |wanted: &str| actions.iter().any(|a| a == wanted);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, json!(actions), why));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
}
