//! autoscaling/v1: what it has no fields for travels in annotations, as JSON of types that only this serves for.
//!
//! Metrics, their state and the conditions are written as v1 once had them; the behaviour is written as upstream's
//! server has it inside, under the names of its fields there. Clients read these texts, so keys have a fixed order.

use serde_json::{Map, Value, json};

use crate::answer::ordered as object;
use crate::tree;
use crate::validation::shown::quoted;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Every annotation that carries a field; the last two did so once.
const CARRIERS: [&str; 6] = [
    METRICS,
    BEHAVIOR,
    CURRENT,
    CONDITIONS,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// What a field holds, which decides how it is written when it is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Left out.
    Optional,
    Text,
    Quantity,
    /// Another object.
    Reference,
}
use Holds::{Optional, Quantity, Reference, Text};

/// Name in v1, place in v2, what it holds.
type Field = (&'static str, &'static str, Holds);
/// The name of a source of metrics, with its fields in a spec and in a status.
type Source = (&'static str, &'static [Field], &'static [Field]);

const SOURCES: [Source; 5] = [
    (
        "object",
        &[
            ("target", "/describedObject", Reference),
            ("metricName", "/metric/name", Text),
            ("targetValue", "/target/value", Quantity),
            ("selector", "/metric/selector", Optional),
            ("averageValue", "/target/averageValue", Optional),
        ],
        &[
            ("target", "/describedObject", Reference),
            ("metricName", "/metric/name", Text),
            ("currentValue", "/current/value", Quantity),
            ("selector", "/metric/selector", Optional),
            ("averageValue", "/current/averageValue", Optional),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "/metric/name", Text),
            ("targetAverageValue", "/target/averageValue", Quantity),
            ("selector", "/metric/selector", Optional),
        ],
        &[
            ("metricName", "/metric/name", Text),
            ("currentAverageValue", "/current/averageValue", Quantity),
            ("selector", "/metric/selector", Optional),
        ],
    ),
    (
        "resource",
        &[
            ("name", "/name", Text),
            ("targetAverageUtilization", "/target/averageUtilization", Optional),
            ("targetAverageValue", "/target/averageValue", Optional),
        ],
        &[
            ("name", "/name", Text),
            ("currentAverageUtilization", "/current/averageUtilization", Optional),
            ("currentAverageValue", "/current/averageValue", Quantity),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "/name", Text),
            ("targetAverageUtilization", "/target/averageUtilization", Optional),
            ("targetAverageValue", "/target/averageValue", Optional),
            ("container", "/container", Text),
        ],
        &[
            ("name", "/name", Text),
            ("currentAverageUtilization", "/current/averageUtilization", Optional),
            ("currentAverageValue", "/current/averageValue", Quantity),
            ("container", "/container", Text),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "/metric/name", Text),
            ("metricSelector", "/metric/selector", Optional),
            ("targetValue", "/target/value", Optional),
            ("targetAverageValue", "/target/averageValue", Optional),
        ],
        &[
            ("metricName", "/metric/name", Text),
            ("metricSelector", "/metric/selector", Optional),
            ("currentValue", "/current/value", Quantity),
            ("currentAverageValue", "/current/averageValue", Optional),
        ],
    ),
];

/// An object of v1 from one of v2.
pub(super) fn to_v1(mut value: Value) -> Value {
    let mut carried: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = list(spec.remove("metrics"));
        let (cpu, others): (Vec<&Value>, Vec<&Value>) = metrics.iter().partition(|m| percent(m, "target").is_some());
        spec.extend(cpu.first().and_then(|m| percent(m, "target")).map(|p| (PERCENT.0.to_owned(), p)));
        if !others.is_empty() {
            carried.push((METRICS, array(others.into_iter().map(|m| metric_text(m, false)))));
        }
        let behavior = spec.remove("behavior").filter(Value::is_object);
        carried.extend(behavior.map(|b| (BEHAVIOR, behavior_text(&b))));
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        // This version always writes it.
        status.entry("currentReplicas").or_insert_with(|| 0.into());
        let metrics = list(status.remove("currentMetrics"));
        let last = metrics.iter().filter_map(|m| percent(m, "current")).next_back();
        status.extend(last.map(|p| (PERCENT.1.to_owned(), p)));
        if !metrics.is_empty() {
            carried.push((CURRENT, array(metrics.iter().map(|m| metric_text(m, true)))));
        }
        let conditions = list(status.remove("conditions"));
        if !conditions.is_empty() {
            carried.push((CONDITIONS, array(conditions.iter().map(condition_text))));
        }
    }
    if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !CARRIERS.contains(&key.as_str()));
    }
    if !carried.is_empty() {
        let annotations = tree::object_at(&mut value["metadata"], "annotations");
        annotations.extend(carried.into_iter().map(|(key, text)| (key.to_owned(), text.into())));
    }
    value
}

