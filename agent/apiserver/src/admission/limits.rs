//! LimitRanger: what a namespace's limit ranges give to containers, and what they forbid.

use api::quantity::Amount;
use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

/// All limits of the request's namespace.
fn items(call: &Call) -> Vec<Value> {
    let storage = call.app.cache.known("", "limitranges");
    let prefix = format!("{}/", call.namespace());
    let all = storage.snapshot();
    let own = all.iter().filter(|(k, _)| k.starts_with(&prefix));
    own.filter_map(|(_, o)| codec::to_value(storage, storage.kind, o).ok())
        .flat_map(|range| tree::list(&range, "/spec/limits").to_vec())
        .collect()
}

/// Fills in requests and limits that containers do not set.
pub(super) fn set_defaults(call: &Call, pod: &mut Value) {
    for item in items(call).iter().filter(|i| i["type"] == "Container") {
        let mut notes: Vec<String> = Vec::new();
        for list in ["initContainers", "containers"] {
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                for (source, target, word) in
                    [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
                {
                    let Some(defaults) = item[source].as_object() else { continue };
                    if !container["resources"].is_object() {
                        container["resources"] = serde_json::json!({});
                    }
                    let own = tree::object_at(&mut container["resources"], target);
                    let mut set: Vec<&str> = Vec::new();
                    for (resource, value) in defaults {
                        if !own.contains_key(resource) {
                            own.insert(resource.clone(), value.clone());
                            set.push(resource);
                        }
                    }
                    if !set.is_empty() {
                        notes.push(format!("{} {word} for container {name}", set.join(", ")));
                    }
                }
            }
        }
        if !notes.is_empty() {
            let text = format!("LimitRanger plugin set: {}", notes.join("; "));
            tree::object_at(&mut pod["metadata"], "annotations")
                .insert("kubernetes.io/limit-ranger".into(), text.into());
        }
    }
}

/// Refuses what is outside of the limits.
pub(super) fn check(call: &Call, new: &Value) -> Result<()> {
    let is_pod = call.kind.group.is_empty() && call.kind.plural == "pods";
    let is_claim = call.kind.group.is_empty() && call.kind.plural == "persistentvolumeclaims";
    if !is_pod && !is_claim {
        return Ok(());
    }
    let mut errors: Vec<String> = Vec::new();
    for item in items(call) {
        match item["type"].as_str() {
            Some("Container") if is_pod => {
                for container in tree::list(new, "/spec/containers") {
                    compare(&item, &container["resources"], "Container", &mut errors);
                }
            }
            Some("PersistentVolumeClaim") if is_claim => {
                compare(&item, &new["spec"]["resources"], "PersistentVolumeClaim", &mut errors);
            }
            _ => {}
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let text = if let [one] = errors.as_slice() { one.clone() } else { format!("[{}]", errors.join(", ")) };
    Err(Failure::forbidden(call.subject(), tree::text(new, "/metadata/name"), &text))
}

fn compare(item: &Value, resources: &Value, kind: &str, errors: &mut Vec<String>) {
    let amount = |v: &Value| v.as_str().and_then(|t| Amount::parse(t).ok());
    for (resource, bound) in item["min"].as_object().into_iter().flatten() {
        let Some(min) = amount(bound) else { continue };
        let text = bound.as_str().unwrap_or_default();
        match amount(&resources["requests"][resource]) {
            None => errors.push(format!("minimum {resource} usage per {kind} is {text}.  No request is specified")),
            Some(own) if own.minus(&min).is_negative() => {
                errors
                    .push(format!("minimum {resource} usage per {kind} is {text}, but request is {}", own.canonical()));
            }
            Some(_) => {}
        }
    }
    for (resource, bound) in item["max"].as_object().into_iter().flatten() {
        let Some(max) = amount(bound) else { continue };
        let text = bound.as_str().unwrap_or_default();
        let key = if kind == "PersistentVolumeClaim" { "requests" } else { "limits" };
        match amount(&resources[key][resource]) {
            None => errors.push(format!("maximum {resource} usage per {kind} is {text}.  No limit is specified")),
            Some(own) if max.minus(&own).is_negative() => {
                errors.push(format!("maximum {resource} usage per {kind} is {text}, but limit is {}", own.canonical()));
            }
            Some(_) => {}
        }
    }
}
