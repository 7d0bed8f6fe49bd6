//! RuntimeClass: a class's overhead and placement become the pod's.

use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

const MISMATCH: &str = "Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNFOUNDED: &str = "Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) fn admit(call: &Call, pod: &mut Value) -> Result<()> {
    let Some(class) = class_of(call, pod)? else { return Ok(()) };
    let overhead = &class["overhead"]["podFixed"];
    if tree::is_filled(pod, "/spec/overhead") && !overhead.is_null() && !agrees(pod, overhead) {
        return Err(refuse(call, pod, MISMATCH));
    }
    if !overhead.is_null() {
        pod["spec"]["overhead"] = overhead.clone();
    }
    let selector = class["scheduling"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in selector {
        let own = tree::object_at(&mut pod["spec"], "nodeSelector");
        if let Some(other) = own.get(&key).filter(|v| **v != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let text = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(&value),
                text(other)
            );
            return Err(Failure::forbidden(call.subject(), tree::name_given(pod), &text));
        }
        own.insert(key, value);
    }
    for toleration in tree::list(&class, "/scheduling/tolerations") {
        let own = tree::list_at(&mut pod["spec"], "tolerations");
        if !own.contains(toleration) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

/// Looks at the finished pod: an overhead comes from its class, and from nowhere else.
pub(super) fn check(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    let is_new_pod = operation == Operation::Create && (call.kind.group, call.kind.plural) == ("", "pods");
    if !is_new_pod || !call.info.subresource.is_empty() {
        return Ok(());
    }
    let class = class_of(call, pod)?.unwrap_or_default();
    match &class["overhead"]["podFixed"] {
        Value::Null if tree::has(pod, "/spec/overhead") => Err(refuse(call, pod, UNFOUNDED)),
        Value::Null => Ok(()),
        overhead if agrees(pod, overhead) => Ok(()),
        _ => Err(refuse(call, pod, MISMATCH)),
    }
}

fn agrees(pod: &Value, overhead: &Value) -> bool {
    tree::same(&pod["spec"]["overhead"], overhead)
}

fn refuse(call: &Call, pod: &Value, why: &str) -> Failure {
    Failure::forbidden(call.subject(), tree::name_given(pod), &format!("pod rejected: {why}"))
}

/// The class that a pod names.
fn class_of(call: &Call, pod: &Value) -> Result<Option<Value>> {
    if !tree::has(pod, "/spec/runtimeClassName") {
        return Ok(None);
    }
    let name = tree::text(pod, "/spec/runtimeClassName");
    let unreadable = |text: &str| Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text);
    if name.is_empty() {
        return Err(unreadable("resource name may not be empty"));
    }
    let complaints = crate::validation::names::path_segment(name);
    if !complaints.is_empty() {
        let text = format!("invalid resource name {}: [{}]", stdx::quoted(name), complaints.join(" "));
        return Err(unreadable(&text));
    }
    let storage = call.app.cache.known("node.k8s.io", "runtimeclasses");
    let object = storage.get("", name);
    let missing = || refuse(call, pod, &format!("RuntimeClass {} not found", stdx::quoted(name)));
    let object = object.ok_or_else(missing)?;
    codec::to_value(storage, storage.kind, &object).map(Some)
}
