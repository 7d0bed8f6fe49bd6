//! RuntimeClass: a class's overhead and placement become the pod's.

use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

pub(super) fn admit(call: &Call, pod: &mut Value) -> Result<()> {
    let name = tree::text(pod, "/spec/runtimeClassName").to_owned();
    if !tree::has(pod, "/spec/runtimeClassName") {
        return Ok(());
    }
    if name.is_empty() {
        let text = "resource name may not be empty";
        return Err(Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text));
    }
    let complaints = crate::validation::names::path_segment(&name);
    if !complaints.is_empty() {
        let text = format!("invalid resource name {}: [{}]", stdx::quoted(&name), complaints.join(" "));
        return Err(Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text));
    }
    let storage = call.app.cache.known("node.k8s.io", "runtimeclasses");
    let refuse = |why: String| Failure::forbidden(call.subject(), tree::text(pod, "/metadata/name"), &why);
    let object = storage.get("", &name);
    let object = object.ok_or_else(|| refuse(format!("pod rejected: RuntimeClass {name:?} not found")))?;
    let class = codec::to_value(storage, storage.kind, &object)?;
    let overhead = &class["overhead"]["podFixed"];
    if tree::has(pod, "/spec/overhead") && !tree::same(&pod["spec"]["overhead"], overhead) {
        return Err(refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned()));
    }
    if !overhead.is_null() {
        pod["spec"]["overhead"] = overhead.clone();
    }
    let selector = class["scheduling"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in selector {
        let own = tree::object_at(&mut pod["spec"], "nodeSelector");
        if own.get(&key).is_some_and(|v| *v != value) {
            let text = format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}");
            return Err(Failure::forbidden(call.subject(), tree::text(pod, "/metadata/name"), &text));
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
