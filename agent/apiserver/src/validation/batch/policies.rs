//! When a Job failed, succeeded, and replaces a Pod.

use api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    SuccessPolicyRule,
};

use super::indexes;
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names, shown};

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_INDEXES_LEN: usize = 64 << 10;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// A text that has to be one of some, which are told if there is none.
fn one_of(path: &Path<'_>, text: &str, allowed: &[&str], errors: &mut Errors) {
    if text.is_empty() {
        let list: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        errors.push(FieldError::required(path, format!("valid values: [{}]", list.join(" "))));
    } else {
        checks::supported(path, text, allowed, errors);
    }
}

/// Which failures of Pods count.
pub(super) fn failure(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let path = path.child("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(path, policy.rules.len(), MAX_RULES as u64));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(&path.index(i), rule, spec, errors);
    }
}

fn failure_rule(path: &Path<'_>, rule: &PodFailurePolicyRule, spec: &JobSpec, errors: &mut Errors) {
    let at = path.child("action");
    if rule.action != "FailIndex" {
        one_of(&at, &rule.action, &ACTIONS, errors);
    } else if spec.backoff_limit_per_index.is_none() {
        let why = "requires the backoffLimitPerIndex to be set";
        errors.push(FieldError::invalid(at, shown::word(&rule.action), why));
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(&path.child("onExitCodes"), codes, spec, errors);
    }
    conditions(&path.child("onPodConditions"), &rule.on_pod_conditions, errors);
    let why = match (&rule.on_exit_codes, rule.on_pod_conditions.is_empty()) {
        (Some(_), false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid_omitted(path, why));
}

fn exit_codes(path: &Path<'_>, codes: &PodFailurePolicyOnExitCodesRequirement, spec: &JobSpec, errors: &mut Errors) {
    one_of(&path.child("operator"), &codes.operator, &["In", "NotIn"], errors);
    let pod = &spec.template.spec;
    let known = |name: &&String| pod.containers.iter().chain(&pod.init_containers).any(|c| c.name == **name);
    if let Some(name) = codes.container_name.as_ref().filter(|name| !known(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(path.child("containerName"), name, why));
    }
    let (path, values) = (path.child("values"), &codes.values);
    let all = || {
        if values.is_empty() { crate::status::Shown::spelled("null") } else { serde_json::json!(values).into() }
    };
    if values.is_empty() {
        errors.push(FieldError::invalid(path, all(), "at least one value is required"));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(FieldError::too_many(path, values.len(), MAX_EXIT_CODES as u64));
    }
    for (i, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            errors.push(FieldError::invalid(path.index(i), *value, "must not be 0 for the In operator"));
        }
        if values.iter().take(i).any(|earlier| earlier == value) {
            errors.push(FieldError::duplicate(path.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(path, all(), "must be ordered"));
    }
}

fn conditions(path: &Path<'_>, patterns: &[PodFailurePolicyOnPodConditionsPattern], errors: &mut Errors) {
    if patterns.len() > MAX_PATTERNS {
        errors.push(FieldError::too_many(path, patterns.len(), MAX_PATTERNS as u64));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let path = path.index(i);
        checks::text(&path.child("type"), &pattern.r#type, names::qualified(&pattern.r#type), errors);
        one_of(&path.child("status"), &pattern.status, &STATUSES, errors);
    }
}

/// When enough indexes succeeded.
pub(super) fn success(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let Some(policy) = &spec.success_policy else { return };
    if spec.completion_mode.as_deref() != Some("Indexed") {
        let shown = shown::structure("k8s.io.api.batch.v1.SuccessPolicy", policy);
        errors.push(FieldError::invalid(path, shown, "requires indexed completion mode"));
        return;
    }
    let path = path.child("rules");
    if policy.rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path, why));
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(path, policy.rules.len(), MAX_RULES as u64));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(&path.index(i), rule, spec.completions.unwrap_or(0), errors);
    }
}

fn success_rule(path: &Path<'_>, rule: &SuccessPolicyRule, completions: i32, errors: &mut Errors) {
    let (count, list) = (rule.succeeded_count, rule.succeeded_indexes.as_deref());
    if count.is_none() && list.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, why));
    }
    let mut total = 0;
    if let Some(list) = list {
        let at = path.child("succeededIndexes");
        if list.len() > MAX_INDEXES_LEN {
            errors.push(FieldError::too_long(at, MAX_INDEXES_LEN));
        }
        match indexes::count(list, completions) {
            Ok(count) => total = count,
            Err(why) => {
                errors.push(FieldError::invalid(at, list, format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    let Some(count) = count else { return };
    let at = path.child("succeededCount");
    checks::non_negative(&at, count, errors);
    if count > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(at, count, why));
    }
    if list.is_some() && count > total {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(at, count, why));
    }
}

/// When a Pod is replaced.
pub(super) fn replacement(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    if let Some(policy) = &spec.pod_replacement_policy {
        let allowed: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        checks::supported(path, policy, allowed, errors);
    }
}