/// The fields of v1 for processor utilization: wanted, and current.
const PERCENT: (&str, &str) = ("targetCPUUtilizationPercentage", "currentCPUUtilizationPercentage");

/// An object of v2 from one of v1.
pub(super) fn from_v1(mut value: Value) -> Value {
    let take = |name: &str| -> Option<Value> {
        let text = value.get("metadata")?.get("annotations")?.get(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, behavior, current, conditions) = (take(METRICS), take(BEHAVIOR), take(CURRENT), take(CONDITIONS));
    if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !CARRIERS.contains(&key.as_str()));
    }
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = list(metrics).iter().map(|m| metric(m, false)).collect();
        if let Some(percent) = spec.remove(PERCENT.0).filter(|p| !p.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".into(), Value::Array(all));
        }
        let behavior = behavior.map(|b| lower_names(&b)).filter(|b| b.as_object().is_some_and(|b| !b.is_empty()));
        spec.extend(behavior.map(|b| ("behavior".to_owned(), b)));
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        let percent = status.remove(PERCENT.1).filter(|p| !p.is_null());
        let mut all: Vec<Value> = list(current).iter().map(|m| metric(m, true)).collect();
        if let (true, Some(percent)) = (all.is_empty(), percent) {
            let now = json!({"averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": now}}));
        }
        if !all.is_empty() {
            status.insert("currentMetrics".into(), Value::Array(all));
        }
        status.extend(conditions.filter(Value::is_array).map(|c| ("conditions".to_owned(), c)));
    }
    value
}

/// The processor utilization of a metric; `part` is `target` or `current`.
fn percent(metric: &Value, part: &str) -> Option<Value> {
    let is_cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    Some(metric["resource"][part]["averageUtilization"].clone()).filter(|p| is_cpu && p.is_number())
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn text_of(value: &Value) -> String {
    quoted(value.as_str().unwrap_or_default())
}

fn given<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|v| !v.is_null() && v.as_str() != Some(""))
}

fn metric_text(metric: &Value, is_status: bool) -> String {
    let mut fields = vec![("type", text_of(&metric["type"]))];
    for (name, spec, status) in SOURCES {
        let table = if is_status { status } else { spec };
        let source = metric.get(name).filter(|s| s.is_object());
        fields.extend(source.map(|s| (name, source_text(s, table))));
    }
    object(fields)
}

fn source_text(source: &Value, table: &[Field]) -> String {
    object(table.iter().filter_map(|(name, place, holds)| {
        let found = tree::at(source, place).filter(|v| !v.is_null());
        let text = match holds {
            Optional if name.ends_with("elector") => selector_text(found?),
            Optional => found?.to_string(),
            Text => quoted(found.and_then(Value::as_str).unwrap_or_default()),
            Quantity => quoted(found.and_then(Value::as_str).unwrap_or("0")),
            Reference => reference_text(found.unwrap_or(&Value::Null)),
        };
        Some((*name, text))
    }))
}

fn reference_text(reference: &Value) -> String {
    let mut fields = vec![("kind", text_of(&reference["kind"])), ("name", text_of(&reference["name"]))];
    fields.extend(given(reference, "apiVersion").map(|v| ("apiVersion", text_of(v))));
    object(fields)
}

fn selector_text(selector: &Value) -> String {
    let mut fields = Vec::new();
    let labels = selector.get("matchLabels").and_then(Value::as_object).filter(|l| !l.is_empty());
    fields.extend(labels.map(|labels| {
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{}:{}", quoted(k), text_of(v))).collect();
        ("matchLabels", format!("{{{}}}", pairs.join(",")))
    }));
    let requirements = tree::list(selector, "/matchExpressions");
    if !requirements.is_empty() {
        let texts = requirements.iter().map(|r| {
            let mut fields = vec![("key", text_of(&r["key"])), ("operator", text_of(&r["operator"]))];
            let values = tree::list(r, "/values");
            if !values.is_empty() {
                fields.push(("values", array(values.iter().map(text_of))));
            }
            object(fields)
        });
        fields.push(("matchExpressions", array(texts)));
    }
    object(fields)
}

fn condition_text(condition: &Value) -> String {
    let time = given(condition, "lastTransitionTime").map_or_else(|| "null".to_owned(), text_of);
    let mut fields = vec![
        ("type", text_of(&condition["type"])),
        ("status", text_of(&condition["status"])),
        ("lastTransitionTime", time),
    ];
    for key in ["reason", "message"] {
        fields.extend(given(condition, key).map(|v| (key, text_of(v))));
    }
    object(fields)
}

fn behavior_text(behavior: &Value) -> String {
    object([("ScaleUp", rules_text(&behavior["scaleUp"])), ("ScaleDown", rules_text(&behavior["scaleDown"]))])
}

