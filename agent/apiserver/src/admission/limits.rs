//! LimitRanger: what a namespace's limit ranges give to containers, and what they forbid.

use std::collections::BTreeMap;

use api::quantity::Amount;
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

/// The limit ranges of the request's namespace, each as the list of its limits.
fn ranges(call: &Call) -> Vec<Vec<Value>> {
    let storage = call.app.cache.known("", "limitranges");
    let prefix = format!("{}/", call.namespace());
    let all = storage.snapshot();
    let own = all.iter().filter(|(k, _)| k.starts_with(&prefix));
    own.filter_map(|(_, o)| codec::to_value(storage, storage.kind, o).ok())
        .map(|range| tree::list(&range, "/spec/limits").to_vec())
        .collect()
}

/// Fills in requests and limits that containers do not set.
pub(super) fn set_defaults(call: &Call, pod: &mut Value) {
    for range in ranges(call) {
        let mut notes: Vec<String> = Vec::new();
        for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                for (source, target, what) in
                    [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
                {
                    let set = fill(container, target, &defaults_of(&range, source));
                    if !set.is_empty() {
                        notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
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

fn defaults_of(range: &[Value], source: &str) -> BTreeMap<String, Value> {
    let of_containers = range.iter().filter(|item| item["type"] == "Container");
    let all = of_containers.flat_map(|item| item[source].as_object().into_iter().flatten());
    all.map(|(resource, value)| (resource.clone(), value.clone())).collect()
}

/// Gives a container what it does not set, and tells what that was.
fn fill(container: &mut Value, target: &str, defaults: &BTreeMap<String, Value>) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    if !container["resources"].is_object() {
        container["resources"] = serde_json::json!({});
    }
    let own = tree::object_at(&mut container["resources"], target);
    let missing: Vec<_> = defaults.iter().filter(|(resource, _)| !own.contains_key(*resource)).collect();
    own.extend(missing.iter().map(|(resource, value)| ((*resource).clone(), (*value).clone())));
    missing.into_iter().map(|(resource, _)| resource.clone()).collect()
}

/// Refuses what is outside of the limits.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    let is_limited = match (call.kind.group, call.kind.plural) {
        ("", "pods") => matches!(operation, Operation::Create | Operation::Update(Part::Resize)),
        ("", "persistentvolumeclaims") => matches!(operation, Operation::Create | Operation::Update(Part::Main)),
        _ => false,
    };
    if !is_limited || old.is_some_and(|old| tree::has(old, "/metadata/deletionTimestamp")) {
        return Ok(());
    }
    for range in ranges(call) {
        let mut errors = if call.kind.plural == "pods" { of_pod(&range, new) } else { of_claim(&range, new) };
        let mut told = std::collections::BTreeSet::new();
        errors.retain(|error| told.insert(error.clone()));
        let text = match errors.as_slice() {
            [] => continue,
            [one] => one.clone(),
            _ => format!("[{}]", errors.join(", ")),
        };
        return Err(Failure::forbidden(call.subject(), tree::name_given(new), &text));
    }
    Ok(())
}

type Amounts = BTreeMap<String, Amount>;

fn amounts(of: &Value) -> Amounts {
    let pairs = of.as_object().into_iter().flatten();
    pairs.filter_map(|(resource, text)| Some((resource.clone(), Amount::parse(text.as_str()?).ok()?))).collect()
}

/// What somebody asks for, and what it is held to.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn of(resources: &Value) -> Self {
        Self { requests: amounts(&resources["requests"]), limits: amounts(&resources["limits"]) }
    }
}

fn of_pod(range: &[Value], pod: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in range {
        match item["type"].as_str() {
            Some("Container") => {
                let all = tree::list(pod, "/spec/containers").iter().chain(tree::list(pod, "/spec/initContainers"));
                all.for_each(|container| compare(item, &Asked::of(&container["resources"]), "Container", &mut errors));
            }
            Some("Pod") => {
                let asked = Asked { requests: of_whole_pod(pod, "requests"), limits: of_whole_pod(pod, "limits") };
                compare(item, &asked, "Pod", &mut errors);
            }
            _ => {}
        }
    }
    errors
}

/// What a pod asks for as a whole: init containers run before the others, those that stay beside them.
fn of_whole_pod(pod: &Value, list: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][list]);
    let (mut total, mut staying, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    tree::list(pod, "/spec/containers").iter().for_each(|container| add(&mut total, of(container)));
    for container in tree::list(pod, "/spec/initContainers") {
        let mut own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, own.clone());
            add(&mut staying, own);
            own = staying.clone();
        } else {
            add(&mut own, staying.clone());
        }
        raise(&mut most, own);
    }
    raise(&mut total, most);
    let of_pod = amounts(&pod["spec"]["resources"][list]).into_iter();
    total.extend(of_pod.filter(|(resource, _)| matches!(resource.as_str(), "cpu" | "memory")));
    total
}

fn add(total: &mut Amounts, more: Amounts) {
    for (resource, amount) in more {
        let sum = total.get(&resource).map_or(amount, |own| own.plus(&amount));
        total.insert(resource, sum);
    }
}

