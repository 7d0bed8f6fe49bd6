//! Requirements on nodes and on other pods, parsed once.

use std::collections::{BTreeMap, HashMap};

use api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint, Toleration};
use api::labels::Selector;
use api::meta::v1::LabelSelector;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;
/// Labels of every namespace.
pub(crate) type NamespaceLabels = HashMap<String, Labels>;

/// A selector in object form; one that cannot be read selects nothing.
pub(crate) fn selector(object: Option<&LabelSelector>) -> Selector {
    Selector::from_object(object).unwrap_or_else(|_invalid| Selector::nothing())
}

/// Whether a node is selected by one of the terms. No terms select nothing.
pub(crate) fn any_term_matches(terms: &[NodeSelectorTerm], name: &str, labels: &Labels) -> bool {
    terms.iter().any(|term| term_matches(term, name, labels))
}

/// Whether a node fulfils all of a term. An empty term selects nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let by_label = |requirement: &NodeSelectorRequirement| {
        requirement_holds(requirement, labels.get(&requirement.key).map(String::as_str))
    };
    let by_field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && requirement_holds(requirement, Some(name))
    };
    term.match_expressions.iter().all(by_label) && term.match_fields.iter().all(by_field)
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || value.is_some_and(|value| requirement.values.iter().any(|wanted| wanted == value));
    let compared = || -> Option<std::cmp::Ordering> {
        let [limit] = requirement.values.as_slice() else { return None };
        Some(value?.parse::<i64>().ok()?.cmp(&limit.parse::<i64>().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

/// Whether one of the tolerations covers the taint.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
        let key = toleration.key.is_empty() || toleration.key == taint.key;
        let value = match toleration.operator.as_str() {
            "" | "Equal" => !toleration.key.is_empty() && toleration.value == taint.value,
            "Exists" => true,
            _ => false,
        };
        effect && key && value
    })
}

/// Whether the taint keeps pods away, rather than only being disliked.
pub(crate) fn is_hard(taint: &Taint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == "NoExecute"
}

/// A requirement on pods in the same topology domain.
#[derive(Clone, Debug)]
pub(crate) struct PodTerm {
    /// The node label whose value is the domain.
    pub(crate) topology_key: String,
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

impl PodTerm {
    /// The term as meant by a pod of `namespace` with `labels`.
    pub(crate) fn of(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let selected = with_label_keys(term.label_selector.as_ref(), &term.match_label_keys, labels);
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector(selected.as_ref()),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|object| selector(Some(object))),
        }
    }

    /// Whether a pod of `namespace` with `labels` is meant.
    pub(crate) fn matches(&self, namespace: &str, labels: &Labels, all: &NamespaceLabels) -> bool {
        let in_namespace = || {
            self.namespaces.iter().any(|name| name == namespace)
                || self.namespace_selector.as_ref().is_some_and(|selector| match all.get(namespace) {
                    Some(labels) => selector.matches(labels),
                    None => selector.is_empty(),
                })
        };
        self.selector.matches(labels) && in_namespace()
    }
}

/// The selector with the pod's own values of `keys` required as well.
pub(crate) fn with_label_keys(
    object: Option<&LabelSelector>,
    keys: &[String],
    labels: &Labels,
) -> Option<LabelSelector> {
    let mut object = object?.clone();
    for key in keys {
        if let Some(value) = labels.get(key) {
            object.match_labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        NodeSelectorRequirement { key: "k".to_owned(), operator: operator.to_owned(), values }
    }

    #[test]
    fn node_requirements_by_operator() {
        for (operator, values, value, holds) in [
            ("In", &["a", "b"][..], Some("b"), true),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("DoesNotExist", &[], Some("x"), false),
            ("Gt", &["5"], Some("6"), true),
            ("Gt", &["5"], Some("5"), false),
            ("Lt", &["5"], Some("-1"), true),
            ("Lt", &["5"], Some("x"), false),
            ("Sideways", &["5"], Some("5"), false),
        ] {
            assert_eq!(
                requirement_holds(&requirement(operator, values), value),
                holds,
                "{operator} {values:?} {value:?}"
            );
        }
    }

    #[test]
    fn tolerations_cover_taints() {
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: key.to_owned(),
            operator: operator.to_owned(),
            value: value.to_owned(),
            effect: effect.to_owned(),
            toleration_seconds: None,
        };
        let taint =
            Taint { key: "k".to_owned(), value: "v".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        for (candidate, covers) in [
            (toleration("", "Exists", "", ""), true),
            (toleration("k", "Exists", "", "NoSchedule"), true),
            (toleration("k", "Equal", "v", ""), true),
            (toleration("k", "", "v", "NoExecute"), false),
            (toleration("k", "", "w", ""), false),
            (toleration("", "Equal", "v", ""), false),
        ] {
            assert_eq!(tolerates(std::slice::from_ref(&candidate), &taint), covers, "{candidate:?}");
        }
    }
}
