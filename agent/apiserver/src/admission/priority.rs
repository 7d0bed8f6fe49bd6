//! Priority: a pod's class becomes a number.

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
    let storage = call.app.cache.known("scheduling.k8s.io", "priorityclasses");
    let pod_name = tree::name_given(pod).to_owned();
    let refuse = |why: &str| Failure::forbidden(call.subject(), &pod_name, why);
    let wanted = tree::text(pod, "/spec/priorityClassName").to_owned();
    let class = if wanted.is_empty() {
        let all = storage.snapshot();
        let defaults = all.values().filter(|object| codec::is_true(storage, object, "globalDefault"));
        let defaults = defaults.filter_map(|object| codec::to_value(storage, storage.kind, object).ok());
        defaults.min_by_key(|class| class["value"].as_i64())
    } else {
        let object = storage.get("", &wanted);
        let object = object.ok_or_else(|| refuse(&format!("no PriorityClass with name {wanted} was found")))?;
        Some(codec::to_value(storage, storage.kind, &object)?)
    };
    let (value, policy) = match &class {
        Some(class) => {
            pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
            (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority"))
        }
        None => (0, "PreemptLowerPriority"),
    };
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
