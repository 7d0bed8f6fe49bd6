//! What one rule allows; pure.

use api::rbac::v1::PolicyRule;

use crate::auth::authz::Attributes;

/// Stands for every verb, group, resource or path.
pub(super) const ALL: &str = "*";

/// Whether one of the rules allows a request.
#[must_use]
pub fn rules_allow(rules: &[PolicyRule], attributes: &Attributes<'_>) -> bool {
    rules.iter().any(|rule| rule_allows(rule, attributes))
}

pub(super) fn rule_allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !names(&rule.verbs, attributes.verb) {
        return false;
    }
    if !attributes.is_resource() {
        return rule.non_resource_urls.iter().any(|pattern| path_matches(pattern, attributes.path));
    }
    names(&rule.api_groups, attributes.group)
        && resource_matches(&rule.resources, attributes.resource, attributes.subresource)
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|name| name == attributes.name))
}

pub(super) fn names(list: &[String], value: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == value)
}

/// `pods`, `pods/log`, `*/log` or `*`.
pub(super) fn resource_matches(list: &[String], resource: &str, subresource: &str) -> bool {
    list.iter().any(|entry| match entry.split_once('/') {
        None => entry == ALL || (subresource.is_empty() && entry == resource),
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == ALL || of == resource),
    })
}

/// A path, or the beginning of one with a star after it.
pub(super) fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning.trim_end_matches('*')),
        None => pattern == path,
    }
}
