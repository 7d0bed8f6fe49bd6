//! Addresses and ports of Services.
//!
//! An address is taken by making its IPAddress object, which only one can; so no table of taken addresses exists. Node
//! ports are taken by the Services that have them, and for a moment by those just being written.

mod ports;
mod start;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rand::RngExt as _;
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::config::IpRange;
use crate::handlers::create_object;
use crate::start::internal_call;
use crate::status::{Failure, FieldError, Result};
use crate::tree;

pub use ports::Reserved;
pub use start::start;

/// Random addresses that are tried before all are.
const RANDOM_ATTEMPTS: usize = 64;
/// Addresses tried one after the other once chance did not help.
const LINEAR_ATTEMPTS: u128 = 4096;

/// Gives a Service its addresses and ports, or keeps those it has.
pub async fn allocate(call: &Call, new: &mut Value, old: Option<&Value>) -> Result<()> {
    if let Some(old) = old {
        keep_allocated(new, old);
        check_unchanged(call, new, old)?;
    }
    set_families(call, new, old)?;
    take_addresses(call, new, old).await?;
    ports::allocate(call, new, old)?;
    if let Some(old) = old
        && !is_cluster(new)
    {
        release(call, old).await;
    }
    Ok(())
}

fn is_cluster(service: &Value) -> bool {
    tree::text(service, "/spec/type") != "ExternalName"
}

fn is_headless(service: &Value) -> bool {
    tree::text(service, "/spec/clusterIP") == "None"
}

/// What an update leaves out it keeps: addresses, families, ports.
fn keep_allocated(new: &mut Value, old: &Value) {
    if !is_cluster(new) || !is_cluster(old) {
        if !is_cluster(new) {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                tree::remove(&mut new["spec"], key);
            }
        }
        return;
    }
    let given = tree::text(new, "/spec/clusterIP").to_owned();
    if given.is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            tree::copy_key(&mut new["spec"], &old["spec"], key);
        }
    } else if tree::list(new, "/spec/clusterIPs").is_empty() {
        tree::copy_key(&mut new["spec"], &old["spec"], "clusterIPs");
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if !tree::has(&new["spec"], &format!("/{key}")) {
            tree::copy_key(&mut new["spec"], &old["spec"], key);
        }
    }
    ports::keep(new, old);
}

