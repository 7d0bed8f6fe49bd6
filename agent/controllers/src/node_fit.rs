//! Whether a pod may be on a node, as far as that is the node's own matter: name, labels, taints.

use std::collections::BTreeMap;

use api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::tolerations::tolerates;

const NAME_FIELD: &str = "metadata.name";

/// A node's answer to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// A pod may come.
    pub(crate) run: bool,
    /// A pod that is there may stay.
    pub(crate) stay: bool,
}

/// Asks a node.
pub(crate) fn fit(pod: &PodSpec, node: &Node) -> Fit {
    let name = &node.metadata.name;
    if (!pod.node_name.is_empty() && pod.node_name != *name) || !matches_affinity(pod, node) {
        return Fit { run: false, stay: false };
    }
    let refused = |effects: &[&str]| {
        let mut taints = node.spec.taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
        taints.any(|taint| !pod.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    };
    Fit { run: !refused(&["NoSchedule", "NoExecute"]), stay: !refused(&["NoExecute"]) }
}

fn matches_affinity(pod: &PodSpec, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    if !pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    match affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) {
        None => true,
        Some(required) => required.node_selector_terms.iter().any(|term| matches_term(term, node)),
    }
}

fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let fields = BTreeMap::from([(NAME_FIELD.to_owned(), node.metadata.name.clone())]);
    term.match_expressions.iter().all(|r| matches_requirement(r, &node.metadata.labels))
        && term.match_fields.iter().all(|r| matches_requirement(r, &fields))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, values: &BTreeMap<String, String>) -> bool {
    let value = values.get(&requirement.key);
    let listed = || value.is_some_and(|v| requirement.values.contains(v));
    let numbers = || {
        let limit = requirement.values.first()?.parse::<i64>().ok()?;
        Some((value?.parse::<i64>().ok()?, limit))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers().is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

/// The node that a pod's affinity names by its field, where it does.
pub(crate) fn named_node(pod: &PodSpec) -> Option<&str> {
    if !pod.node_name.is_empty() {
        return Some(&pod.node_name);
    }
    let required = pod.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| &term.match_fields);
    let field = fields.find(|r| r.key == NAME_FIELD && r.operator == "In" && r.values.len() == 1)?;
    field.values.first().map(String::as_str)
}

/// Ties a pod to a node by its affinity, in place of what was required before.
pub(crate) fn tie(pod: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: vec![node.to_owned()],
    };
    let term = NodeSelectorTerm { match_fields: vec![field], ..NodeSelectorTerm::default() };
    let affinity = pod.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(api::core::v1::NodeSelector { node_selector_terms: vec![term] });
}

#[cfg(test)]
mod tests {
    use api::core::v1::{Taint, Toleration};

    use super::*;

    fn node(name: &str, taints: &[&str]) -> Node {
        let mut node = Node::default();
        node.metadata.name = name.to_owned();
        node.metadata.labels.insert("zone".to_owned(), "a".to_owned());
        node.spec.taints = taints
            .iter()
            .map(|e| Taint { key: "k".to_owned(), effect: (*e).to_owned(), ..Default::default() })
            .collect();
        node
    }

    #[test]
    fn labels_and_taints_decide() {
        let mut pod = PodSpec::default();
        assert_eq!(fit(&pod, &node("n", &[])), Fit { run: true, stay: true });
        assert_eq!(fit(&pod, &node("n", &["NoSchedule"])), Fit { run: false, stay: true });
        assert_eq!(fit(&pod, &node("n", &["NoExecute"])), Fit { run: false, stay: false });
        assert_eq!(fit(&pod, &node("n", &["PreferNoSchedule"])), Fit { run: true, stay: true });
        pod.tolerations = vec![Toleration { operator: "Exists".to_owned(), ..Default::default() }];
        assert_eq!(fit(&pod, &node("n", &["NoExecute"])), Fit { run: true, stay: true });
        pod.node_selector.insert("zone".to_owned(), "b".to_owned());
        assert_eq!(fit(&pod, &node("n", &[])), Fit { run: false, stay: false });
    }

    #[test]
    fn a_tied_pod_fits_its_node_only() {
        let mut pod = PodSpec::default();
        tie(&mut pod, "n");
        assert_eq!(named_node(&pod), Some("n"));
        assert!(fit(&pod, &node("n", &[])).run);
        assert!(!fit(&pod, &node("m", &[])).run);
    }
}
