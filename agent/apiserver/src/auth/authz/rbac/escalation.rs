//! Nobody grants what they do not have; pure.

use std::collections::BTreeSet;

use api::rbac::v1::PolicyRule;

use super::rules::{ALL, names, path_matches};

/// The part of `wanted` that `held` does not cover, as texts in upstream's form, without duplicates and in order.
#[must_use]
pub fn missing_rights(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<String> {
    let singles = wanted.iter().flat_map(split);
    let mut missing: Vec<PolicyRule> = Vec::new();
    for single in singles.filter(|single| !held.iter().any(|rule| covers(rule, single))) {
        // Paths are told one by one, rights to resources together.
        let same = missing.iter_mut().find(|known| {
            !single.resources.is_empty() && PolicyRule { verbs: single.verbs.clone(), ..(*known).clone() } == single
        });
        match same {
            Some(known) => known.verbs.extend(single.verbs),
            None => missing.push(single),
        }
    }
    missing.iter().map(describe).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A rule as rules of one verb and one resource or path each.
fn split(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut singles = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let single = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    singles.push(single.clone());
                }
                let named = |name| PolicyRule { resource_names: one(name), ..single.clone() };
                singles.extend(rule.resource_names.iter().map(named));
            }
        }
    }
    for path in &rule.non_resource_urls {
        let of = |verb| PolicyRule { verbs: one(verb), non_resource_urls: one(path), ..PolicyRule::default() };
        singles.extend(rule.verbs.iter().map(of));
    }
    singles
}

fn covers(held: &PolicyRule, single: &PolicyRule) -> bool {
    let all_named = |held: &[String], wanted: &[String]| wanted.iter().all(|value| names(held, value));
    all_named(&held.verbs, &single.verbs)
        && all_named(&held.api_groups, &single.api_groups)
        && single.resources.iter().all(|resource| covers_resource(&held.resources, resource))
        && (held.resource_names.is_empty()
            || (!single.resource_names.is_empty()
                && single.resource_names.iter().all(|name| held.resource_names.contains(name))))
        && single.non_resource_urls.iter().all(|path| covers_path(&held.non_resource_urls, path))
}

fn covers_resource(held: &[String], wanted: &str) -> bool {
    let any_of = wanted.split_once('/').map(|(_, subresource)| format!("{ALL}/{subresource}"));
    held.iter().any(|entry| entry == ALL || entry == wanted || Some(entry) == any_of.as_ref())
}

fn covers_path(held: &[String], wanted: &str) -> bool {
    held.iter().any(|pattern| pattern == wanted || path_matches(pattern, wanted))
}

fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let quoted = |values: &[String]| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" ");
    let parts = parts.iter().filter(|(_, values)| !values.is_empty());
    let parts: Vec<_> = parts.map(|(name, values)| format!("{name}:[{}]", quoted(values))).collect();
    format!("{{{}}}", parts.join(", "))
}
