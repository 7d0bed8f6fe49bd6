//! The part of the table that no Service changes: hooks, the way through them, and the declarations of the maps.

use std::net::IpAddr;

use nft::{Base, Chain, ChainKind, Hook, Map, Set, Table};

use crate::config::Config;
use crate::service::Family;

/// Upstream's name, so that taking over from it leaves nothing of it behind.
const TABLE: &str = "kube-proxy";

/// Names of maps and sets.
pub(crate) mod names {
    /// Address, protocol and port to the chain that chooses.
    pub(crate) const SERVICE_IPS: &str = "service-ips";
    /// The same to the pool's number and, in its top bits, whether to masquerade.
    pub(crate) const SERVICE_IDS: &str = "service-ids";
    /// Protocol and node port to the chain that chooses.
    pub(crate) const NODE_PORTS: &str = "service-nodeports";
    /// The same to the pool's number.
    pub(crate) const NODE_PORT_IDS: &str = "nodeport-ids";
    /// Pool and place in it to an endpoint.
    pub(crate) const ENDPOINTS: &str = "endpoints";
    /// Address, protocol and port to a check of the sender.
    pub(crate) const FIREWALL_IPS: &str = "firewall-ips";
    /// Address, protocol and port to how they are refused.
    pub(crate) const NO_ENDPOINT_IPS: &str = "no-endpoint-services";
    /// Protocol and node port to how they are refused.
    pub(crate) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
    /// Every cluster address in use.
    pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
    /// The node's addresses that answer node ports.
    pub(crate) const NODE_PORT_IPS: &str = "nodeport-ips";
    /// The ranges of the cluster's pods.
    pub(crate) const CLUSTER_CIDRS: &str = "cluster-cidrs";
    /// Pairs of a local endpoint with itself.
    pub(crate) const HAIRPIN: &str = "hairpin-connections";
    /// Refuses a packet audibly.
    pub(crate) const REJECT: &str = "reject-chain";
}
use names::*;

/// Marks packets whose sender is to be replaced by the node.
pub(crate) const MASQUERADE: u32 = 0x4000_0000;
/// The bits that hold a pool's number on the way from the lookup to the choice.
pub(crate) const POOL_BITS: u32 = 0x00ff_ffff;

/// Just before addresses are translated, and just after.
const BEFORE_DNAT: i32 = -110;
const DNAT: i32 = -100;
const AFTER_DNAT: i32 = -90;
const SNAT: i32 = 100;

pub(crate) fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

/// The rule that tries to look a packet up.
fn by_address(ip: &str, map: &str) -> String {
    format!("{ip} daddr . meta l4proto . th dport vmap @{map}")
}

fn by_node_port(ip: &str, map: &str) -> String {
    format!("{ip} daddr @{NODE_PORT_IPS} meta l4proto . th dport vmap @{map}")
}

/// A family's table without any Service.
pub(crate) fn skeleton(family: Family, config: &Config, node_ports: &[IpAddr]) -> Table {
    let nft_family = match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    };
    let mut table = Table::new(nft_family, TABLE);
    declare(&mut table, family);
    let at = node_ports.iter().filter(|address| Family::of(address) == family).map(ToString::to_string);
    table.sets.insert(NODE_PORT_IPS.into(), Set::new(address_type(family)).with(at));
    let inside = config.cluster_cidrs.iter().filter(|net| family.has_net(net)).map(|net| net.trunc().to_string());
    let mut cidrs = Set::new(address_type(family)).with(inside);
    cidrs.flags = vec!["interval"];
    table.sets.insert(CLUSTER_CIDRS.into(), cidrs);
    table.chains.extend(translation(family, config));
    table.chains.extend(filters(family, config));
    table
}

fn declare(table: &mut Table, family: Family) {
    let address = address_type(family);
    let target = format!("{address} . inet_proto . inet_service");
    let port = "inet_proto . inet_service";
    let maps = [
        (SERVICE_IPS, target.as_str(), "verdict"),
        (SERVICE_IDS, &target, "mark"),
        (FIREWALL_IPS, &target, "verdict"),
        (NO_ENDPOINT_IPS, &target, "verdict"),
        (NODE_PORTS, port, "verdict"),
        (NODE_PORT_IDS, port, "mark"),
        (NO_ENDPOINT_NODE_PORTS, port, "verdict"),
    ];
    table.maps.extend(maps.map(|(name, key, value)| (name.into(), Map::new(key, value))));
    table.maps.insert(ENDPOINTS.into(), Map::new("mark . classid", format!("{address} . inet_service")));
    table.sets.insert(CLUSTER_IPS.into(), Set::new(address));
    table.sets.insert(HAIRPIN.into(), Set::new(format!("{address} . {address}")));
}

