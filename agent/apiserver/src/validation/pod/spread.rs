//! How Pods spread over topologies.

use api::core::v1::{PodSpec, TopologySpreadConstraint};

use super::{Options, affinity};
use crate::status::FieldError;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Errors, Path, checks, names};

/// Constraints of how Pods spread.
pub(super) fn constraints(path: &Path<'_>, list: &[TopologySpreadConstraint], options: Options, errors: &mut Errors) {
    for (i, constraint) in list.iter().enumerate() {
        let path = path.index(i);
        basics(&path, constraint, errors);
        let same = |other: &&TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if list.iter().skip(i + 1).any(|other| same(&other)) {
            let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(FieldError::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), pair));
        }
        policies(&path, constraint, errors);
        if options.invalid_spread_keys {
            only_own_keys(&path.child("matchLabelKeys"), constraint, errors);
        } else {
            let keys = (constraint.match_label_keys.as_slice(), [].as_slice());
            affinity::label_keys(&path, keys, constraint.label_selector.as_ref(), errors);
        }
        if let Some(selector) = constraint.label_selector.as_ref().filter(|_| !options.invalid_spread_selector) {
            labels::selector(&path.child("labelSelector"), selector, SelectorOptions::default(), errors);
        }
    }
}

fn basics(path: &Path<'_>, constraint: &TopologySpreadConstraint, errors: &mut Errors) {
    checks::positive(&path.child("maxSkew"), constraint.max_skew, errors);
    if constraint.topology_key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    checks::supported(&path.child("whenUnsatisfiable"), &constraint.when_unsatisfiable, &actions, errors);
}

fn policies(path: &Path<'_>, constraint: &TopologySpreadConstraint, errors: &mut Errors) {
    if let Some(domains) = constraint.min_domains {
        let path = path.child("minDomains");
        checks::positive(&path, domains, errors);
        let action = constraint.when_unsatisfiable.as_str();
        if action != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(FieldError::invalid(path, domains, why));
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (name, policy) in policies {
        if let Some(policy) = policy {
            checks::supported(&path.child(name), policy, &["Honor", "Ignore"], errors);
        }
    }
}

/// As the keys were looked at when they were not yet made expressions of the selector.
fn only_own_keys(path: &Path<'_>, constraint: &TopologySpreadConstraint, errors: &mut Errors) {
    let keys = &constraint.match_label_keys;
    let selector = constraint.label_selector.as_ref();
    if !keys.is_empty() && selector.is_none() {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    for (i, key) in keys.iter().enumerate() {
        checks::text(&path.index(i), key, names::qualified(key), errors);
        let selected = selector
            .is_some_and(|s| s.match_labels.contains_key(key) || s.match_expressions.iter().any(|e| e.key == *key));
        if selected {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(path.index(i), key, why));
        }
    }
}

/// Whether a selector is not valid.
pub(super) fn has_invalid_selector(spec: &PodSpec) -> bool {
    let mut errors = Errors::new();
    for selector in spec.topology_spread_constraints.iter().filter_map(|c| c.label_selector.as_ref()) {
        labels::selector(&Path::root(""), selector, SelectorOptions::default(), &mut errors);
    }
    !errors.is_empty()
}

/// Whether keys are not valid.
pub(super) fn has_invalid_keys(spec: &PodSpec) -> bool {
    let mut errors = Errors::new();
    for constraint in &spec.topology_spread_constraints {
        let keys = (constraint.match_label_keys.as_slice(), [].as_slice());
        affinity::label_keys(&Path::root(""), keys, constraint.label_selector.as_ref(), &mut errors);
    }
    !errors.is_empty()
}
