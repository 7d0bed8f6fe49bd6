//! Priority: the class of a pod, or of a group of pods, becomes a number.

use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

/// What the server decided when a pod was made stays, unless the client says something else.
pub(super) fn keep(new: &mut Value, old: Option<&Value>) {
    for key in ["priority", "preemptionPolicy"] {
        if let Some(old) = old.filter(|_| new["spec"][key].is_null() && new["spec"].is_object()) {
            tree::copy_key(&mut new["spec"], &old["spec"], key);
        }
    }
}

pub(super) fn admit(call: &Call, pod: &mut Value) -> Result<()> {
    let pod_name = tree::name_given(pod).to_owned();
    let refuse = |why: &str| Failure::forbidden(call.subject(), &pod_name, why);
    let class = class_of(call, pod)?;
    if let Some(class) = &class {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    let value = value_of(class.as_ref());
    let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if let Some(given) = tree::integer(pod, "/spec/priority").filter(|p| *p != value) {
        return Err(refuse(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name"
        )));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|p| *p != policy) {
        return Err(refuse(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
             computed {policy} from the given PriorityClass name"
        )));
    }
    pod["spec"]["priority"] = value.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

/// A group has one priority for all its pods.
pub(super) fn admit_group(call: &Call, group: &mut Value) -> Result<()> {
    let class = class_of(call, group)?;
    let value = value_of(class.as_ref());
    if let Some(given) = tree::integer(group, "/spec/priority").filter(|given| *given != value) {
        let why = format!(
            "priority set in the pod group ({given}) must match the priority computed ({value}) based on the priority class \
             set in the spec"
        );
        return Err(Failure::forbidden(call.subject(), tree::name_given(group), &why));
    }
    group["spec"]["priority"] = value.into();
    if let Some(class) = class {
        group["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

fn value_of(class: Option<&Value>) -> i64 {
    class.and_then(|class| class["value"].as_i64()).unwrap_or(0)
}

/// The class that something names, or else the default one, if there is one.
fn class_of(call: &Call, object: &Value) -> Result<Option<Value>> {
    let storage = call.app.cache.known("scheduling.k8s.io", "priorityclasses");
    let wanted = tree::text(object, "/spec/priorityClassName");
    if wanted.is_empty() {
        let all = storage.snapshot();
        let defaults = all.values().filter(|object| codec::is_true(storage, object, "globalDefault"));
        let defaults = defaults.filter_map(|object| codec::to_value(storage, storage.kind, object).ok());
        return Ok(defaults.min_by_key(|class| class["value"].as_i64()));
    }
    let refuse = || {
        let why = format!("no PriorityClass with name {wanted} was found");
        Failure::forbidden(call.subject(), tree::name_given(object), &why)
    };
    let found = storage.get("", wanted).ok_or_else(refuse)?;
    codec::to_value(storage, storage.kind, &found).map(Some)
}
