//! Whether a webhook or a policy is for a request.

use api::labels::Selector;
use api::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::Value;

use super::event::Event;
use super::rules;
use crate::app::Call;
use crate::tree;

/// What a webhook, a policy or a binding is for.
pub(super) struct Matching {
    rules: Value,
    excluded: Value,
    namespaces: Selector,
    objects: Selector,
    exact: bool,
    /// Without rules everything matches.
    all_without_rules: bool,
}

impl Matching {
    /// Of a webhook.
    pub(super) fn of_hook(value: &Value) -> Self {
        Self { rules: value["rules"].clone(), all_without_rules: false, ..Self::of_resources(value) }
    }

    /// Of a policy's or a binding's constraints.
    pub(super) fn of_resources(value: &Value) -> Self {
        Self {
            rules: value["resourceRules"].clone(),
            excluded: value["excludeResourceRules"].clone(),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
            exact: value["matchPolicy"] == "Exact",
            all_without_rules: true,
        }
    }

    /// The version in which the object is to be shown, if the request matches.
    pub(super) fn version<'a>(&self, call: &'a Call, event: Event<'_>) -> Option<&'a str> {
        let name = event.name(call);
        let resource = rules::Resource {
            group: call.kind.group,
            version: call.kind.version,
            plural: call.kind.plural,
            subresource: &call.info.subresource,
            namespaced: call.kind.namespaced,
            name: &name,
        };
        if self.version_of(&self.excluded, call, event, resource).is_some() {
            return None;
        }
        let is_open = self.all_without_rules && self.rules.as_array().is_none_or(Vec::is_empty);
        let version = if is_open { call.kind.version } else { self.version_of(&self.rules, call, event, resource)? };
        let labels =
            |object: Option<&Value>| object.is_some_and(|o| matches_labels(&self.objects, &o["metadata"]["labels"]));
        let by_object = self.objects.is_empty() || labels(event.new) || labels(event.old);
        (by_object && self.in_namespace(call, event)).then_some(version)
    }

    fn version_of<'a>(
        &self,
        wanted: &Value,
        call: &'a Call,
        event: Event<'_>,
        resource: rules::Resource<'_>,
    ) -> Option<&'a str> {
        if rules::matches(wanted, event.operation, resource) {
            return Some(call.kind.version);
        }
        if self.exact || wanted.as_array().is_none_or(Vec::is_empty) || !crate::custom::is_custom(call.kind) {
            return None;
        }
        let definition = call.app.custom.definition(call.kind.group, call.kind.plural)?;
        let mut versions = definition.versions.iter().map(|v| v.kind.version);
        versions.find(|version| rules::matches(wanted, event.operation, rules::Resource { version, ..resource }))
    }

    fn in_namespace(&self, call: &Call, event: Event<'_>) -> bool {
        if self.namespaces.is_empty() {
            return true;
        }
        if (call.kind.group, call.kind.plural) == ("", "namespaces") {
            let object = event.new.or(event.old);
            return object.is_some_and(|o| matches_labels(&self.namespaces, &o["metadata"]["labels"]));
        }
        if !call.kind.namespaced {
            return true;
        }
        let namespace = call.app.cache.known("", "namespaces").get("", call.namespace());
        namespace.is_some_and(|n| self.namespaces.matches_with(|key| n.label(key)))
    }
}

/// A selector of labels. One that cannot be read selects nothing; validation keeps such out.
pub(super) fn selector(value: &Value) -> Selector {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let labels = value["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    let expressions = tree::list(value, "/matchExpressions").iter().map(|e| LabelSelectorRequirement {
        key: tree::text(e, "/key").to_owned(),
        operator: tree::text(e, "/operator").to_owned(),
        values: strings(&e["values"]),
    });
    let object = LabelSelector { match_labels: labels, match_expressions: expressions.collect() };
    Selector::from_object(Some(&object)).unwrap_or_else(|_| Selector::nothing())
}

fn matches_labels(selector: &Selector, labels: &Value) -> bool {
    selector.matches_with(|key| labels[key].as_str())
}
