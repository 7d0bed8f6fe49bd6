//! Addresses and ports of Services.
//!
//! An address is taken by making its IPAddress object, which only one can; so no table of taken addresses exists. Node
//! ports are taken by the Services that have them, and for a moment by those just being written.
//!
//! Both are given before the Service is looked at as a whole, since its rules speak of them; what was taken for one that
//! is then refused is given back.

mod families;
mod ports;
mod repair;
mod start;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::core::v1::{Service, ServiceSpec};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::codec;
use crate::config::IpRange;
use crate::handlers::create_object;
use crate::metrics::Text;
use crate::start::internal_call;
use crate::status::{Failure, FieldError, Result};
use crate::tree;
use crate::validation::shown;

pub use ports::Reserved;
pub use repair::run as keep_repaired;
pub use start::start;

/// Random addresses that are tried before all are.
const RANDOM_ATTEMPTS: usize = 64;
/// Addresses tried one after the other once chance did not help.
const LINEAR_ATTEMPTS: u128 = 4096;
const MESSAGE: &str = "k8s.io.api.core.v1.Service";
/// Whose address objects are: those of others are left alone.
const MANAGER_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// Instead of an address: a Service without one.
const NO_ADDRESS: &str = "None";

/// Addresses that a change took, and those that it needs no more.
#[derive(Default)]
pub struct Taken {
    taken: Vec<String>,
    unneeded: Vec<String>,
}

impl Taken {
    /// Lets go of what is not needed, now that the change is made or not.
    pub async fn settle(self, call: &Call, is_done: bool) {
        if call.is_dry_run().unwrap_or(false) {
            return;
        }
        for address in if is_done { self.unneeded } else { self.taken } {
            forget(&call.app, &address).await;
        }
    }
}

/// Gives a Service its addresses and ports, or keeps those that `old` has.
pub async fn begin(call: &Call, new: &mut Value, old: Option<&Value>) -> Result<Taken> {
    let mut service = codec::typed::<Service>(codec::schema(MESSAGE), new)?;
    let old = old.map(|old| codec::typed::<Service>(codec::schema(MESSAGE), old)).transpose()?;
    let mut taken = Taken::default();
    let given = give(call, &mut service, old.as_ref(), &mut taken).await;
    if let Err(failure) = given {
        taken.settle(call, false).await;
        return Err(failure);
    }
    let raw = prost::Message::encode_to_vec(&service);
    let mut tree = api::transcode::proto_to_value(codec::schema(MESSAGE), &raw, None).map_err(Failure::internal)?;
    for key in ["spec", "status"] {
        new[key] = tree[key].take();
    }
    Ok(taken)
}

async fn give(call: &Call, service: &mut Service, old: Option<&Service>, taken: &mut Taken) -> Result<()> {
    let before = old.map(|old| &old.spec);
    if let Some(before) = before {
        keep_given(&mut service.spec, before);
        ports::keep(&mut service.spec, before);
    }
    normalize(&mut service.spec, before);
    families::set(call, service, before)?;
    match before {
        None => take_addresses(call, service, taken).await?,
        Some(before) => change_addresses(call, service, before, taken).await?,
    }
    ports::allocate(call, service, before)?;
    if !is_cluster(&service.spec) && service.spec.internal_traffic_policy.as_deref() == Some("Cluster") {
        // Upstream keeps the default of a former type, and never shows it.
        service.spec.internal_traffic_policy = None;
    }
    if let Some(before) = before {
        drop_what_no_type_has(&mut service.spec, before);
        if service.spec.r#type != "LoadBalancer" {
            service.status.load_balancer = Default::default();
        }
    }
    Ok(())
}

fn is_cluster(spec: &ServiceSpec) -> bool {
    spec.r#type != "ExternalName"
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip == NO_ADDRESS
}

