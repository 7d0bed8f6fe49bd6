//! Which requests a webhook or a policy is for.

use api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations, RuleWithOperations};
use serde_json::json;

use super::MATCH_POLICIES;
use crate::status::FieldError;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Errors, Path, checks, names};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

fn is_mixed(list: &[String]) -> bool {
    list.len() > 1 && list.iter().any(|item| item == "*")
}

pub(super) fn rule(path: &Path<'_>, rule: &RuleWithOperations, errors: &mut Errors) {
    let operations = path.child("operations");
    if rule.operations.is_empty() {
        errors.push(FieldError::required(operations, ""));
    }
    if is_mixed(&rule.operations) {
        let why = "if '*' is present, must not specify other operations";
        errors.push(FieldError::invalid(operations, json!(rule.operations), why));
    }
    for (i, operation) in rule.operations.iter().enumerate() {
        super::word(&operations.index(i), operation, &OPERATIONS, errors);
    }
    let rule = &rule.rule;
    let groups = path.child("apiGroups");
    if rule.api_groups.is_empty() {
        errors.push(FieldError::required(groups, ""));
    }
    if is_mixed(&rule.api_groups) {
        let why = "if '*' is present, must not specify other API groups";
        errors.push(FieldError::invalid(groups, json!(rule.api_groups), why));
    }
    let versions = path.child("apiVersions");
    if rule.api_versions.is_empty() {
        errors.push(FieldError::required(versions, ""));
    }
    if is_mixed(&rule.api_versions) {
        let why = "if '*' is present, must not specify other API versions";
        errors.push(FieldError::invalid(versions, json!(rule.api_versions), why));
    }
    for (i, _) in rule.api_versions.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        errors.push(FieldError::required(versions.index(i), ""));
    }
    resources(&path.child("resources"), &rule.resources, errors);
    if let Some(scope) = &rule.scope {
        super::word(&path.child("scope"), scope, &SCOPES, errors);
    }
}

fn resources(path: &Path<'_>, resources: &[String], errors: &mut Errors) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut all_below, mut all_of): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut is_last_plain = false;
    for (i, resource) in resources.iter().enumerate() {
        let item = path.index(i);
        if resource.is_empty() {
            errors.push(FieldError::required(item, ""));
            continue;
        }
        let Some((plural, below)) = resource.split_once('/') else {
            is_last_plain = resource != "*";
            continue;
        };
        if all_below.contains(&plural) {
            let why = format!("if '{plural}/*' is present, must not specify {resource}");
            errors.push(FieldError::invalid(item, resource, why));
        }
        if all_of.contains(&below) {
            let why = format!("if '*/{below}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(item, resource, why));
        }
        if below == "*" {
            all_below.push(plural);
        }
        if plural == "*" {
            all_of.push(below);
        }
    }
    let has = |wanted: &str| resources.iter().any(|r| r == wanted);
    if resources.len() > 1 && has("*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, json!(resources), why));
    }
    if has("*") && is_last_plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, json!(resources), why));
    }
}

fn named_rule(path: &Path<'_>, named: &NamedRuleWithOperations, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    let names_path = path.child("resourceNames");
    for (i, name) in named.resource_names.iter().enumerate() {
        let item = names_path.index(i);
        checks::text(&item, name, names::path_segment(name), errors);
        if seen.contains(&name.as_str()) {
            errors.push(FieldError::duplicate(item, name));
        }
        seen.push(name);
    }
    rule(path, &named.rule_with_operations, errors);
}

pub(super) fn match_resources(path: &Path<'_>, resources: &MatchResources, errors: &mut Errors) {
    match &resources.match_policy {
        None => errors.push(FieldError::required(path.child("matchPolicy"), "")),
        Some(policy) => super::word(&path.child("matchPolicy"), policy, &MATCH_POLICIES, errors),
    }
    for (name, selector) in
        [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)]
    {
        match selector {
            None => errors.push(FieldError::required(path.child(name), "")),
            Some(selector) => labels::selector(&path.child(name), selector, SelectorOptions::default(), errors),
        }
    }
    for (i, rule) in resources.resource_rules.iter().enumerate() {
        named_rule(&path.child("resourceRules").index(i), rule, errors);
    }
    for (i, rule) in resources.exclude_resource_rules.iter().enumerate() {
        named_rule(&path.child("excludeResourceRules").index(i), rule, errors);
    }
}

/// What is deleted cannot be changed.
pub(super) fn mutable_operations(path: &Path<'_>, resources: &MatchResources, errors: &mut Errors) {
    let rules = path.child("resourceRules");
    for rule in &resources.resource_rules {
        for operation in &rule.rule_with_operations.operations {
            super::word(&rules.child("operations"), operation, &MUTATING_OPERATIONS, errors);
        }
    }
}