fn check_unchanged(call: &Call, new: &Value, old: &Value) -> Result<()> {
    let (before, after) = (tree::text(old, "/spec/clusterIP"), tree::text(new, "/spec/clusterIP"));
    if !before.is_empty() && is_cluster(new) && is_cluster(old) && before != after {
        let error = FieldError::invalid("spec.clusterIPs[0]", json!([after]), "may not change once set");
        return Err(Failure::invalid(call.kind_subject(), tree::text(new, "/metadata/name"), &[error]));
    }
    Ok(())
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Sets the families and the policy that follow from the ranges and from what is asked for.
fn set_families(call: &Call, service: &mut Value, _old: Option<&Value>) -> Result<()> {
    if !is_cluster(service) {
        return Ok(());
    }
    let ranges: Vec<&'static str> = call.app.config.service_ranges.iter().map(|r| family(r.base)).collect();
    let primary = ranges.first().copied().unwrap_or("IPv4");
    let other = |f: &str| if f == "IPv4" { "IPv6" } else { "IPv4" };
    let selectorless = is_headless(service) && !tree::has(service, "/spec/selector");
    let asked: Vec<String> =
        tree::list(service, "/spec/ipFamilies").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
    let policy = match tree::text(service, "/spec/ipFamilyPolicy") {
        "" if asked.len() > 1 || selectorless && asked.is_empty() => "RequireDualStack",
        "" => "SingleStack",
        given => given,
    }
    .to_owned();
    let given = tree::text(service, "/spec/clusterIP").parse::<IpAddr>().ok().map(family);
    let first = asked.first().map(String::as_str).or(given).unwrap_or(primary).to_owned();
    for wanted in &asked {
        if !ranges.contains(&wanted.as_str()) && !selectorless {
            let error = FieldError::invalid("spec.ipFamilies[0]", wanted.as_str(), "not configured on this cluster");
            return Err(Failure::invalid(call.kind_subject(), tree::text(service, "/metadata/name"), &[error]));
        }
    }
    let both = match policy.as_str() {
        "RequireDualStack" if ranges.len() < 2 && !selectorless => {
            let text = "this cluster is not configured for dual-stack services";
            let error = FieldError::invalid("spec.ipFamilyPolicy", policy.as_str(), text);
            return Err(Failure::invalid(call.kind_subject(), tree::text(service, "/metadata/name"), &[error]));
        }
        "RequireDualStack" => true,
        "PreferDualStack" => ranges.len() > 1,
        _ => false,
    };
    let families = if both { vec![first.clone(), other(&first).to_owned()] } else { vec![first] };
    service["spec"]["ipFamilies"] = json!(families);
    service["spec"]["ipFamilyPolicy"] = policy.into();
    Ok(())
}

async fn take_addresses(call: &Call, service: &mut Value, old: Option<&Value>) -> Result<()> {
    if !is_cluster(service) {
        return Ok(());
    }
    let mut addresses: Vec<String> =
        tree::list(service, "/spec/clusterIPs").iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    if let (true, first @ 1..) = (addresses.is_empty(), tree::text(service, "/spec/clusterIP").len()) {
        addresses.push(tree::text(service, "/spec/clusterIP")[..first].to_owned());
    }
    if addresses.first().is_some_and(|a| a == "None") {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    let families: Vec<String> =
        tree::list(service, "/spec/ipFamilies").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
    let held: Vec<&str> =
        old.map_or(Vec::new(), |o| tree::list(o, "/spec/clusterIPs").iter().filter_map(Value::as_str).collect());
    addresses.truncate(families.len());
    if !call.is_dry_run()? {
        for (i, address) in addresses.iter().enumerate() {
            if !held.contains(&address.as_str())
                && let Err(failure) = take_given(call, service, address).await
            {
                give_back(call, &addresses[..i], &held).await;
                return Err(failure);
            }
        }
    }
    for wanted in &families[addresses.len()..] {
        let range = call.app.config.service_ranges.iter().find(|r| family(r.base) == wanted);
        let range = *range.ok_or_else(|| Failure::internal(format!("no service range of family {wanted}")))?;
        addresses.push(take_any(call, service, range).await?);
    }
    service["spec"]["clusterIP"] = addresses.first().map(String::as_str).unwrap_or_default().into();
    service["spec"]["clusterIPs"] = json!(addresses);
    Ok(())
}

async fn give_back(call: &Call, addresses: &[String], held: &[&str]) {
    for address in addresses.iter().filter(|a| !held.contains(&a.as_str())) {
        forget(&call.app, address).await;
    }
}

/// Takes the address that the client named.
async fn take_given(call: &Call, service: &Value, text: &str) -> Result<()> {
    let name = tree::text(service, "/metadata/name");
    let refuse = |why: String| {
        let error = FieldError::invalid("spec.clusterIPs", json!([text]), why);
        Failure::invalid(call.kind_subject(), name, &[error])
    };
    let address: IpAddr = text.parse().map_err(|_| {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        let error = FieldError::invalid("spec.clusterIPs[0]", text, why);
        Failure::invalid(call.kind_subject(), name, &[error])
    })?;
    let ranges = &call.app.config.service_ranges;
    if !ranges.iter().any(|r| r.contains(address)) {
        let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        return Err(refuse(format!(
            "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
            all.join(",")
        )));
    }
    match take(call, service, address).await {
        Err(f) if f.reason() == "AlreadyExists" => {
            Err(refuse(format!("failed to allocate IP {text}: provided IP is already allocated")))
        }
        other => other,
    }
}

/// Takes a free address: by chance above the part that is kept for named ones, else one after the other.
async fn take_any(call: &Call, service: &Value, range: IpRange) -> Result<String> {
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

async fn take(call: &Call, service: &Value, address: IpAddr) -> Result<()> {
    let Some(kind) = api::kind_by_name("networking.k8s.io/v1", "IPAddress") else { return Ok(()) };
    let internal = internal_call(&call.app, kind, "", "create");
    let object = json!({
        "metadata": {"name": address.to_string(), "labels": {
            "ipaddress.kubernetes.io/ip-family": family(address),
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }},
        "spec": {"parentRef": {
            "resource": "services", "namespace": service["metadata"]["namespace"], "name": service["metadata"]["name"],
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

async fn release(call: &Call, service: &Value) {
    for address in tree::list(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).filter(|a| *a != "None") {
        forget(&call.app, address).await;
    }
}

/// Gives back what a deleted object held.
pub async fn after_delete(call: &Call, value: &Value) {
    let dry_run = call.is_dry_run().unwrap_or(false);
    if call.kind.group.is_empty() && call.kind.plural == "services" && !dry_run {
        release(call, value).await;
    }
}

impl IpRange {
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
    pub(crate) fn nth(self, index: u128) -> IpAddr {
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