/// What an update leaves out it keeps.
fn keep_given(new: &mut ServiceSpec, old: &ServiceSpec) {
    if !is_cluster(new) || !is_cluster(old) {
        return;
    }
    if new.cluster_ip.is_empty() {
        new.cluster_ip.clone_from(&old.cluster_ip);
    }
    if new.cluster_ips.is_empty() {
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
}

/// Who knows only one of the two fields for addresses sets the other, too.
fn normalize(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        if !new.cluster_ip.is_empty() && new.cluster_ips.is_empty() {
            new.cluster_ips = vec![new.cluster_ip.clone()];
        }
        return;
    };
    let same = old.cluster_ip == new.cluster_ip;
    if same && new.cluster_ips.is_empty() {
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
    if !same && old.cluster_ips == new.cluster_ips {
        new.cluster_ips = if new.cluster_ip.is_empty() { Vec::new() } else { vec![new.cluster_ip.clone()] };
    }
}

/// What depends on the type goes with it, unless the client set it anew.
fn drop_what_no_type_has(new: &mut ServiceSpec, old: &ServiceSpec) {
    if is_cluster(old) && !is_cluster(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip.clear();
            new.cluster_ips.clear();
        }
        if new.ip_families == old.ip_families {
            new.ip_families.clear();
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    ports::drop_unused(new, old);
    let balances = |spec: &ServiceSpec| spec.r#type == "LoadBalancer";
    if balances(old) && !balances(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    let reachable = |spec: &ServiceSpec| match spec.r#type.as_str() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.external_ips.is_empty(),
        _ => false,
    };
    if reachable(old) && !reachable(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy.clear();
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn refused(call: &Call, service: &Service, errors: &[FieldError]) -> Failure {
    Failure::invalid(call.kind_subject(), &service.metadata.name, errors)
}

/// Takes an address of each family.
async fn take_addresses(call: &Call, service: &mut Service, taken: &mut Taken) -> Result<()> {
    let first = service.spec.cluster_ips.first();
    if !is_cluster(&service.spec) || first.is_some_and(|first| first == NO_ADDRESS) {
        return Ok(());
    }
    for i in 0..service.spec.ip_families.len() {
        take_one(call, service, i, taken).await?;
    }
    service.spec.cluster_ip = service.spec.cluster_ips.first().cloned().unwrap_or_default();
    Ok(())
}

async fn change_addresses(call: &Call, service: &mut Service, old: &ServiceSpec, taken: &mut Taken) -> Result<()> {
    if !is_cluster(old) {
        return take_addresses(call, service, taken).await;
    }
    if is_headless(old) {
        return Ok(());
    }
    if !is_cluster(&service.spec) {
        taken.unneeded.clone_from(&old.cluster_ips);
        return Ok(());
    }
    match (old.ip_families.len(), service.spec.ip_families.len()) {
        (1, 2) => take_one(call, service, 1, taken).await,
        (2, 1) => {
            taken.unneeded.extend(old.cluster_ips.get(1).cloned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes the address of the family with this number: the one that is named, or any.
async fn take_one(call: &Call, service: &mut Service, i: usize, taken: &mut Taken) -> Result<()> {
    let asked = service.spec.cluster_ips.get(i).cloned().unwrap_or_default();
    let address = if asked.is_empty() {
        let wanted = &service.spec.ip_families[i];
        let range = call.app.config.service_ranges.iter().find(|r| family(r.base) == wanted);
        let range = *range.ok_or_else(|| Failure::internal(format!("no service range of family {wanted}")))?;
        take_any(call, service, range).await?
    } else {
        take_given(call, service, &asked).await?;
        asked
    };
    taken.taken.push(address.clone());
    if let Some(place) = service.spec.cluster_ips.get_mut(i) {
        *place = address;
    } else {
        service.spec.cluster_ips.push(address);
    }
    Ok(())
}

/// Takes the address that the client named.
async fn take_given(call: &Call, service: &Service, text: &str) -> Result<()> {
    let refuse = |why: String| {
        let why = format!("failed to allocate IP {text}: {why}");
        let error = FieldError::invalid("spec.clusterIPs", shown::texts(&service.spec.cluster_ips), why);
        refused(call, service, &[error])
    };
    let Some(address) = crate::validation::addresses::parse_sloppy(text) else {
        return Err(Failure::internal(format!("failed to parse service IP {text:?}")));
    };
    let ranges = &call.app.config.service_ranges;
    let is_within = ranges.iter().any(|range| range.contains(address));
    if call.is_dry_run()? {
        // A try is told of the range.
        let range = ranges.iter().find(|range| family(range.base) == family(address)).filter(|_| !is_within);
        return range.map_or(Ok(()), |range| {
            let why =
                format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}");
            Err(refuse(why))
        });
    }
    if !is_within {
        return Err(refuse("the provided network does not match the current range".to_owned()));
    }
    match take(call, service, address).await {
        Err(f) if f.reason() == "AlreadyExists" => Err(refuse("provided IP is already allocated".to_owned())),
        other => other,
    }
}

/// Takes a free address: by chance above the part that is kept for named ones, else one after the other.
async fn take_any(call: &Call, service: &Service, range: IpRange) -> Result<String> {
    let size = range.size();
    let offset = (size / 16).clamp(16, 256).min(size / 2);
    let storage = call.app.cache.known("networking.k8s.io", "ipaddresses");
    if call.is_dry_run()? {
        // A try takes nothing, so it shows the range's first address.
        return Ok(range.base.to_string());
    }
    let random = |from: u128, to: u128| rand::rng().random_range(from..to.max(from + 1));
    let chance = (0..RANDOM_ATTEMPTS).map(|_| random(offset.max(1), size.saturating_sub(1)));
    let linear = 1..size.saturating_sub(1).min(LINEAR_ATTEMPTS);
    for index in chance.collect::<Vec<_>>().into_iter().chain(linear) {
        let address = range.nth(index);
        if storage.get("", &address.to_string()).is_some() {
            continue;
        }
        match take(call, service, address).await {
            Ok(()) => return Ok(address.to_string()),
            Err(failure) if failure.reason() == "AlreadyExists" => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::internal("failed to allocate a serviceIP: range is full"))
}

async fn take(call: &Call, service: &Service, address: IpAddr) -> Result<()> {
    let Some(kind) = api::kind_by_name("networking.k8s.io/v1", "IPAddress") else { return Ok(()) };
    let internal = internal_call(&call.app, kind, "", "create");
    let object = json!({
        "metadata": {"name": address.to_string(), "labels": {
            "ipaddress.kubernetes.io/ip-family": family(address),
            MANAGER_LABEL: MANAGER,
        }},
        "spec": {"parentRef": {
            "resource": "services", "namespace": service.metadata.namespace, "name": service.metadata.name,
        }},
    });
    // The creation of a Service is on the way here already: without the box the future would contain itself.
    let object = crate::codec::canonical(internal.kind, &object)?;
    Box::pin(create_object(&internal, object)).await.map(|_| ())
}

async fn forget(app: &Arc<App>, address: &str) {
    let storage = app.cache.known("networking.k8s.io", "ipaddresses");
    let key = storage.store_key("", address);
    let store = app.cache.store();
    let Ok(found) = store.get(key.as_bytes(), None).await else { return };
    let Some(kv) = found.kv else { return };
    if let Err(error) = store.delete(key.into(), kv.mod_revision).await {
        tracing::warn!(address, %error, "an address could not be given back");
    }
}

/// How many addresses of each range are taken and how many are left, as metrics.
pub fn write_allocated(app: &App, out: &mut Text) {
    let storage = app.cache.known("networking.k8s.io", "ipaddresses");
    let taken: Vec<IpAddr> = storage.snapshot().values().filter_map(|object| object.name().parse().ok()).collect();
    let count = |range: IpRange| taken.iter().filter(|address| range.contains(**address)).count() as u128;
    let ranges: Vec<(String, u128, u128)> =
        app.config.service_ranges.iter().map(|range| (range.to_string(), count(*range), range.usable())).collect();
    let name = "kube_apiserver_clusterip_allocator_allocated_ips";
    out.family(name, "gauge", "Addresses of Services that are taken.");
    for (range, taken, _) in &ranges {
        out.sample(name, &[("cidr", range)], taken);
    }
    let name = "kube_apiserver_clusterip_allocator_available_ips";
    out.family(name, "gauge", "Addresses of Services that are left.");
    for (range, taken, all) in &ranges {
        out.sample(name, &[("cidr", range)], all.saturating_sub(*taken));
    }
}

/// Gives back what a deleted object held.
pub async fn after_delete(call: &Call, value: &Value) {
    let dry_run = call.is_dry_run().unwrap_or(false);
    if call.kind.group.is_empty() && call.kind.plural == "services" && !dry_run {
        let addresses = tree::list(value, "/spec/clusterIPs").iter().filter_map(Value::as_str);
        for address in addresses.filter(|a| *a != NO_ADDRESS) {
            forget(&call.app, address).await;
        }
    }
}

impl IpRange {
    /// How many addresses Services can have: neither the first, nor the last one of IPv4.
    fn usable(self) -> u128 {
        let all = 1_u128.checked_shl(self.bits() - u32::from(self.prefix)).unwrap_or(u128::MAX);
        let reserved = if self.base.is_ipv4() { 2 } else { 1 };
        all.saturating_sub(reserved).min(i64::MAX.unsigned_abs().into())
    }

    fn bits(self) -> u32 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    /// How many addresses there are, of very wide ranges as many as are ever used.
    fn size(self) -> u128 {
        1u128 << (self.bits() - u32::from(self.prefix)).min(20)
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    /// The address at this distance from the base.
    #[must_use]
    pub fn nth(self, index: u128) -> IpAddr {
        let number = Self::number(self.base) + index;
        match self.base {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        let shift = self.bits() - u32::from(self.prefix);
        let cut = |number: u128| number.checked_shr(shift).unwrap_or(0);
        address.is_ipv4() == self.base.is_ipv4() && cut(Self::number(address)) == cut(Self::number(self.base))
    }
}

impl std::fmt::Display for IpRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_and_contain() {
        let range: IpRange = "10.96.0.0/16".parse().unwrap();
        assert_eq!(range.nth(1).to_string(), "10.96.0.1");
        assert!(range.contains("10.96.255.1".parse().unwrap()) && !range.contains("10.97.0.0".parse().unwrap()));
        let six: IpRange = "fd00::/108".parse().unwrap();
        assert_eq!(six.nth(16).to_string(), "fd00::10");
        assert!("10.0.0.0/33".parse::<IpRange>().is_err());
    }
}