fn base(kind: ChainKind, hook: Hook, priority: i32, rules: &[&str]) -> Chain {
    Chain::base(Base { kind, hook, priority }, rules.iter().copied())
}

fn translation(family: Family, config: &Config) -> Vec<(Box<str>, Chain)> {
    let ip = ip(family);
    let mut services = vec![format!("meta mark set {ip} daddr . meta l4proto . th dport map @{SERVICE_IDS}")];
    let has_inside = config.cluster_cidrs.iter().any(|net| family.has_net(net));
    let mark = format!("meta mark set meta mark or {MASQUERADE:#x}");
    if config.masquerade_all {
        services.push(format!("{ip} daddr @{CLUSTER_IPS} {mark}"));
    } else if has_inside {
        services.push(format!("{ip} daddr @{CLUSTER_IPS} {ip} saddr != @{CLUSTER_CIDRS} {mark}"));
    }
    services.push(by_address(ip, SERVICE_IPS));
    let id = format!("meta mark set meta l4proto . th dport map @{NODE_PORT_IDS}");
    services.push(format!("{ip} daddr @{NODE_PORT_IPS} {id}"));
    services.push(by_node_port(ip, NODE_PORTS));

    let masquerade = [
        format!(
            "meta mark and {MASQUERADE:#x} != 0 meta mark set meta mark and {:#x} masquerade fully-random",
            !MASQUERADE
        ),
        format!("{ip} saddr . {ip} daddr @{HAIRPIN} masquerade fully-random"),
    ];
    let forget = format!("ct state new ct status dnat meta mark set meta mark and {:#x}", !POOL_BITS);
    let enter = ["jump services"];
    vec![
        ("services".into(), Chain::new(services)),
        ("nat-prerouting".into(), base(ChainKind::Nat, Hook::Prerouting, DNAT, &enter)),
        ("nat-output".into(), base(ChainKind::Nat, Hook::Output, DNAT, &enter)),
        (
            "nat-postrouting".into(),
            Chain::base(Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SNAT }, masquerade),
        ),
        // The pool's number must not be taken for a mark that somebody routes by.
        ("filter-prerouting-post-dnat".into(), base(ChainKind::Filter, Hook::Prerouting, AFTER_DNAT, &[&forget])),
        (
            "filter-output-post-dnat".into(),
            base(
                ChainKind::Filter,
                Hook::Output,
                AFTER_DNAT,
                &[&forget, "ct state new jump endpoints-check", "ct state new jump cluster-ips-check"],
            ),
        ),
    ]
}

fn filters(family: Family, config: &Config) -> Vec<(Box<str>, Chain)> {
    let ip = ip(family);
    let of_family = |addresses: &[IpAddr]| -> Vec<String> {
        addresses.iter().filter(|address| Family::of(address) == family).map(ToString::to_string).collect()
    };
    let mut cluster = Vec::new();
    let local = of_family(&config.local_addresses);
    if !local.is_empty() {
        cluster.push(format!("{ip} daddr {{ {} }} return", local.join(", ")));
    }
    cluster.push(format!("{ip} daddr @{CLUSTER_IPS} goto {REJECT}"));
    let ranges: Vec<String> =
        config.service_cidrs.iter().filter(|net| family.has_net(net)).map(|net| net.trunc().to_string()).collect();
    if !ranges.is_empty() {
        cluster.push(format!("{ip} daddr {{ {} }} drop", ranges.join(", ")));
    }
    let filter = |hook, rules: &[&str]| base(ChainKind::Filter, hook, BEFORE_DNAT, rules);
    let firewall = ["ct state new jump firewall-check"];
    let node_ports = format!("ct state new {}", by_node_port(ip, NO_ENDPOINT_NODE_PORTS));
    let endpoints = "ct state new jump endpoints-check";
    vec![
        // A reset reaches a caller on this machine at once, where an ICMP message is lost while its socket is busy.
        (REJECT.into(), Chain::new(["meta l4proto tcp reject with tcp reset", "reject"])),
        ("firewall-check".into(), Chain::new([by_address(ip, FIREWALL_IPS)])),
        ("endpoints-check".into(), Chain::new([by_address(ip, NO_ENDPOINT_IPS)])),
        ("cluster-ips-check".into(), Chain::new(cluster)),
        ("filter-prerouting".into(), filter(Hook::Prerouting, &firewall)),
        ("filter-output".into(), filter(Hook::Output, &firewall)),
        ("filter-input".into(), filter(Hook::Input, &[&node_ports, endpoints])),
        ("filter-forward".into(), filter(Hook::Forward, &[endpoints, "ct state new jump cluster-ips-check"])),
    ]
}
