//! Whether a webhook or a policy is for a request.

use api::Kind;
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

    /// The resource in the version in which it is to be shown, if the request matches.
    pub(super) fn kind(&self, call: &Call, event: Event<'_>) -> Option<&'static Kind> {
        if self.kind_in(&self.excluded, call, event).is_some() {
            return None;
        }
        let is_open = self.all_without_rules && self.rules.as_array().is_none_or(Vec::is_empty);
        let kind = if is_open { call.kind } else { self.kind_in(&self.rules, call, event)? };
        // What has no metadata has no labels either, not even none.
        let labels = |object: Option<&Value>| {
            object.is_some_and(|o| o["metadata"].is_object() && matches_labels(&self.objects, &o["metadata"]["labels"]))
        };
        let by_object = self.objects.is_empty() || labels(event.new) || labels(event.old);
        (by_object && self.in_namespace(call, event)).then_some(kind)
    }

    /// The version of which one of the rules speaks: the one of the request before others, then the rules in order.
    fn kind_in(&self, wanted: &Value, call: &Call, event: Event<'_>) -> Option<&'static Kind> {
        let wanted = wanted.as_array().filter(|rules| !rules.is_empty())?;
        let name = event.name(call);
        let speaks_of = |rule: &Value, kind: &Kind| {
            let resource = rules::Resource {
                group: kind.group,
                version: kind.version,
                plural: kind.plural,
                subresource: &call.info.subresource,
                namespaced: kind.namespaced,
                name: &name,
            };
            rules::matches(rule, event.operation, resource)
        };
        if wanted.iter().any(|rule| speaks_of(rule, call.kind)) {
            return Some(call.kind);
        }
        if self.exact {
            return None;
        }
        let others = equivalents(call);
        wanted.iter().find_map(|rule| others.iter().copied().find(|kind| speaks_of(rule, kind)))
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

/// The resource of the request in other versions, or under another name.
fn equivalents(call: &Call) -> Vec<&'static Kind> {
    let (own, subresource) = (call.kind, call.info.subresource.as_str());
    let all: Vec<&'static Kind> = match call.app.custom.definition(own.group, own.plural) {
        Some(definition) => definition.versions.iter().map(|v| v.kind).collect(),
        None if own.etcd_prefix.is_empty() => Vec::new(),
        None => call.app.config.served.kinds().iter().copied().filter(|k| k.etcd_prefix == own.etcd_prefix).collect(),
    };
    let is_other =
        |k: &&'static Kind| !std::ptr::eq(*k, own) && (subresource.is_empty() || k.subresource(subresource).is_some());
    all.into_iter().filter(is_other).collect()
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
