//! Where a Pod wants to run, and next to which others.

use api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    WeightedPodAffinityTerm,
};
use api::meta::v1::LabelSelector;

use super::Options;
use crate::status::FieldError;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Errors, Path, checks, names, shown};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const BAD_OPERATOR: &str = "not a valid selector operator";

/// Affinities to nodes and Pods.
pub(super) fn affinity(path: &Path<'_>, affinity: &Affinity, options: Options, errors: &mut Errors) {
    if let Some(nodes) = &affinity.node_affinity {
        node_affinity(&path.child("nodeAffinity"), nodes, options, errors);
    }
    for (name, required, preferred) in pod_affinities(affinity) {
        let path = path.child(name);
        for (i, term) in required.iter().enumerate() {
            pod_term(&path.child(REQUIRED).index(i), term, options, errors);
        }
        for (i, weighted) in preferred.iter().enumerate() {
            let path = path.child(PREFERRED);
            let path = path.index(i);
            weight(&path, weighted.weight, errors);
            pod_term(&path.child("podAffinityTerm"), &weighted.pod_affinity_term, options, errors);
        }
    }
}

pub(super) type PodAffinities<'a> = (&'static str, &'a [PodAffinityTerm], &'a [WeightedPodAffinityTerm]);

/// To Pods and away from them, which is said alike.
pub(super) fn pod_affinities(affinity: &Affinity) -> impl Iterator<Item = PodAffinities<'_>> {
    let to = affinity.pod_affinity.as_ref().map(|a| {
        let required = a.required_during_scheduling_ignored_during_execution.as_slice();
        ("podAffinity", required, a.preferred_during_scheduling_ignored_during_execution.as_slice())
    });
    let from = affinity.pod_anti_affinity.as_ref().map(|a| {
        let required = a.required_during_scheduling_ignored_during_execution.as_slice();
        ("podAntiAffinity", required, a.preferred_during_scheduling_ignored_during_execution.as_slice())
    });
    to.into_iter().chain(from)
}

fn weight(path: &Path<'_>, weight: i32, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_affinity(path: &Path<'_>, affinity: &NodeAffinity, options: Options, errors: &mut Errors) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(&path.child(REQUIRED), required, options.invalid_node_values, errors);
    }
    for (i, term) in affinity.preferred_during_scheduling_ignored_during_execution.iter().enumerate() {
        let path = path.child(PREFERRED);
        let path = path.index(i);
        weight(&path, term.weight, errors);
        // What is only preferred never had to have values of labels.
        node_term(&path.child("preference"), &term.preference, true, errors);
    }
}

/// A selector of nodes.
pub(in crate::validation) fn node_selector(
    path: &Path<'_>,
    selector: &NodeSelector,
    any_values: bool,
    errors: &mut Errors,
) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(&path.index(i), term, any_values, errors);
    }
}

fn node_term(path: &Path<'_>, term: &NodeSelectorTerm, any_values: bool, errors: &mut Errors) {
    for (i, requirement) in term.match_expressions.iter().enumerate() {
        node_label(&path.child("matchExpressions").index(i), requirement, any_values, errors);
    }
    for (i, requirement) in term.match_fields.iter().enumerate() {
        node_field(&path.child("matchFields").index(i), requirement, errors);
    }
}

fn node_label(path: &Path<'_>, requirement: &NodeSelectorRequirement, any_values: bool, errors: &mut Errors) {
    let NodeSelectorRequirement { key, operator, values } = requirement;
    let at = path.child("values");
    match operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(path.child("operator"), shown::word(other), BAD_OPERATOR)),
    }
    checks::text(&path.child("key"), key, names::qualified(key), errors);
    if !any_values {
        for (i, value) in values.iter().enumerate() {
            checks::text(&at.index(i), value, names::label_value(value), errors);
        }
    }
}

fn node_field(path: &Path<'_>, requirement: &NodeSelectorRequirement, errors: &mut Errors) {
    let NodeSelectorRequirement { key, operator, values } = requirement;
    match operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(path.child("values"), why));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(path.child("operator"), shown::word(other), BAD_OPERATOR)),
    }
    if key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            checks::text(&path.child("values").index(i), value, names::dns1123_subdomain(value), errors);
        }
    } else {
        errors.push(FieldError::invalid(path.child("key"), key, "not a valid field selector key"));
    }
}

fn pod_term(path: &Path<'_>, term: &PodAffinityTerm, options: Options, errors: &mut Errors) {
    term_selectors(path, term, options.invalid_selector_values, errors);
    for name in &term.namespaces {
        checks::text(&path.child("namespace"), name, names::dns1123_label(name), errors);
    }
    label_keys(path, (&term.match_label_keys, &term.mismatch_label_keys), term.label_selector.as_ref(), errors);
    let at = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(at, "can not be empty"));
    }
    checks::text(&at, &term.topology_key, names::qualified(&term.topology_key), errors);
}

fn term_selectors(path: &Path<'_>, term: &PodAffinityTerm, any_values: bool, errors: &mut Errors) {
    let options = SelectorOptions { allow_invalid_values: any_values, ..SelectorOptions::default() };
    let selectors = [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)];
    for (name, selector) in selectors {
        if let Some(selector) = selector {
            labels::selector(&path.child(name), selector, options, errors);
        }
    }
}

/// Keys whose values come from the Pod itself: names of labels, and not those that the selector has by itself.
pub(super) fn label_keys(
    path: &Path<'_>,
    (matching, mismatching): (&[String], &[String]),
    selector: Option<&LabelSelector>,
    errors: &mut Errors,
) {
    for (name, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let path = path.child(name);
        if !keys.is_empty() && selector.is_none() {
            errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            checks::text(&path.index(i), key, names::qualified(key), errors);
        }
    }
    if let Some(selector) = selector {
        // The keys were made expressions of the selector before, so that each is there once.
        for (i, expression) in selector.match_expressions.iter().enumerate() {
            let key = &expression.key;
            let before = selector.match_labels.contains_key(key)
                || selector.match_expressions.iter().take(i).any(|e| e.key == *key);
            if before && let Some(index) = matching.iter().rposition(|k| k == key) {
                let why = "exists in both matchLabelKeys and labelSelector";
                errors.push(FieldError::invalid(path.index(index), key, why));
            }
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(path.child("matchLabelKeys").index(i), key, why));
    }
}

/// Whether an affinity to Pods has a selector that is not valid.
pub(super) fn has_invalid_selector(spec: &PodSpec) -> bool {
    let mut errors = Errors::new();
    for (_, required, preferred) in spec.affinity.iter().flat_map(pod_affinities) {
        for term in required.iter().chain(preferred.iter().map(|w| &w.pod_affinity_term)) {
            term_selectors(&Path::root(""), term, false, &mut errors);
        }
    }
    !errors.is_empty()
}

/// Whether required nodes have a value that no label can have.
pub(super) fn has_invalid_node_values(spec: &PodSpec) -> bool {
    let nodes = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = nodes.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.into_iter().flat_map(|r| &r.node_selector_terms);
    let mut values = terms.flat_map(|t| &t.match_expressions).flat_map(|e| &e.values);
    values.any(|value| !names::label_value(value).is_empty())
}