fn raise(total: &mut Amounts, more: Amounts) {
    for (resource, amount) in more {
        if total.get(&resource).is_none_or(|own| own.minus(&amount).is_negative()) {
            total.insert(resource, amount);
        }
    }
}

/// Of claims the requests count alone.
fn of_claim(range: &[Value], claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for item in range.iter().filter(|item| item["type"] == KIND) {
        for (resource, bound) in &amounts(&item["min"]) {
            errors.extend(too_small((KIND, resource), bound, (requests.get(resource), None)));
        }
        for (resource, bound) in &amounts(&item["max"]) {
            let start = format!("maximum {resource} usage per {KIND} is {}", bound.canonical());
            match requests.get(resource) {
                None => errors.push(format!("{start}.  No request is specified")),
                Some(own) if is_above(own, bound) => {
                    errors.push(format!("{start}, but request is {}", own.canonical()));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

fn compare(item: &Value, asked: &Asked, kind: &str, errors: &mut Vec<String>) {
    let own = |resource: &String| (asked.requests.get(resource), asked.limits.get(resource));
    for (resource, bound) in &amounts(&item["min"]) {
        errors.extend(too_small((kind, resource), bound, own(resource)));
    }
    for (resource, bound) in &amounts(&item["max"]) {
        errors.extend(too_large((kind, resource), bound, own(resource)));
    }
    for (resource, bound) in &amounts(&item["maxLimitRequestRatio"]) {
        errors.extend(too_generous((kind, resource), bound, own(resource)));
    }
}

/// Requests and limits of one resource, where they are set.
type Own<'a> = (Option<&'a Amount>, Option<&'a Amount>);

fn is_above(own: &Amount, bound: &Amount) -> bool {
    bound.minus(own).is_negative()
}

fn too_small((kind, resource): (&str, &str), bound: &Amount, (request, limit): Own<'_>) -> Option<String> {
    let start = format!("minimum {resource} usage per {kind} is {}", bound.canonical());
    let Some(request) = request else { return Some(format!("{start}.  No request is specified")) };
    if is_above(bound, request) {
        return Some(format!("{start}, but request is {}", request.canonical()));
    }
    let limit = limit.filter(|limit| is_above(bound, limit))?;
    Some(format!("{start}, but limit is {}", limit.canonical()))
}

fn too_large((kind, resource): (&str, &str), bound: &Amount, (request, limit): Own<'_>) -> Option<String> {
    let start = format!("maximum {resource} usage per {kind} is {}", bound.canonical());
    let Some(limit) = limit else { return Some(format!("{start}.  No limit is specified")) };
    if is_above(limit, bound) {
        return Some(format!("{start}, but limit is {}", limit.canonical()));
    }
    let request = request.filter(|request| is_above(request, bound))?;
    Some(format!("{start}, but request is {}", request.canonical()))
}

fn too_generous((kind, resource): (&str, &str), bound: &Amount, (request, limit): Own<'_>) -> Option<String> {
    let start = format!("{resource} max limit to request ratio per {kind} is {}", bound.canonical());
    let Some(request) = request.filter(|r| !r.is_zero()) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|l| !l.is_zero()) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let ratio = to_float(limit) / to_float(request);
    (ratio > to_float(bound) / NANOS).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

const NANOS: f64 = 1e9;

/// Billionths as floating point, which is exact enough for a ratio.
#[allow(clippy::cast_precision_loss, reason = "a ratio is shown with six digits")]
fn to_float(amount: &Amount) -> f64 {
    amount.nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_judged_by_container_and_as_a_whole() {
        let range = [
            json!({"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "64Mi"},
                "maxLimitRequestRatio": {"cpu": "10"}}),
            json!({"type": "Pod", "max": {"cpu": "2"}}),
        ];
        let container = |cpu: &str| {
            json!({"name": "c", "resources": {
            "limits": {"cpu": cpu, "memory": "32Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}}})
        };
        let pod = json!({"spec": {"containers": [container("4")]}});
        assert_eq!(
            of_pod(&range, &pod),
            [
                "minimum memory usage per Container is 64Mi, but request is 32Mi",
                "maximum cpu usage per Container is 1, but limit is 4",
                "cpu max limit to request ratio per Container is 10, but provided ratio is 400.000000",
                "maximum cpu usage per Pod is 2, but limit is 4",
            ]
        );
        let sidecar = json!({"restartPolicy": "Always", "resources": {"limits": {"cpu": "1"}}});
        let first = json!({"resources": {"limits": {"cpu": "3"}}});
        let pod = json!({"spec": {"containers": [container("1")], "initContainers": [sidecar, first]}});
        assert_eq!(of_whole_pod(&pod, "limits")["cpu"].canonical(), "4");
    }

    #[test]
    fn of_claims_requests_count() {
        let range = [json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}, "min": {"storage": "1Gi"}})];
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert_eq!(
            of_claim(&range, &claim("5Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi"]
        );
        assert_eq!(
            of_claim(&range, &claim("5Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Mi"]
        );
        assert!(of_claim(&range, &claim("1Gi")).is_empty());
    }
}
