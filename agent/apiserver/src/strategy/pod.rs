//! Pods.

use api::quantity::Amount;
use serde_json::{Value, json};

use super::Errors;
use crate::status::FieldError;
use crate::tree;

pub(super) fn prepare_create(pod: &mut Value) {
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if !tree::list(pod, "/spec/schedulingGates").is_empty() {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "observedGeneration": 1,
        }]);
    }
}

pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    // Ephemeral containers have a subresource of their own.
    tree::copy_key(&mut new["spec"], &old["spec"], "ephemeralContainers");
}

pub(super) fn prepare_status_update(new: &mut Value, old: &Value) {
    let owners = old["metadata"]["ownerReferences"].clone();
    if owners.is_null() {
        tree::remove(&mut new["metadata"], "ownerReferences");
    } else {
        new["metadata"]["ownerReferences"] = owners;
    }
    if tree::text(new, "/status/qosClass").is_empty() {
        new["status"]["qosClass"] = old["status"]["qosClass"].clone();
    }
}

/// Takes the container resources of `wanted` over.
pub(super) fn copy_resources(pod: &mut Value, wanted: &Value) {
    for list in ["containers", "initContainers"] {
        let source = tree::list(wanted, &format!("/spec/{list}")).to_vec();
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            if let Some(from) = source.iter().find(|c| c["name"] == container["name"]) {
                tree::copy_key(container, from, "resources");
                tree::copy_key(container, from, "resizePolicy");
            }
        }
    }
    let mut spec = wanted["spec"].clone();
    tree::copy_key(&mut pod["spec"], &spec.take(), "resources");
}

/// Longest name of a kernel parameter.
const SYSCTL_LEN: usize = 253;

/// The names of kernel parameters have the form of such, each once.
pub(super) fn validate_sysctls(spec: &Value, path: &str, errors: &mut Errors) {
    let names: Vec<&str> =
        tree::list(spec, "/securityContext/sysctls").iter().filter_map(|s| s["name"].as_str()).collect();
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        let field = format!("{path}.securityContext.sysctls[{i}].name");
        if !is_sysctl_name(name) {
            let why = format!(
                "must have at most {SYSCTL_LEN} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(field, *name, why));
        } else if names[..i].contains(name) {
            errors.push(FieldError::duplicate(field, *name));
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let is_alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_segment = |part: &str| {
        let mut bytes = part.bytes();
        is_alphanumeric(bytes.clone().next())
            && is_alphanumeric(bytes.clone().next_back())
            && bytes.all(|b| is_alphanumeric(Some(b)) || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_LEN && name.split(['.', '/']).all(is_segment)
}

/// The quality of service class that follows from a pod's resources.
#[must_use]
pub fn qos_class(pod: &Value) -> &'static str {
    if tree::has(pod, "/spec/resources") {
        return class_of(std::slice::from_ref(&pod["spec"]).iter());
    }
    class_of(tree::list(pod, "/spec/containers").iter().chain(tree::list(pod, "/spec/initContainers")))
}

fn class_of<'a>(holders: impl Iterator<Item = &'a Value>) -> &'static str {
    let amount = |holder: &Value, list: &str, resource: &str| {
        let text = holder["resources"][list][resource].as_str()?;
        Amount::parse(text).ok().filter(|a| !a.is_zero())
    };
    let (mut any, mut guaranteed) = (false, true);
    for holder in holders {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount(holder, "requests", resource), amount(holder, "limits", resource));
            any |= request.is_some() || limit.is_some();
            let equal = match (&request, &limit) {
                (Some(request), Some(limit)) => request.minus(limit).is_zero(),
                (None, Some(_)) => true,
                _ => false,
            };
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_need_names() {
        let names = ["foo-", "kernel.shmmax", "net/ipv4/ip_forward", "bar..", "kernel.shmmax", "A"];
        let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        let mut errors = Vec::new();
        validate_sysctls(&json!({"securityContext": {"sysctls": sysctls}}), "spec", &mut errors);
        let told = errors.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>();
        assert_eq!(told.len(), 4, "{told:?}");
        for (error, i) in told.iter().zip([0, 3, 4, 5]) {
            assert!(error.contains(&format!("spec.securityContext.sysctls[{i}].name")), "{error}");
        }
    }

    #[test]
    fn qos_follows_from_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            qos_class(&pod(json!({"requests": both, "limits": {"cpu": "1000m", "memory": "1Gi"}}))),
            "Guaranteed"
        );
    }
}
