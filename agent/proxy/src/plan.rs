//! From API objects to a [`ServicePlan`]: which addresses a Service has and which endpoints count on this node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::core::v1::{Service, ServicePort};
use api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use ipnet::IpNet;

use crate::service::{Endpoint, Family, HealthPort, PortPlan, Protocol, ServiceName, ServicePlan};

/// Services with this label are another proxy's.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// This node, as far as endpoints are chosen by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Cluster addresses that the node answers itself.
    pub local_addresses: Vec<IpAddr>,
}

/// Something outside the plan that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Service.
    pub service: ServiceName,
    /// Its health check port.
    pub port: u16,
    /// How many endpoints this node has.
    pub local_endpoints: usize,
}

/// What a Service needs on this node. Services that are not for this proxy need nothing.
#[must_use]
pub fn plan_service<S: AsRef<EndpointSlice>>(service: &Service, slices: &[S], node: &Node) -> ServicePlan {
    let spec = &service.spec;
    let mut plan = ServicePlan::default();
    if spec.r#type == "ExternalName" || service.metadata.labels.contains_key(OTHER_PROXY_LABEL) {
        return plan;
    }
    let mut addresses: Vec<IpAddr> = spec.cluster_ips.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.parse::<IpAddr>().ok());
    }
    addresses.retain(|address| !node.local_addresses.contains(address));
    for address in addresses {
        for port in &spec.ports {
            plan.ports.extend(plan_port(service, port, address, &candidates(slices, port, Family::of(&address), node)));
        }
    }
    plan.health = health(service, slices, node);
    plan
}

fn plan_port(service: &Service, port: &ServicePort, address: IpAddr, found: &Found) -> Option<PortPlan> {
    let spec = &service.spec;
    let family = Family::of(&address);
    let of_family = |texts: &mut dyn Iterator<Item = &String>| -> Vec<IpAddr> {
        let parsed = texts.filter_map(|text| text.parse::<IpAddr>().ok());
        let unique: BTreeSet<IpAddr> = parsed.filter(|address| Family::of(address) == family).collect();
        unique.into_iter().collect()
    };
    let is_balancer = spec.r#type == "LoadBalancer";
    let has_node_port = is_balancer || spec.r#type == "NodePort";
    let ingress = service.status.load_balancer.ingress.iter();
    // Addresses in Proxy mode belong to a balancer that must not be bypassed.
    let mut captured = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy")).map(|ingress| &ingress.ip);
    let balancer_addresses = if is_balancer { of_family(&mut captured) } else { Vec::new() };
    let ranges = spec.load_balancer_source_ranges.iter().filter_map(|text| text.trim().parse::<IpNet>().ok());
    let plan = PortPlan {
        family,
        protocol: Protocol::parse(&port.protocol)?,
        port: u16::try_from(port.port).ok()?,
        cluster_address: address,
        node_port: u16::try_from(port.node_port).ok().filter(|number| has_node_port && *number != 0),
        external_addresses: of_family(&mut spec.external_ips.iter()),
        source_ranges: if is_balancer { ranges.filter(|net| family.has_net(net)).collect() } else { Vec::new() },
        balancer_addresses,
        affinity_seconds: affinity_seconds(service),
        is_internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        is_external_local: is_external_local(service),
        cluster: found.cluster(),
        local: found.local(),
    };
    Some(plan)
}

fn is_external_local(service: &Service) -> bool {
    let spec = &service.spec;
    let is_external = matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") || !spec.external_ips.is_empty();
    is_external && spec.external_traffic_policy == "Local"
}

