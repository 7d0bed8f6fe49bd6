//! Families of addresses: what follows from the ranges and from what is asked for.

use api::core::v1::{Service, ServiceSpec};

use super::{family, is_cluster, is_headless, refused};
use crate::app::Call;
use crate::status::{FieldError, Result};
use crate::validation::addresses::parse_sloppy;
use crate::validation::{self, shown};

const SINGLE: &str = "SingleStack";
const PREFERRED: &str = "PreferDualStack";
const REQUIRED: &str = "RequireDualStack";
const POLICY: &str = "spec.ipFamilyPolicy";

/// Sets the families and the policy.
pub(super) fn set(call: &Call, service: &mut Service, old: Option<&ServiceSpec>) -> Result<()> {
    if !is_cluster(&service.spec) || old.is_some_and(|old| stays_preferred(&service.spec, old)) {
        return Ok(());
    }
    let policy = policy(&service.spec, old);
    service.spec.ip_family_policy = Some(policy.clone());
    let ranges: Vec<&'static str> = call.app.config.service_ranges.iter().map(|r| family(r.base)).collect();
    let mut errors = validation::service_addresses(&service.spec, old);
    if errors.is_empty() {
        reduce(&mut service.spec, old, &mut errors);
        fits_addresses(&mut service.spec, &ranges, &mut errors);
    }
    let selectorless = is_headless(&service.spec) && service.spec.selector.is_empty();
    if errors.is_empty() && !selectorless {
        fits_ranges(&service.spec, &ranges, &mut errors);
    }
    if !errors.is_empty() {
        return Err(refused(call, service, &errors));
    }
    let families = &mut service.spec.ip_families;
    if families.is_empty() {
        families.push((*ranges.first().unwrap_or(&"IPv4")).to_owned());
    }
    if policy != SINGLE && families.len() == 1 && (selectorless || ranges.len() == 2) {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    Ok(())
}

/// Whether a Service that would like both families goes on with what it has.
fn stays_preferred(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    new.ip_family_policy.as_deref() == Some(PREFERRED)
        && old.ip_family_policy.as_deref().is_none_or(|policy| policy == PREFERRED)
        && new.r#type == old.r#type
        && matches!(new.r#type.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
        && new.cluster_ips == old.cluster_ips
        && new.ip_families == old.ip_families
}

fn policy(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> String {
    let given = spec.ip_family_policy.as_ref().or_else(|| old.and_then(|old| old.ip_family_policy.as_ref()));
    let default = if is_headless(spec) && spec.selector.is_empty() { REQUIRED } else { SINGLE };
    given.cloned().unwrap_or_else(|| default.to_owned())
}

/// Lets go of the second family where there shall be only one.
fn reduce(spec: &mut ServiceSpec, old: Option<&ServiceSpec>, errors: &mut Vec<FieldError>) {
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    let Some(old) = old else { return };
    if policy == SINGLE {
        if spec.cluster_ips == old.cluster_ips {
            spec.cluster_ips.truncate(1);
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families.truncate(1);
        }
        return;
    }
    let fewer = |new: usize, old: usize| new > 0 && new < old;
    let reduced = [
        ("secondary cluster IP", fewer(spec.cluster_ips.len(), old.cluster_ips.len())),
        ("secondary IP family", fewer(spec.ip_families.len(), old.ip_families.len())),
    ];
    for (what, _) in reduced.iter().filter(|(_, reduced)| *reduced) {
        let why = format!("must be 'SingleStack' to release the {what}");
        errors.push(FieldError::invalid(POLICY, shown::word(&policy), why));
    }
}

fn fits_addresses(spec: &mut ServiceSpec, ranges: &[&str], errors: &mut Vec<FieldError>) {
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    if policy == SINGLE {
        let two = [("cluster IPs", spec.cluster_ips.len() == 2), ("IP families", spec.ip_families.len() == 2)];
        for (what, _) in two.iter().filter(|(_, two)| *two) {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(FieldError::invalid(POLICY, shown::word(&policy), why));
        }
    }
    for (i, ip) in spec.cluster_ips.iter().enumerate().take_while(|(_, ip)| *ip != super::NO_ADDRESS) {
        if i < spec.ip_families.len() {
            continue;
        }
        let found = parse_sloppy(ip).map_or("unknown", family);
        if ranges.contains(&found) {
            spec.ip_families.push(found.to_owned());
        } else {
            let path = format!("spec.clusterIPs[{i}]");
            let why = format!("{found} is not configured on this cluster");
            errors.push(FieldError::invalid(path, shown::texts(&spec.cluster_ips), why));
        }
    }
}

fn fits_ranges(spec: &ServiceSpec, ranges: &[&str], errors: &mut Vec<FieldError>) {
    let policy = spec.ip_family_policy.as_deref().unwrap_or_default();
    if policy == REQUIRED && ranges.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(POLICY, shown::word(policy), why));
    }
    for (i, wanted) in spec.ip_families.iter().enumerate().filter(|(_, f)| !ranges.contains(&f.as_str())) {
        let path = format!("spec.ipFamilies[{i}]");
        errors.push(FieldError::invalid(path, shown::word(wanted), "not configured on this cluster"));
    }
}
