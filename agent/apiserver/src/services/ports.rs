//! Node ports.

use std::collections::{HashMap, HashSet};

use api::core::v1::{Service, ServiceSpec};
use rand::RngExt as _;

use super::refused;
use crate::app::{Call, now};
use crate::codec;
use crate::status::{Failure, FieldError, Result};
use crate::tree;

/// Ports given out a moment ago, whose Services the cache may not show yet.
pub type Reserved = parking_lot::Mutex<HashMap<i64, i64>>;

/// How long such a port stays set aside.
const RESERVE_SECONDS: i64 = 15;
/// What a try gives out lies above this.
const BELOW_TRIES: i32 = 32_768;

fn may_have(spec: &ServiceSpec) -> bool {
    matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer")
}

/// Whether every port gets a node port.
fn gets_all(spec: &ServiceSpec) -> bool {
    spec.r#type == "NodePort" || spec.r#type == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false)
}

/// Whether a Service has a port for health checks of its own.
fn has_health_port(spec: &ServiceSpec) -> bool {
    spec.r#type == "LoadBalancer" && spec.external_traffic_policy == "Local"
}

fn numbers(spec: &ServiceSpec) -> HashSet<i32> {
    spec.ports.iter().map(|port| port.node_port).filter(|number| *number != 0).collect()
}

/// Node ports that an update leaves out are kept, by the name of their port.
pub(super) fn keep(new: &mut ServiceSpec, old: &ServiceSpec) {
    if may_have(old) && may_have(new) {
        let used = numbers(new);
        for port in new.ports.iter_mut().filter(|port| port.node_port == 0) {
            let before = old.ports.iter().rev().find(|before| before.name == port.name);
            port.node_port = before.map(|before| before.node_port).filter(|n| !used.contains(n)).unwrap_or(0);
        }
    }
    if has_health_port(old) && has_health_port(new) && new.health_check_node_port == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Ports go with the type that they were given for.
pub(super) fn drop_unused(new: &mut ServiceSpec, old: &ServiceSpec) {
    if may_have(old) && !may_have(new) && numbers(new).is_subset(&numbers(old)) {
        new.ports.iter_mut().for_each(|port| port.node_port = 0);
    }
    if has_health_port(old) && !has_health_port(new) && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = 0;
    }
}

/// Ports that one change takes.
struct Operation<'a> {
    call: &'a Call,
    /// Ports of other Services, and of this one as it was.
    taken: HashSet<i64>,
    own: Vec<i32>,
    is_try: bool,
}

impl Operation<'_> {
    fn take(&mut self, number: i32) -> std::result::Result<(), String> {
        const ALLOCATED: &str = "provided port is already allocated";
        let (first, last) = self.call.app.config.node_ports;
        if !self.is_try && !(i32::from(first)..=i32::from(last)).contains(&number) {
            return Err(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
        }
        if self.taken.contains(&i64::from(number)) || self.own.contains(&number) {
            return Err(ALLOCATED.to_owned());
        }
        self.own.push(number);
        if !self.is_try {
            self.call.app.reserved_ports.lock().insert(number.into(), now());
        }
        Ok(())
    }

    fn take_any(&mut self) -> Result<i32> {
        if self.is_try {
            // As upstream counts: the highest number is followed by the lowest, which validation refuses.
            let number = self.own.iter().max().copied().unwrap_or(BELOW_TRIES).wrapping_add(1);
            self.own.push(number);
            return Ok(number);
        }
        let (first, last) =
            (i32::from(self.call.app.config.node_ports.0), i32::from(self.call.app.config.node_ports.1));
        let start = rand::rng().random_range(first..=last);
        for number in (start..=last).chain(first..start) {
            if self.take(number).is_ok() {
                return Ok(number);
            }
        }
        Err(Failure::internal("failed to allocate a nodePort: range is full"))
    }
}

/// Checks the ports a Service names and gives it those it lacks.
pub(super) fn allocate(call: &Call, service: &mut Service, old: Option<&ServiceSpec>) -> Result<()> {
    if !may_have(&service.spec) && !has_health_port(&service.spec) {
        return Ok(());
    }
    let mut operation =
        Operation { call, taken: taken(call, &service.metadata.name)?, own: Vec::new(), is_try: call.is_dry_run()? };
    let kept = old.filter(|old| may_have(old)).map(numbers).unwrap_or_default();
    if may_have(&service.spec) {
        node_ports(service, old.is_some(), &kept, &mut operation)?;
    }
    if has_health_port(&service.spec) && !old.is_some_and(has_health_port) {
        let number = &mut service.spec.health_check_node_port;
        if *number == 0 {
            *number = operation.take_any()?;
        } else {
            operation.take(*number).map_err(|why| {
                Failure::internal(format!("failed to allocate requested HealthCheck NodePort {number}: {why}"))
            })?;
        }
    }
    Ok(())
}

fn node_ports(
    service: &mut Service,
    is_change: bool,
    kept: &HashSet<i32>,
    operation: &mut Operation<'_>,
) -> Result<()> {
    let gives = gets_all(&service.spec);
    // One number may serve several protocols of the same port.
    let mut of_port: HashMap<i32, i32> = HashMap::new();
    for i in 0..service.spec.ports.len() {
        let (port, asked) = (service.spec.ports[i].port, service.spec.ports[i].node_port);
        if asked == 0 && !gives {
            continue;
        }
        let shared = of_port.get(&port).copied().filter(|_| !is_change);
        let named = service.spec.ports.iter().find(|p| p.port == port && p.node_port != 0).map_or(0, |p| p.node_port);
        let wanted = if is_change { asked } else { shared.map_or(named, |n| if asked == 0 { n } else { asked }) };
        let number =
            if shared == Some(wanted) || is_change && (kept.contains(&wanted) || operation.own.contains(&wanted)) {
                wanted
            } else if wanted == 0 {
                operation.take_any()?
            } else {
                operation.take(wanted).map_err(|why| {
                    let error = FieldError::invalid(format!("spec.ports[{i}].nodePort"), wanted, why);
                    refused(operation.call, service, &[error])
                })?;
                wanted
            };
        of_port.entry(port).or_insert(number);
        service.spec.ports[i].node_port = number;
    }
    Ok(())
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
