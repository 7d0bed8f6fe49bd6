//! Services.

use std::collections::HashSet;

use api::IntOrString;
use api::core::v1::{LoadBalancerStatus, Service, ServicePort, ServiceSpec, SessionAffinityConfig};

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::addresses::{legacy_cidr, legacy_ip, parse_sloppy};
use crate::validation::{Change, Errors, Path, checks, labels, names, shown};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const MAX_SESSION_SECONDS: i32 = 86_400;
const SET_ONCE: &str = "may not change once set";
const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

const SPEC: Path<'static> = Path::root("spec");

pub fn service(change: &Change<'_, Service>, errors: &mut Errors) {
    if change.part == Part::Status {
        let old = change.old.map(|old| &old.status.load_balancer);
        return balancer_status(&change.new.status.load_balancer, old, &change.new.spec, errors);
    }
    let (new, old) = (change.new, change.old);
    if let Some(old) = old {
        changed_addresses(&new.spec, &old.spec, errors);
        changed_families(&new.spec, &old.spec, errors);
        balancer_class(&new.spec, Some(&old.spec), errors);
        if needs_health_check(&new.spec)
            && needs_health_check(&old.spec)
            && new.spec.health_check_node_port != old.spec.health_check_node_port
        {
            errors.push(FieldError::forbidden(SPEC.child("healthCheckNodePort"), checks::IMMUTABLE));
        }
    }
    topology(new, errors);
    by_type(&new.spec, errors);
    let list = SPEC.child("ports");
    let mut taken = HashSet::new();
    for (i, each) in new.spec.ports.iter().enumerate() {
        port(&list.index(i), each, new.spec.ports.len() > 1, &mut taken, errors);
    }
    labels::labels(&SPEC.child("selector"), &new.spec.selector, errors);
    affinity(&new.spec, errors);
    let spec = &new.spec;
    addresses(spec, old.map(|old| &old.spec), errors);
    for (i, ip) in spec.external_ips.iter().enumerate() {
        let (list, told) = (SPEC.child("externalIPs"), errors.len());
        legacy_ip(&list.index(i), ip, old.map_or(&[], |old| &old.spec.external_ips), errors);
        if errors.len() == told {
            super::endpoints::usable_ip(&list.index(i), ip, errors);
        }
    }
    checks::one_of(&SPEC.child("type"), &spec.r#type, TYPES, errors);
    distinct_ports(spec, errors);
    source_ranges(new, old, errors);
    if spec.allocate_load_balancer_node_ports.is_some() && !balances(spec) {
        errors.push(FieldError::forbidden(SPEC.child("allocateLoadBalancerNodePorts"), LOAD_BALANCER_ONLY));
    }
    if spec.allocate_load_balancer_node_ports.is_none() && balances(spec) {
        errors.push(FieldError::required("allocateLoadBalancerNodePorts", ""));
    }
    balancer_class(spec, None, errors);
    traffic(spec, errors);
}

fn balances(spec: &ServiceSpec) -> bool {
    spec.r#type == "LoadBalancer"
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.len() == 1 && spec.cluster_ips[0] == "None"
}

fn is_external(spec: &ServiceSpec) -> bool {
    spec.r#type == "ExternalName"
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    balances(spec) && spec.external_traffic_policy == "Local"
}

/// Old and new annotation for the same have to agree.
fn topology(service: &Service, errors: &mut Errors) {
    let annotations = &service.metadata.annotations;
    if let (Some(hints), Some(mode)) = (annotations.get(HINTS), annotations.get(MODE))
        && hints != mode
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        errors.push(FieldError::invalid(Path::root("metadata").child("annotations").key(MODE), mode, why));
    }
}

fn by_type(spec: &ServiceSpec, errors: &mut Errors) {
    if spec.ports.is_empty() && !is_headless(spec) && !is_external(spec) {
        errors.push(FieldError::required(SPEC.child("ports"), ""));
    }
    match spec.r#type.as_str() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(SPEC.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => {
            let set = [
                ("clusterIPs", !spec.cluster_ips.is_empty()),
                ("ipFamilies", !spec.ip_families.is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (name, _) in set.iter().filter(|(_, set)| *set) {
                errors.push(FieldError::forbidden(SPEC.child(name), "may not be set for ExternalName services"));
            }
            let name = spec.external_name.strip_suffix('.').unwrap_or(&spec.external_name);
            if name.is_empty() {
                errors.push(FieldError::required(SPEC.child("externalName"), ""));
            } else {
                checks::text(&SPEC.child("externalName"), name, names::dns1123_subdomain(name), errors);
            }
        }
        _ => {}
    }
}

