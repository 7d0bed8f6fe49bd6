//! Versions that differ from what is stored: events of two groups, autoscaling/v1.

use api::Kind;
use serde_json::{Map, Value, json};

use crate::cache::Storage;

/// Field names of events.k8s.io/v1 and of the stored core/v1 event.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether the served version has other fields than the stored one.
pub(super) fn is_needed(storage: &Storage, kind: &Kind) -> bool {
    kind.message != storage.kind.message
}

pub(super) fn from_stored(storage: &Storage, kind: &Kind, value: Value) -> Value {
    match (kind.group, kind.version) {
        _ if !is_needed(storage, kind) => value,
        ("events.k8s.io", _) => {
            renamed(value, |stored| EVENT_FIELDS.iter().find(|(_, s)| *s == stored).map(|(served, _)| *served))
        }
        ("autoscaling", "v1") => autoscaler_to_v1(value),
        _ => value,
    }
}

pub(super) fn to_stored(storage: &Storage, kind: &Kind, value: Value) -> Value {
    match (kind.group, kind.version) {
        _ if !is_needed(storage, kind) => value,
        ("events.k8s.io", _) => {
            renamed(value, |served| EVENT_FIELDS.iter().find(|(name, _)| *name == served).map(|(_, stored)| *stored))
        }
        ("autoscaling", "v1") => autoscaler_from_v1(value),
        _ => value,
    }
}

fn renamed(value: Value, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = value else { return value };
    let rename = |(key, value): (String, Value)| (name(&key).map_or(key, str::to_owned), value);
    Value::Object(map.into_iter().map(rename).collect::<Map<_, _>>())
}

/// Annotations that carry what autoscaling/v1 has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// Takes the CPU utilization out of a list of metrics; `part` is `target` or `current`.
fn split_metrics(metrics: Option<Value>, part: &str) -> (Option<Value>, Value) {
    let Some(Value::Array(metrics)) = metrics else { return (None, Value::Null) };
    let percent = |m: &Value| m["resource"][part]["averageUtilization"].clone();
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|m| is_cpu(m) && percent(m).is_number());
    (cpu.first().map(percent), Value::Array(others))
}

fn autoscaler_to_v1(mut value: Value) -> Value {
    let mut annotations = Map::new();
    let mut keep = |name: &str, kept: Option<Value>| {
        if let Some(kept) = kept.filter(|k| !k.is_null() && k.as_array().is_none_or(|a| !a.is_empty())) {
            annotations.insert(name.to_owned(), kept.to_string().into());
        }
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let (percent, others) = split_metrics(spec.remove("metrics"), "target");
        spec.extend(percent.map(|p| ("targetCPUUtilizationPercentage".to_owned(), p)));
        keep(METRICS, Some(others));
        keep(BEHAVIOR, spec.remove("behavior"));
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        // This version always writes it.
        status.entry("currentReplicas").or_insert_with(|| 0.into());
        let (percent, others) = split_metrics(status.remove("currentMetrics"), "current");
        status.extend(percent.map(|p| ("currentCPUUtilizationPercentage".to_owned(), p)));
        keep(CURRENT, Some(others));
        keep(CONDITIONS, status.remove("conditions"));
    }
    if !annotations.is_empty() && !value["metadata"]["annotations"].is_object() {
        value["metadata"]["annotations"] = json!({});
    }
    if let Some(all) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        all.extend(annotations);
    }
    value
}

fn autoscaler_from_v1(mut value: Value) -> Value {
    let mut take = |name: &str| -> Option<Value> {
        let text = value.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?.remove(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, behavior, current, conditions) = (take(METRICS), take(BEHAVIOR), take(CURRENT), take(CONDITIONS));
    let list = |value: Option<Value>| match value {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    };
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all = list(metrics);
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".into(), Value::Array(all));
        }
        spec.extend(behavior.map(|b| ("behavior".to_owned(), b)));
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        let mut all = list(current);
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            let now = json!({"averageUtilization": percent});
            all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": now}}));
        }
        if !all.is_empty() {
            status.insert("currentMetrics".into(), Value::Array(all));
        }
        status.extend(conditions.map(|c| ("conditions".to_owned(), c)));
    }
    value
}
