//! Services, where they lead to, and what lets traffic in.

use std::collections::BTreeSet;

use api::core::v1::{EndpointSubset, Endpoints, Service, ServicePort};
use api::discovery::v1::{EndpointPort, EndpointSlice};
use api::networking::v1::{Ingress, IngressClass, IngressRule, IpAddress, NetworkPolicy, ServiceCidr};

use super::cell::{Cell, age};
use super::cells;
use super::text::{first, labels, or, or_none, selector_or_none};

/// Addresses, ports or hosts that a cell shows.
const SHOWN: usize = 3;

pub(super) fn service(object: &Service) -> Vec<Cell> {
    let ports: Vec<String> = object.spec.ports.iter().map(port).collect();
    cells![
        object.metadata.name.as_str(),
        object.spec.r#type.as_str(),
        object.spec.cluster_ips.first().map_or("<none>", String::as_str),
        external_addresses(object),
        or_none(&ports.join(",")),
        age(&object.metadata.creation_timestamp),
        labels(&object.spec.selector),
    ]
}

fn port(port: &ServicePort) -> String {
    match port.node_port {
        ..=0 => format!("{}/{}", port.port, port.protocol),
        node_port => format!("{}:{node_port}/{}", port.port, port.protocol),
    }
}

fn external_addresses(object: &Service) -> String {
    let ingress = object.status.load_balancer.ingress.iter();
    let balanced = balancers(ingress.map(|i| (i.ip.as_str(), i.hostname.as_str())));
    let own = object.spec.external_ips.join(",");
    match object.spec.r#type.as_str() {
        "ClusterIP" | "NodePort" => or_none(&own).to_owned(),
        "LoadBalancer" if own.is_empty() => or(&balanced, "<pending>").to_owned(),
        "LoadBalancer" if balanced.is_empty() => own,
        "LoadBalancer" => format!("{balanced},{own}"),
        "ExternalName" => object.spec.external_name.clone(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses, or else names, of load balancers in their order.
fn balancers<'i>(ingress: impl Iterator<Item = (&'i str, &'i str)>) -> String {
    let named: BTreeSet<&str> = ingress.map(|(ip, name)| or(ip, name)).filter(|text| !text.is_empty()).collect();
    named.into_iter().collect::<Vec<_>>().join(",")
}

pub(super) fn endpoints(object: &Endpoints) -> Vec<Cell> {
    let addresses: Vec<String> = object.subsets.iter().flat_map(subset).collect();
    let shown = if object.subsets.is_empty() { "<none>".to_owned() } else { first(&addresses, SHOWN, ",") };
    cells![object.metadata.name.as_str(), shown, age(&object.metadata.creation_timestamp)]
}

fn subset(subset: &EndpointSubset) -> Vec<String> {
    let addresses = subset.addresses.iter().map(|a| a.ip.as_str());
    if subset.ports.is_empty() {
        return addresses.map(str::to_owned).collect();
    }
    let with_port = |port: i32| {
        addresses
            .clone()
            .map(move |ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
    };
    subset.ports.iter().flat_map(|p| with_port(p.port)).collect()
}

pub(super) fn endpoint_slice(object: &EndpointSlice) -> Vec<Cell> {
    let port = |p: &EndpointPort| match (p.port, &p.name) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.clone(),
        (None, None) => "*".to_owned(),
    };
    let ports: Vec<String> = object.ports.iter().map(port).collect();
    let addresses: Vec<String> = object.endpoints.iter().flat_map(|e| e.addresses.iter().cloned()).collect();
    let short = |list: &[String]| or(&first(list, SHOWN, ","), "<unset>").to_owned();
    cells![
        object.metadata.name.as_str(),
        object.address_type.as_str(),
        short(&ports),
        short(&addresses),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn ingress(object: &Ingress) -> Vec<Cell> {
    let ingress = object.status.load_balancer.ingress.iter();
    cells![
        object.metadata.name.as_str(),
        object.spec.ingress_class_name.as_deref().unwrap_or("<none>"),
        hosts(&object.spec.rules),
        balancers(ingress.map(|i| (i.ip.as_str(), i.hostname.as_str()))),
        if object.spec.tls.is_empty() { "80" } else { "80, 443" },
        age(&object.metadata.creation_timestamp),
    ]
}

/// Names of rules. Rules without count for how many more there are.
fn hosts(rules: &[IngressRule]) -> String {
    let named = |rules: &[IngressRule]| rules.iter().filter(|r| !r.host.is_empty()).count();
    let all: Vec<&str> = rules.iter().map(|r| r.host.as_str()).filter(|host| !host.is_empty()).take(SHOWN).collect();
    let shown = or(&all.join(","), "*").to_owned();
    // More are told of when a rule follows the last one that is shown.
    let before_last = rules.split_last().map_or(0, |(_, before)| named(before));
    if before_last >= SHOWN { format!("{shown} + {} more...", rules.len() - SHOWN) } else { shown }
}

pub(super) fn ingress_class(object: &IngressClass) -> Vec<Cell> {
    let is_default = object.metadata.annotations.get("ingressclass.kubernetes.io/is-default-class");
    let suffix = if is_default.is_some_and(|v| v == "true") { " (default)" } else { "" };
    let parameters = object.spec.parameters.as_ref().map(|p| match &p.api_group {
        Some(group) => format!("{}.{group}/{}", p.kind, p.name),
        None => format!("{}/{}", p.kind, p.name),
    });
    cells![
        format!("{}{suffix}", object.metadata.name),
        object.spec.controller.as_str(),
        parameters.unwrap_or_else(|| "<none>".to_owned()),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn network_policy(object: &NetworkPolicy) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        selector_or_none(Some(&object.spec.pod_selector)),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn ip_address(object: &IpAddress) -> Vec<Cell> {
    let parent = object.spec.parent_ref.as_ref().map(|parent| {
        let resource = match parent.group.as_str() {
            "" => parent.resource.to_lowercase(),
            group => format!("{}.{group}", parent.resource).to_lowercase(),
        };
        match parent.namespace.as_str() {
            "" => format!("{resource}/{}", parent.name),
            namespace => format!("{resource}/{namespace}/{}", parent.name),
        }
    });
    cells![
        object.metadata.name.as_str(),
        parent.unwrap_or_else(|| "<none>".to_owned()),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn service_cidr(object: &ServiceCidr) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.spec.cidrs.join(","), age(&object.metadata.creation_timestamp),]
}

#[cfg(test)]
mod tests {
    use api::core::v1::{EndpointAddress, LoadBalancerIngress};

    use super::*;

    #[test]
    fn a_service_shows_where_it_is_reached_from_outside() {
        let mut object = Service::default();
        let shown = |object: &Service, kind: &str| {
            let mut object = object.clone();
            object.spec.r#type = kind.into();
            external_addresses(&object)
        };
        assert_eq!(shown(&object, "ClusterIP"), "<none>");
        assert_eq!(shown(&object, "LoadBalancer"), "<pending>");
        object.spec.external_ips = vec!["192.0.2.1".into()];
        assert_eq!(shown(&object, "NodePort"), "192.0.2.1");
        let ingress = LoadBalancerIngress { hostname: "lb.test".into(), ..LoadBalancerIngress::default() };
        object.status.load_balancer.ingress = vec![ingress];
        assert_eq!(shown(&object, "LoadBalancer"), "lb.test,192.0.2.1");
        assert_eq!(shown(&object, "?"), "<unknown>");
    }

    #[test]
    fn many_addresses_are_counted() {
        let address = |ip: &str| EndpointAddress { ip: ip.into(), ..EndpointAddress::default() };
        let port = |port: i32| api::core::v1::EndpointPort { port, ..Default::default() };
        let group = EndpointSubset {
            addresses: vec![address("10.0.0.1"), address("fd00::1")],
            ports: vec![port(80), port(81)],
            ..EndpointSubset::default()
        };
        let object = Endpoints { subsets: vec![group], ..Endpoints::default() };
        assert_eq!(endpoints(&object)[1], "10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more...");
    }

    #[test]
    fn hosts_of_rules_are_cut_after_three() {
        let rules = |hosts: &[&str]| -> Vec<IngressRule> {
            hosts.iter().map(|h| IngressRule { host: (*h).to_owned(), ..IngressRule::default() }).collect()
        };
        assert_eq!(hosts(&rules(&[])), "*");
        assert_eq!(hosts(&rules(&["a", "", "b", "c"])), "a,b,c");
        assert_eq!(hosts(&rules(&["a", "b", "c", ""])), "a,b,c + 1 more...");
    }
}