fn port<'a>(
    path: &Path<'_>,
    port: &'a ServicePort,
    needs_name: bool,
    taken: &mut HashSet<&'a str>,
    errors: &mut Errors,
) {
    let name = path.child("name");
    if port.name.is_empty() {
        if needs_name {
            errors.push(FieldError::required(name, ""));
        }
    } else {
        checks::text(&name, &port.name, names::dns1123_label(&port.name), errors);
        if !taken.insert(&port.name) {
            errors.push(FieldError::duplicate(name, &port.name));
        }
    }
    checks::port_number(&path.child("port"), port.port, errors);
    checks::one_of(&path.child("protocol"), &port.protocol, PROTOCOLS, errors);
    port_or_name(&path.child("targetPort"), &port.target_port, errors);
    if let Some(protocol) = &port.app_protocol {
        checks::text(&path.child("appProtocol"), protocol, names::qualified(protocol), errors);
    }
}

/// A port by its number or its name.
pub fn port_or_name(path: &Path<'_>, port: &IntOrString, errors: &mut Errors) {
    match port.r#type {
        0 => checks::port_number(path, port.int_val, errors),
        1 => checks::text(path, &port.str_val, names::port_name(&port.str_val), errors),
        _ => {}
    }
}

fn affinity(spec: &ServiceSpec, errors: &mut Errors) {
    let config = SPEC.child("sessionAffinityConfig");
    checks::one_of(&SPEC.child("sessionAffinity"), &spec.session_affinity, &["ClientIP", "None"], errors);
    match spec.session_affinity.as_str() {
        "ClientIP" => client_ip(&config, spec.session_affinity_config.as_ref(), errors),
        "None" if spec.session_affinity_config.is_some() => {
            errors.push(FieldError::forbidden(config, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn client_ip(path: &Path<'_>, config: Option<&SessionAffinityConfig>, errors: &mut Errors) {
    let Some(config) = config else {
        let why = "when session affinity type is ClientIP";
        return errors.push(FieldError::required(path, why));
    };
    let path = path.child("clientIP");
    let Some(client) = &config.client_ip else {
        let why = "when session affinity type is ClientIP";
        return errors.push(FieldError::required(path, why));
    };
    match client.timeout_seconds {
        None => {
            errors.push(FieldError::required(path.child("timeoutSeconds"), "when session affinity type is ClientIP"))
        }
        Some(seconds) if !(1..=MAX_SESSION_SECONDS).contains(&seconds) => {
            let why = format!("must be greater than 0 and less than {MAX_SESSION_SECONDS}");
            errors.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, why));
        }
        Some(_) => {}
    }
}

pub fn addresses(spec: &ServiceSpec, old: Option<&ServiceSpec>, errors: &mut Errors) {
    if is_external(spec) {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let all = || shown::texts(&spec.cluster_ips);
    match (spec.cluster_ip.as_str(), spec.cluster_ips.first()) {
        ("", Some(_)) => {
            errors.push(FieldError::invalid(path, all(), "must be empty when `clusterIP` is not specified"));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(path, "")),
        (one, Some(first)) if one != first => {
            errors.push(FieldError::invalid(path, all(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (i, family) in spec.ip_families.iter().enumerate() {
        let at = SPEC.child("ipFamilies");
        checks::supported(&at.index(i), family, FAMILIES, errors);
        if spec.ip_families[..i].contains(family) {
            errors.push(FieldError::duplicate(at.index(i), family));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        checks::supported(&SPEC.child("ipFamilyPolicy"), policy, FAMILY_POLICIES, errors);
    }
    let before = old.map_or(&[][..], |old| &old.cluster_ips);
    let mut broken = false;
    for (i, ip) in spec.cluster_ips.iter().enumerate() {
        let told = errors.len();
        if i > 0 || ip != "None" {
            legacy_ip(&path.index(i), ip, before, errors);
        } else if spec.cluster_ips.len() > 1 {
            errors.push(FieldError::invalid(path, all(), "'None' must be the first and only value"));
        }
        broken |= errors.len() > told;
    }
    if spec.cluster_ips.len() > 2 {
        errors.push(FieldError::invalid(path, all(), "may only hold up to 2 values"));
    }
    if !broken {
        address_families(spec, errors);
    }
}

fn address_families(spec: &ServiceSpec, errors: &mut Errors) {
    let path = SPEC.child("clusterIPs");
    let is_v6 = |ip: &String| parse_sloppy(ip).is_some_and(|ip| ip.is_ipv6());
    let v6 = spec.cluster_ips.iter().filter(|ip| is_v6(ip)).count();
    if spec.cluster_ips.len() > 1 && (v6 == 0 || v6 == spec.cluster_ips.len()) {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, shown::texts(&spec.cluster_ips), why));
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in spec.cluster_ips.iter().zip(&spec.ip_families).enumerate() {
        let wanted = match (family.as_str(), is_v6(ip)) {
            ("IPv4", true) => "IPv4",
            ("IPv6", false) => "IPv6",
            _ => continue,
        };
        let why = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
        errors.push(FieldError::invalid(path.index(i), ip, why));
    }
}

fn distinct_ports(spec: &ServiceSpec, errors: &mut Errors) {
    let list = SPEC.child("ports");
    if spec.r#type == "ClusterIP" {
        for (i, _) in spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(list.index(i).child("nodePort"), why));
        }
    }
    let earlier = |i: usize| spec.ports[..i].iter();
    for (i, port) in spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
        if earlier(i).any(|p| p.protocol == port.protocol && p.node_port == port.node_port) {
            errors.push(FieldError::duplicate(list.index(i).child("nodePort"), port.node_port));
        }
    }
    for (i, port) in spec.ports.iter().enumerate() {
        if earlier(i).any(|p| p.protocol == port.protocol && p.port == port.port) {
            let key = ServicePort { protocol: port.protocol.clone(), port: port.port, ..Default::default() };
            let key = shown::structure("k8s.io.api.core.v1.ServicePort", &key);
            errors.push(FieldError::duplicate(list.index(i), key));
        }
    }
}

fn source_ranges(new: &Service, old: Option<&Service>, errors: &mut Errors) {
    let trimmed = |ranges: &[String]| ranges.iter().map(|range| range.trim().to_owned()).collect::<Vec<_>>();
    if !new.spec.load_balancer_source_ranges.is_empty() {
        let path = SPEC.child("LoadBalancerSourceRanges");
        if !balances(&new.spec) {
            errors.push(FieldError::forbidden(path, LOAD_BALANCER_ONLY));
        }
        let before = old.map_or(Vec::new(), |old| trimmed(&old.spec.load_balancer_source_ranges));
        for (i, range) in new.spec.load_balancer_source_ranges.iter().enumerate() {
            legacy_cidr(&path.index(i), range.trim(), &before, errors);
        }
        return;
    }
    let Some(text) = new.metadata.annotations.get(SOURCE_RANGES) else { return };
    let annotations = Path::root("metadata");
    let annotations = annotations.child("annotations");
    let path = annotations.key(SOURCE_RANGES);
    if !balances(&new.spec) {
        errors.push(FieldError::forbidden(path, LOAD_BALANCER_ONLY));
    }
    let same = old.is_some_and(|old| old.metadata.annotations.get(SOURCE_RANGES) == Some(text));
    if !same && !text.trim().is_empty() {
        for range in text.trim().split(',') {
            legacy_cidr(&path, range.trim(), &[], errors);
        }
    }
}

fn balancer_class(spec: &ServiceSpec, old: Option<&ServiceSpec>, errors: &mut Errors) {
    let path = SPEC.child("loadBalancerClass");
    let class = spec.load_balancer_class.as_ref();
    if let Some(old) = old.filter(|old| balances(old) && balances(spec))
        && old.load_balancer_class != spec.load_balancer_class
    {
        errors.push(FieldError::invalid(path, shown::optional_text(class), SET_ONCE));
    }
    match class {
        Some(class) if balances(spec) => checks::text(&path, class, names::qualified(class), errors),
        Some(_) => errors.push(FieldError::forbidden(path, LOAD_BALANCER_ONLY)),
        None => {}
    }
}

fn is_reachable_from_outside(spec: &ServiceSpec) -> bool {
    match spec.r#type.as_str() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.external_ips.is_empty(),
        _ => false,
    }
}

fn traffic(spec: &ServiceSpec, errors: &mut Errors) {
    let path = SPEC.child("externalTrafficPolicy");
    let policy = &spec.external_traffic_policy;
    if is_reachable_from_outside(spec) {
        checks::one_of(&path, policy, POLICIES, errors);
    } else if !policy.is_empty() {
        errors.push(FieldError::invalid(path, policy, "may only be set for externally-accessible services"));
    }
    let (path, port) = (SPEC.child("healthCheckNodePort"), spec.health_check_node_port);
    match (needs_health_check(spec), port) {
        (true, 0) => errors.push(FieldError::required(path, "")),
        (true, _) => checks::port_number(&path, port, errors),
        (false, 0) => {}
        (false, _) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(path, port, why));
        }
    }
    let path = SPEC.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => checks::supported(&path, policy, POLICIES, errors),
        None if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(FieldError::required(path, ""));
        }
        None => {}
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let path = SPEC.child("trafficDistribution");
        if !DISTRIBUTIONS.contains(&distribution.as_str()) {
            errors.push(FieldError::not_supported(path, distribution, DISTRIBUTIONS));
        }
    }
}

