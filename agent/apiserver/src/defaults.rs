//! Values that objects get where the client said nothing.
//!
//! `facts/defaults.tsv` has a row per message and field, so that a rule for containers holds wherever containers
//! occur: message, field, value, and a condition on the fields beside it (`a=b`, `a!=b`, `a` for set, `!a` for unset,
//! `@Kind` for the kind of the whole object). What needs more than that is a function here.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::Kind;
use api::quantity::Amount;
use api::schema::{Field, FieldType, MESSAGES, Message, Shape};
use serde_json::{Map, Value};

mod special;

struct Rule {
    field: &'static Field,
    value: Value,
    condition: Condition,
}

#[derive(Clone, Copy)]
enum Condition {
    Always,
    Equal(&'static str, &'static str),
    Unequal(&'static str, &'static str),
    Set(&'static str),
    Unset(&'static str),
    Root(&'static str),
}

struct Rules {
    by_message: HashMap<&'static str, Vec<Rule>>,
    /// Whether a message or anything below it has rules.
    relevant: Vec<bool>,
}

const JOB_SPEC: &str = "k8s.io.api.batch.v1.JobSpec";

static RULES: LazyLock<Rules> = LazyLock::new(|| read_rules(include_str!("../facts/defaults.tsv")));

/// Sets every default of an object of this kind.
pub fn apply(kind: &'static Kind, value: &mut Value) {
    special::before(kind, value);
    if let Some(map) = value.as_object_mut() {
        message(&RULES, kind.kind, kind.message, map);
    }
    special::after(kind, value);
}

/// Sets the defaults of a message that is no kind's own, such as a subresource's body.
pub fn apply_message(name: &str, value: &mut Value) {
    let index = MESSAGES.iter().position(|m| m.name == name);
    if let (Some(index), Some(map)) = (index, value.as_object_mut()) {
        message(&RULES, "", index, map);
    }
}

fn read_rules(table: &'static str) -> Rules {
    let mut by_message: HashMap<&'static str, Vec<Rule>> = HashMap::new();
    for line in table.lines() {
        let mut cells = line.split('\t');
        let (Some(name), Some(field), Some(value)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let condition = cells.next().map_or(Condition::Always, Condition::parse);
        let found = api::schema::message(name).and_then(|m| m.field(field));
        debug_assert!(found.is_some(), "{name} has no field {field}");
        let (Some(field), Ok(value)) = (found, serde_json::from_str(value)) else { continue };
        by_message.entry(name).or_default().push(Rule { field, value, condition });
    }
    // Versions that come and go have the defaults of the one that stays, where they have the fields.
    for early in MESSAGES.iter().filter(|m| is_early(m.name)) {
        let Some(rules) = stable_name(early.name).and_then(|name| by_message.get(name.as_str())) else { continue };
        let own = rules.iter().filter_map(|rule| {
            let field = early.field(rule.field.json)?;
            Some(Rule { field, value: rule.value.clone(), condition: rule.condition })
        });
        let own: Vec<Rule> = own.collect();
        by_message.entry(early.name).or_insert(own);
    }
    let mut relevant: Vec<bool> = MESSAGES
        .iter()
        .map(|m| by_message.contains_key(m.name) || special::has(m.name) || amounts(m).next().is_some())
        .collect();
    // Spread from children to parents until nothing changes.
    loop {
        let below = |m: &Message, relevant: &[bool]| m.fields.iter().any(|f| child(f.ty).is_some_and(|c| relevant[c]));
        let next: Vec<bool> = MESSAGES.iter().enumerate().map(|(i, m)| relevant[i] || below(m, &relevant)).collect();
        if next == relevant {
            return Rules { by_message, relevant };
        }
        relevant = next;
    }
}

fn is_early(name: &str) -> bool {
    name.split('.').rev().nth(1).is_some_and(|version| version.contains("alpha") || version.contains("beta"))
}

/// The name that a message of an alpha or beta version has in the stable one.
fn stable_name(name: &str) -> Option<String> {
    let (package, message) = name.rsplit_once('.')?;
    Some(format!("{}.v1.{message}", package.rsplit_once('.')?.0))
}

fn child(ty: FieldType) -> Option<usize> {
    match ty {
        FieldType::Message(index) => Some(index),
        FieldType::Map(ty) => child(*ty),
        _ => None,
    }
}

impl Condition {
    fn parse(text: &'static str) -> Self {
        if let Some(kind) = text.strip_prefix('@') {
            Self::Root(kind)
        } else if let Some((name, value)) = text.split_once("!=") {
            Self::Unequal(name, value)
        } else if let Some((name, value)) = text.split_once('=') {
            Self::Equal(name, value)
        } else if let Some(name) = text.strip_prefix('!') {
            Self::Unset(name)
        } else {
            Self::Set(text)
        }
    }

    fn holds(&self, root: &str, map: &Map<String, Value>) -> bool {
        let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
        let set = |name: &str| match map.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        match self {
            Self::Always => true,
            Self::Equal(name, value) => text(name) == *value,
            Self::Unequal(name, value) => text(name) != *value,
            Self::Set(name) => set(name),
            Self::Unset(name) => !set(name),
            Self::Root(kind) => *kind == root,
        }
    }
}

/// The fields of a message that hold amounts by resource.
fn amounts(message: &'static Message) -> impl Iterator<Item = &'static Field> {
    let is_core = message.name.starts_with("k8s.io.api.core.v1.");
    message.fields.iter().filter(move |field| is_core && field.go == "v1.ResourceList")
}

/// Amounts finer than thousandths become whole thousandths.
fn round_up(amounts: &mut Value) {
    for amount in amounts.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let Some(exact) = amount.as_str().and_then(|text| Amount::parse(text).ok()) else { continue };
        if exact.nanos() % NANOS_IN_MILLI != 0 {
            *amount = Amount::from_milli(exact.milli()).canonical().into();
        }
    }
}

const NANOS_IN_MILLI: i128 = 1_000_000;

/// Whether a default may take the field's place: absent, or the zero value of a field that is no pointer.
fn is_unset(field: &Field, value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) if field.pointer => false,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    }
}

fn message(rules: &Rules, root: &str, index: usize, map: &mut Map<String, Value>) {
    let message_row = &MESSAGES[index];
    if !rules.relevant[index] || message_row.shape != Shape::Struct {
        return;
    }
    // A CronJob's template gets its defaults once a Job is made of it; its pods get theirs at once.
    let template_of_job = root == "CronJob" && message_row.name == JOB_SPEC;
    let own = rules.by_message.get(message_row.name).filter(|_| !template_of_job);
    for rule in own.into_iter().flatten() {
        if is_unset(rule.field, map.get(rule.field.json)) && rule.condition.holds(root, map) {
            map.insert(rule.field.json.to_owned(), rule.value.clone());
        }
    }
    special::message(message_row.name, map);
    for field in amounts(message_row) {
        map.get_mut(field.json).into_iter().for_each(round_up);
    }
    for field in message_row.fields {
        let Some(below) = child(field.ty).filter(|c| rules.relevant[*c]) else { continue };
        if field.inline {
            message(rules, root, below, map);
            continue;
        }
        match map.get_mut(field.json) {
            Some(Value::Array(items)) if field.repeated => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    message(rules, root, below, item);
                }
            }
            Some(Value::Object(entries)) if matches!(field.ty, FieldType::Map(_)) => {
                for entry in entries.values_mut().filter_map(Value::as_object_mut) {
                    message(rules, root, below, entry);
                }
            }
            Some(Value::Object(inner)) => message(rules, root, below, inner),
            None | Some(Value::Null) if !field.repeated && !field.pointer && field.json != "metadata" => {
                // A struct that is no pointer is always there, and so are its defaults.
                let mut inner = Map::new();
                message(rules, root, below, &mut inner);
                if !inner.is_empty() && !matches!(field.ty, FieldType::Map(_)) {
                    map.insert(field.json.to_owned(), Value::Object(inner));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree;

    #[test]
    fn a_service_that_keeps_its_clients_does_so_for_three_hours() {
        let kind = api::kind_by_name("v1", "Service").unwrap();
        let made = |given: Value| {
            let mut value = json!({"metadata": {"name": "a"}, "spec": given});
            apply(kind, &mut value);
            value["spec"]["sessionAffinityConfig"].clone()
        };
        let whole = json!({"clientIP": {"timeoutSeconds": 10_800}});
        for given in [Value::Null, json!({}), json!({"clientIP": null}), json!({"clientIP": {}})] {
            assert_eq!(made(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": given})), whole);
        }
        let own = json!({"clientIP": {"timeoutSeconds": 5}});
        assert_eq!(made(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": own.clone()})), own);
        assert_eq!(made(json!({"sessionAffinityConfig": own})), Value::Null);
    }

    #[test]
    fn a_deployment_gets_upstreams_defaults() {
        let kind = api::kind_by_name("apps/v1", "Deployment").unwrap();
        let mut value = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}]}}}});
        apply(kind, &mut value);
        let spec = &value["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let pod = &spec["template"]["spec"];
        assert_eq!((&pod["dnsPolicy"], &pod["enableServiceLinks"]), (&json!("ClusterFirst"), &Value::Null));
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(pod["containers"][0]["livenessProbe"]["httpGet"]["scheme"], "HTTP");
    }

    #[test]
    fn conditions_are_read_from_beside_the_field() {
        let kind = api::kind_by_name("v1", "Service").unwrap();
        let mut value = json!({"spec": {"type": "ExternalName", "ports": [{"port": 5}]}});
        apply(kind, &mut value);
        assert!(!tree::has(&value, "/spec/internalTrafficPolicy"));
        assert_eq!(value["spec"]["ports"][0]["targetPort"], 5);
    }
}
