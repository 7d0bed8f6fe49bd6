//! ResourceQuota: what a namespace may hold.
//!
//! Used amounts are counted from the cache at each creation, so that nothing has to be reserved and given back; two
//! creations at the very same moment can both pass.

use api::quantity::Amount;
use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

/// Refuses an object that would take a namespace over its quota.
pub(super) fn check(call: &Call, new: &Value) -> Result<()> {
    if !call.kind.namespaced {
        return Ok(());
    }
    let storage = call.app.cache.known("", "resourcequotas");
    let prefix = format!("{}/", call.namespace());
    let all = storage.snapshot();
    for (_, object) in all.iter().filter(|(k, _)| k.starts_with(&prefix)) {
        let quota = codec::to_value(storage, storage.kind, object)?;
        // Quotas with scopes count a part of the pods only; that part is the quota controller's to judge.
        if tree::has(&quota, "/spec/scopes") || tree::has(&quota, "/spec/scopeSelector") {
            continue;
        }
        check_one(call, &quota, new)?;
    }
    Ok(())
}

fn check_one(call: &Call, quota: &Value, new: &Value) -> Result<()> {
    let mut over: Vec<(String, String, String, String)> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for (resource, hard) in quota["spec"]["hard"].as_object().into_iter().flatten() {
        let Some(limit) = hard.as_str().and_then(|t| Amount::parse(t).ok()) else { continue };
        let Some(asked) = usage(call, resource, new) else { continue };
        if must_be_set(call, resource) && asked.is_zero() {
            missing.push(resource);
            continue;
        }
        if asked.is_zero() {
            continue;
        }
        let used = used(call, resource)?;
        if limit.minus(&used.plus(&asked)).is_negative() {
            let text = |amount: &Amount| format!("{resource}={}", amount.canonical());
            over.push((resource.clone(), text(&asked), text(&used), text(&limit)));
        }
    }
    let name = tree::text(quota, "/metadata/name");
    let object = tree::text(new, "/metadata/name");
    if !missing.is_empty() {
        let containers = containers_of(new);
        let each: Vec<String> = missing.iter().map(|resource| format!("{resource} for: {containers}")).collect();
        let text = format!("failed quota: {name}: must specify {}", each.join("; "));
        return Err(Failure::forbidden(call.subject(), object, &text));
    }
    if over.is_empty() {
        return Ok(());
    }
    let join = |pick: fn(&(String, String, String, String)) -> &String| {
        over.iter().map(|o| pick(o).as_str()).collect::<Vec<_>>().join(",")
    };
    let text = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        join(|o| &o.1),
        join(|o| &o.2),
        join(|o| &o.3)
    );
    Err(Failure::forbidden(call.subject(), object, &text))
}

fn containers_of(pod: &Value) -> String {
    let names: Vec<&str> = tree::list(pod, "/spec/containers").iter().filter_map(|c| c["name"].as_str()).collect();
    names.join(",")
}

/// Compute resources under quota have to be named by every pod.
fn must_be_set(call: &Call, resource: &str) -> bool {
    call.kind.plural == "pods"
        && matches!(resource, "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory")
}

/// How much of a resource an object takes; `None` if the resource is not of its kind.
fn usage(call: &Call, resource: &str, object: &Value) -> Option<Amount> {
    let (group, plural) = (call.kind.group, call.kind.plural);
    let one = || Amount::parse("1").ok();
    let counted = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
    if resource == counted || (resource == plural && group.is_empty()) {
        return one();
    }
    match (plural, resource) {
        ("pods", "cpu") => sum(object, "requests", "cpu"),
        ("pods", "memory") => sum(object, "requests", "memory"),
        ("pods", other) => match other.split_once('.') {
            Some((list @ ("requests" | "limits"), name)) => sum(object, list, name),
            _ => None,
        },
        ("persistentvolumeclaims", "requests.storage") => {
            Amount::parse(object["spec"]["resources"]["requests"]["storage"].as_str().unwrap_or("0")).ok()
        }
        ("services", "services.nodeports") => {
            let wanted = matches!(tree::text(object, "/spec/type"), "NodePort" | "LoadBalancer");
            let ports = tree::list(object, "/spec/ports").len();
            Amount::parse(&if wanted { ports } else { 0 }.to_string()).ok()
        }
        ("services", "services.loadbalancers") => {
            Amount::parse(if tree::text(object, "/spec/type") == "LoadBalancer" { "1" } else { "0" }).ok()
        }
        _ => None,
    }
}

fn sum(pod: &Value, list: &str, name: &str) -> Option<Amount> {
    if matches!(tree::text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return Amount::parse("0").ok();
    }
    let zero = Amount::parse("0").ok()?;
    let amounts = tree::list(pod, "/spec/containers")
        .iter()
        .filter_map(|c| Amount::parse(c["resources"][list][name].as_str()?).ok());
    Some(amounts.fold(zero, |total, a| total.plus(&a)))
}

/// How much of a resource the namespace holds.
fn used(call: &Call, resource: &str) -> Result<Amount> {
    let storage = call.storage()?;
    let prefix = format!("{}/", call.namespace());
    let mut total = Amount::parse("0").map_err(Failure::internal)?;
    for (_, object) in storage.snapshot().iter().filter(|(k, _)| k.starts_with(&prefix)) {
        let value = codec::to_value(storage, call.kind, object)?;
        let finished =
            call.kind.plural == "pods" && matches!(tree::text(&value, "/status/phase"), "Succeeded" | "Failed");
        if let (false, Some(own)) = (finished, usage(call, resource, &value)) {
            total = total.plus(&own);
        }
    }
    Ok(total)
}