fn changed_addresses(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_external(new) || is_external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let (before, after) = (&old.cluster_ips, &new.cluster_ips);
    let mut told = |at: usize, why: &str| {
        errors.push(FieldError::invalid(path.index(at), shown::texts(after), why));
    };
    if before.len() == after.len() {
        for i in (0..before.len()).filter(|i| before[*i] != after[*i]) {
            told(i, SET_ONCE);
        }
        return;
    }
    if after.is_empty() {
        told(0, "primary clusterIP can not be unset");
    } else if !before.is_empty() && before[0] != after[0] {
        told(0, SET_ONCE);
    }
    if before.len() > after.len() && after.len() == 1 {
        releases_second(new, "clusterIP", errors);
    }
}

fn changed_families(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_external(new) || is_external(old) || is_headless(new) || is_headless(old) {
        return;
    }
    let first = SPEC.child("ipFamilies");
    let (before, after) = (&old.ip_families, &new.ip_families);
    if before.len() == after.len() {
        for _ in before.iter().zip(after).filter(|(b, a)| b != a) {
            errors.push(FieldError::invalid(first.index(0), shown::texts(after), SET_ONCE));
        }
        return;
    }
    let shrinks = before.len() > after.len();
    if shrinks && new.cluster_ips.is_empty() {
        let why = "primary ipFamily can not be unset";
        errors.push(FieldError::invalid(first.index(0), shown::texts(after), why));
    }
    if !before.is_empty() && !after.is_empty() && before[0] != after[0] {
        errors.push(FieldError::invalid(first.index(0), shown::texts(&new.cluster_ips), SET_ONCE));
    }
    if shrinks && after.len() == 1 {
        releases_second(new, "ipFamily", errors);
    }
}

