//! `clusterrole-aggregation-controller`: roles that are made of other roles.

use std::sync::Arc;

use api::labels::Selector;
use api::rbac::v1::{ClusterRole, PolicyRule};
use reconcile::{Action, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, subject};
use crate::error::{During, Error};

pub(crate) struct Aggregation {
    context: Context,
}

impl Controller for Aggregation {
    const NAME: &'static str = "clusterrole-aggregation-controller";
    const NEEDS: &'static [Need] = &[need::cluster_roles];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        let (queue, roles) = (queue.clone(), self.context.caches.cluster_roles.clone());
        reflectors.cluster_roles.handle(move |event| {
            // Any role can be a part of any other.
            if subject(event).is_some() {
                let aggregated = roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
                aggregated.for_each(|role| queue.add(Key::of(&role.metadata)));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(role) = self.context.caches.cluster_roles.get("", &key.name) else { return Ok(Action::Done) };
        let Some(rules) = plan(&role, &self.context.caches.cluster_roles.list())? else { return Ok(Action::Done) };
        let changed = ClusterRole { rules, ..(*role).clone() };
        self.context.client.update(&changed).await.during("aggregating a cluster role")?;
        Ok(Action::Done)
    }
}

/// The rules of all parts in the order of the parts' names, where they are not the role's already.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Result<Option<Vec<PolicyRule>>, Error> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for object in &aggregation.cluster_role_selectors {
        let selector = Selector::from_object(Some(object))?;
        let mut parts: Vec<&Arc<ClusterRole>> = all
            .iter()
            .filter(|part| part.metadata.name != role.metadata.name && selector.matches(&part.metadata.labels))
            .collect();
        parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for rule in parts.into_iter().flat_map(|part| &part.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Ok((rules != role.rules).then_some(rules))
}

#[cfg(test)]
mod tests {
    use api::meta::v1::LabelSelector;
    use api::rbac::v1::AggregationRule;

    use super::*;

    fn role(name: &str, label: &str, verb: &str) -> Arc<ClusterRole> {
        let mut role = ClusterRole::default();
        role.metadata.name = name.to_owned();
        role.metadata.labels.insert("to".to_owned(), label.to_owned());
        role.rules = vec![PolicyRule { verbs: vec![verb.to_owned()], ..PolicyRule::default() }];
        Arc::new(role)
    }

    #[test]
    fn a_role_has_the_rules_of_its_parts() {
        let mut whole = (*role("whole", "edit", "old")).clone();
        let selector =
            LabelSelector { match_labels: [("to".to_owned(), "edit".to_owned())].into(), ..LabelSelector::default() };
        whole.aggregation_rule = Some(AggregationRule { cluster_role_selectors: vec![selector] });
        let all =
            [role("b", "edit", "two"), role("a", "edit", "one"), role("c", "view", "x"), role("d", "edit", "one")];
        let rules = plan(&whole, &all).unwrap().unwrap();
        assert_eq!(rules.iter().map(|rule| rule.verbs[0].as_str()).collect::<Vec<_>>(), ["one", "two"]);
        whole.rules = rules;
        assert_eq!(plan(&whole, &all).unwrap(), None);
    }
}