fn rules_text(rules: &Value) -> String {
    if !rules.is_object() {
        return "null".to_owned();
    }
    let policy = |p: &Value| {
        let number = |key: &str| p[key].as_i64().unwrap_or(0).to_string();
        object([("Type", text_of(&p["type"])), ("Value", number("value")), ("PeriodSeconds", number("periodSeconds"))])
    };
    let policies = rules.get("policies").and_then(Value::as_array);
    object([
        ("StabilizationWindowSeconds", rules["stabilizationWindowSeconds"].to_string()),
        ("SelectPolicy", rules["selectPolicy"].to_string()),
        ("Policies", policies.map_or_else(|| "null".to_owned(), |all| array(all.iter().map(policy)))),
        ("Tolerance", rules["tolerance"].to_string()),
    ])
}

/// The same tree with names as versions write them, and without what is null.
fn lower_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.iter().filter(|(_, value)| !value.is_null());
            let renamed = known.map(|(key, value)| {
                let mut letters = key.chars();
                let first = letters.next().map(|c| c.to_ascii_lowercase());
                (first.into_iter().chain(letters).collect::<String>(), lower_names(value))
            });
            Value::Object(renamed.collect::<Map<_, _>>())
        }
        Value::Array(all) => Value::Array(all.iter().map(lower_names).collect()),
        other => other.clone(),
    }
}

/// A metric of v2 from one of v1.
fn metric(old: &Value, is_status: bool) -> Value {
    let mut new = json!({"type": old["type"]});
    for (name, spec, status) in SOURCES {
        if let Some(source) = old.get(name).filter(|s| s.is_object()) {
            new[name] = moved(source, if is_status { status } else { spec });
            if !is_status {
                set_target_type(name, &mut new[name]);
            }
        }
    }
    new
}

fn moved(source: &Value, table: &[Field]) -> Value {
    let mut new = json!({});
    for (name, place, holds) in table {
        let found = source.get(name).filter(|v| !v.is_null()).cloned();
        let found = match holds {
            Quantity => Some(found.unwrap_or_else(|| "0".into())),
            Optional | Text | Reference => found,
        };
        if let Some(found) = found {
            let mut at = &mut new;
            for key in place.split('/').skip(1) {
                if !at.is_object() {
                    *at = json!({});
                }
                at = &mut at[key];
            }
            *at = found;
        }
    }
    new
}

/// v1 tells by the fields that are set which of them counts.
fn set_target_type(source: &str, value: &mut Value) {
    let target = &mut value["target"];
    let has = |key: &str| target.get(key).is_some_and(|v| !v.is_null());
    let word = match source {
        "pods" => "AverageValue",
        "object" if has("averageValue") => "AverageValue",
        "object" => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    };
    if source == "object" && word == "AverageValue" && target["value"] == "0" {
        tree::remove(target, "value");
    }
    target["type"] = word.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> Value {
        json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "m<", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Object", "object": {"describedObject": {"kind": "K", "name": "n"}, "metric": {"name": "o"},
                    "target": {"type": "AverageValue", "averageValue": "1"}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}},
            "status": {"desiredReplicas": 1, "currentReplicas": 1, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 7, "averageValue": "3m"}}}],
                "conditions": [{"type": "T", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}})
    }

    #[test]
    fn what_a_client_of_v1_sets_is_settled_with_its_annotation() {
        let kind = api::kind_by_name("autoscaling/v1", "HorizontalPodAutoscaler").unwrap();
        let given = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 1}, "status": {PERCENT.1: 0}});
        let settled = super::super::settled(kind, given);
        let expected = r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":0,"currentAverageValue":"0"}}]"#;
        assert_eq!(settled["metadata"]["annotations"][CURRENT], expected);
        assert_eq!(settled["status"][PERCENT.1], 0);
    }

    #[test]
    fn annotations_are_spelled_as_clients_of_v1_read_them() {
        let v1 = to_v1(v2());
        let annotations = &v1["metadata"]["annotations"];
        assert_eq!(
            annotations[METRICS],
            r#"[{"type":"Pods","pods":{"metricName":"m\u003c","targetAverageValue":"10","selector":{"matchLabels":{"a":"b"}}}},{"type":"Object","object":{"target":{"kind":"K","name":"n"},"metricName":"o","targetValue":"0","averageValue":"1"}}]"#
        );
        assert_eq!(
            annotations[BEHAVIOR],
            r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":60,"SelectPolicy":"Max","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}"#
        );
        assert_eq!(
            annotations[CURRENT],
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":7,"currentAverageValue":"3m"}}]"#
        );
        assert_eq!(
            (v1["spec"][PERCENT.0].clone(), v1["status"][PERCENT.1].clone(), v1["spec"]["metrics"].clone()),
            (json!(50), json!(7), Value::Null)
        );
    }

    #[test]
    fn what_went_through_annotations_comes_back() {
        let mut expected = v2();
        // The processor goes last: v1 has a field for it.
        expected["spec"]["metrics"].as_array_mut().unwrap().swap(1, 2);
        expected["metadata"]["annotations"] = json!({});
        assert_eq!(from_v1(to_v1(v2())), expected);
    }
}