fn releases_second(new: &ServiceSpec, what: &str, errors: &mut Errors) {
    let policy = new.ip_family_policy.as_ref();
    if policy.is_none_or(|policy| policy != "SingleStack") {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.push(FieldError::invalid(SPEC.child("ipFamilyPolicy"), shown::optional_text(policy), why));
    }
}

fn balancer_status(
    new: &LoadBalancerStatus,
    old: Option<&LoadBalancerStatus>,
    spec: &ServiceSpec,
    errors: &mut Errors,
) {
    let status = Path::root("status");
    let balancer = status.child("loadBalancer");
    let list = balancer.child("ingress");
    if !balances(spec) && !new.ingress.is_empty() {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        return errors.push(FieldError::forbidden(list, why));
    }
    let before: Vec<String> = old.map_or(Vec::new(), |old| old.ingress.iter().map(|i| i.ip.clone()).collect());
    for (i, ingress) in new.ingress.iter().enumerate() {
        let path = list.index(i);
        if !ingress.ip.is_empty() {
            legacy_ip(&path.child("ip"), &ingress.ip, &before, errors);
        }
        match &ingress.ip_mode {
            None if ingress.ip.is_empty() => {}
            None => errors.push(FieldError::required(path.child("ipMode"), "must be specified when `ip` is set")),
            Some(_) if ingress.ip.is_empty() => {
                errors.push(FieldError::forbidden(path.child("ipMode"), "may not be specified when `ip` is not set"));
            }
            Some(mode) => checks::supported(&path.child("ipMode"), mode, &["Proxy", "VIP"], errors),
        }
        host_name(&path.child("hostname"), &ingress.hostname, errors);
    }
}

/// The name of a load balancer, where it has one.
pub fn host_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return;
    }
    checks::text(path, name, names::dns1123_subdomain(name), errors);
    if parse_sloppy(name).is_some() {
        errors.push(FieldError::invalid(path, name, "must be a DNS name, not an IP address"));
    }
}