fn affinity_seconds(service: &Service) -> Option<u32> {
    let spec = &service.spec;
    if spec.session_affinity != "ClientIP" {
        return None;
    }
    let configured = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = configured.and_then(|client| client.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    Some(seconds.unwrap_or(DEFAULT_AFFINITY_SECONDS))
}

fn health<S: AsRef<EndpointSlice>>(service: &Service, slices: &[S], node: &Node) -> Option<HealthPort> {
    let port = u16::try_from(service.spec.health_check_node_port).ok().filter(|port| *port != 0)?;
    if !is_external_local(service) {
        return None;
    }
    let mut addresses = BTreeSet::new();
    for port in &service.spec.ports {
        for family in Family::BOTH {
            let local = candidates(slices, port, family, node).ready;
            addresses
                .extend(local.iter().filter(|(endpoint, _)| endpoint.is_local).map(|(endpoint, _)| endpoint.address));
        }
    }
    Some(HealthPort { port, local_endpoints: addresses.len() })
}

/// Endpoints of one port, sorted by what they are good for; each with whether hints allow it here.
#[derive(Default)]
struct Found {
    ready: Vec<(Endpoint, Hint)>,
    /// On their way out but still answering: better than nobody.
    terminating: Vec<Endpoint>,
}

/// Whether the slice's hints give an endpoint to this node.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hint {
    has_nodes: bool,
    for_node: bool,
    has_zones: bool,
    for_zone: bool,
}

impl Found {
    fn cluster(&self) -> Vec<Endpoint> {
        if self.ready.is_empty() {
            return sorted(self.terminating.iter().copied());
        }
        sorted(self.hinted().map(|(endpoint, _)| *endpoint))
    }

    fn local(&self) -> Vec<Endpoint> {
        let ready = sorted(self.ready.iter().map(|(endpoint, _)| *endpoint).filter(|endpoint| endpoint.is_local));
        if !ready.is_empty() {
            return ready;
        }
        sorted(self.terminating.iter().copied().filter(|endpoint| endpoint.is_local))
    }

    /// Hints count only when every endpoint has one and some are for here.
    fn hinted(&self) -> impl Iterator<Item = &(Endpoint, Hint)> {
        let by_node =
            self.ready.iter().all(|(_, hint)| hint.has_nodes) && self.ready.iter().any(|(_, hint)| hint.for_node);
        let by_zone =
            self.ready.iter().all(|(_, hint)| hint.has_zones) && self.ready.iter().any(|(_, hint)| hint.for_zone);
        self.ready.iter().filter(move |(_, hint)| if by_node { hint.for_node } else { !by_zone || hint.for_zone })
    }
}

fn sorted(endpoints: impl Iterator<Item = Endpoint>) -> Vec<Endpoint> {
    let unique: BTreeSet<Endpoint> = endpoints.collect();
    unique.into_iter().collect()
}

fn candidates<S: AsRef<EndpointSlice>>(slices: &[S], port: &ServicePort, family: Family, node: &Node) -> Found {
    let mut found = Found::default();
    let kind = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    for slice in slices.iter().map(AsRef::as_ref).filter(|slice| slice.address_type == kind) {
        let matching = slice.ports.iter().filter(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port.name
                && Protocol::parse(candidate.protocol.as_deref().unwrap_or_default()) == Protocol::parse(&port.protocol)
        });
        for number in matching.filter_map(|candidate| candidate.port).filter_map(|number| u16::try_from(number).ok()) {
            for endpoint in &slice.endpoints {
                found.take(endpoint, number, node);
            }
        }
    }
    found
}

impl Found {
    fn take(&mut self, endpoint: &SliceEndpoint, port: u16, node: &Node) {
        // Only the first address counts; the others are for nobody.
        let Some(address) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok()) else { return };
        let is_local = endpoint.node_name.as_deref() == Some(node.name.as_str());
        let target = Endpoint { address, port, is_local };
        let conditions = &endpoint.conditions;
        let is_ready = conditions.ready.unwrap_or(true);
        if is_ready {
            self.ready.push((target, hint(endpoint, node)));
        } else if conditions.serving.unwrap_or(is_ready) && conditions.terminating.unwrap_or(false) {
            self.terminating.push(target);
        }
    }
}

fn hint(endpoint: &SliceEndpoint, node: &Node) -> Hint {
    let hints = endpoint.hints.as_ref();
    let nodes = hints.map(|hints| hints.for_nodes.as_slice()).unwrap_or_default();
    let zones = hints.map(|hints| hints.for_zones.as_slice()).unwrap_or_default();
    Hint {
        has_nodes: !nodes.is_empty(),
        for_node: nodes.iter().any(|hint| hint.name == node.name),
        has_zones: !zones.is_empty(),
        for_zone: node.zone.as_ref().is_some_and(|zone| zones.iter().any(|hint| hint.name == *zone)),
    }
}
