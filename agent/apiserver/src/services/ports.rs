//! Node ports.

use std::collections::{HashMap, HashSet};

use rand::RngExt as _;
use serde_json::Value;

use crate::app::{Call, now};
use crate::codec;
use crate::status::{Failure, FieldError, Result};
use crate::tree;

/// Ports given out a moment ago, whose Services the cache may not show yet.
pub type Reserved = parking_lot::Mutex<HashMap<i64, i64>>;

/// How long such a port stays set aside.
const RESERVE_SECONDS: i64 = 15;

fn wants(service: &Value) -> bool {
    match tree::text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether a Service has a port for health checks of its own.
fn wants_health_port(service: &Value) -> bool {
    tree::text(service, "/spec/type") == "LoadBalancer" && tree::text(service, "/spec/externalTrafficPolicy") == "Local"
}

/// Node ports that an update leaves out are kept.
pub(super) fn keep(new: &mut Value, old: &Value) {
    let may_have = matches!(tree::text(new, "/spec/type"), "NodePort" | "LoadBalancer");
    let before = tree::list(old, "/spec/ports").to_vec();
    let had = matches!(tree::text(old, "/spec/type"), "NodePort" | "LoadBalancer");
    if !had || !may_have {
        if had && !may_have {
            // A port that was given by the server goes with the type; one named anew is for validation to refuse.
            for port in new["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if before.iter().any(|b| b["nodePort"] == port["nodePort"]) {
                    tree::remove(port, "nodePort");
                }
            }
            tree::remove(&mut new["spec"], "healthCheckNodePort");
        }
        return;
    }
    for port in new["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let same = |b: &&Value| b["port"] == port["port"] && b["protocol"] == port["protocol"];
        if let Some(from) = before.iter().find(same).filter(|b| b["nodePort"].as_i64().unwrap_or(0) != 0) {
            port["nodePort"] = from["nodePort"].clone();
        }
    }
    if wants_health_port(new) && new["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        tree::copy_key(&mut new["spec"], &old["spec"], "healthCheckNodePort");
    }
}

/// Checks the ports a Service names and gives it those it lacks.
pub(super) fn allocate(call: &Call, service: &mut Value, old: Option<&Value>) -> Result<()> {
    if !wants(service) && !wants_health_port(service) {
        return Ok(());
    }
    let name = tree::text(service, "/metadata/name").to_owned();
    let mut taken = taken(call, &name)?;
    let own: HashSet<i64> =
        old.map_or(&[][..], |o| tree::list(o, "/spec/ports")).iter().filter_map(|p| p["nodePort"].as_i64()).collect();
    let (first, last) = call.app.config.node_ports;
    let dry_run = call.is_dry_run()?;
    let mut errors = Vec::new();
    let give = wants(service);
    let mut within: HashMap<i64, Vec<Value>> = HashMap::new();
    for (i, port) in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let asked = port["nodePort"].as_i64().unwrap_or(0);
        let field = format!("spec.ports[{i}].nodePort");
        if asked != 0 {
            // One number may serve several protocols of the same Service.
            let again = within.entry(asked).or_default();
            if again.contains(&port["protocol"]) {
                errors.push(FieldError::invalid(field, asked, "provided port is already allocated"));
            } else if !(i64::from(first)..=i64::from(last)).contains(&asked) {
                let text =
                    format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
                errors.push(FieldError::invalid(field, asked, text));
            } else if taken.contains(&asked) && !own.contains(&asked) && again.is_empty() {
                errors.push(FieldError::invalid(field, asked, "provided port is already allocated"));
            }
            again.push(port["protocol"].clone());
        } else if give {
            let found = free(call, &mut taken, dry_run)?;
            within.entry(found).or_default().push(port["protocol"].clone());
            port["nodePort"] = found.into();
        }
    }
    if wants_health_port(service) && service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        service["spec"]["healthCheckNodePort"] = free(call, &mut taken, dry_run)?.into();
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(call.kind_subject(), &name, &errors)) }
}

/// Ports of all other Services.
fn taken(call: &Call, name: &str) -> Result<HashSet<i64>> {
    let storage = call.app.cache.known("", "services");
    let mut taken = HashSet::new();
    for object in storage.snapshot().values() {
        if object.name() == name && object.namespace() == call.namespace() {
            continue;
        }
        let value = codec::to_value(storage, storage.kind, object)?;
        taken.extend(tree::list(&value, "/spec/ports").iter().filter_map(|p| p["nodePort"].as_i64()));
        taken.extend(tree::integer(&value, "/spec/healthCheckNodePort"));
    }
    let now = now();
    let mut reserved = call.app.reserved_ports.lock();
    reserved.retain(|_, at| now - *at < RESERVE_SECONDS);
    taken.extend(reserved.keys().copied());
    taken.remove(&0);
    Ok(taken)
}

fn free(call: &Call, taken: &mut HashSet<i64>, dry_run: bool) -> Result<i64> {
    let (first, last) = (i64::from(call.app.config.node_ports.0), i64::from(call.app.config.node_ports.1));
    let start = rand::rng().random_range(first..=last);
    let found = (start..=last).chain(first..start).find(|p| !taken.contains(p));
    let port = found.ok_or_else(|| Failure::internal("failed to allocate a nodePort: range is full"))?;
    taken.insert(port);
    if !dry_run {
        call.app.reserved_ports.lock().insert(port, now());
    }
    Ok(port)
}
