//! From Nodes to what this node should have: a CNI configuration, routes, and who is masqueraded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::core::v1::Node;
use ipnet::IpNet;
use netlink::{Address, Protocol, Route};
use nft::{Base, Chain, ChainKind, Family, Hook, Set, Table};
use serde_json::json;

use crate::config::Config;

/// Marks the routes that are ours to remove.
pub(crate) const NODE_ROUTES: Protocol = Protocol::Number(75);
const TABLE: &str = "keelson-podnet";
/// The CNI network's and configuration's name.
const NETWORK: &str = "keelson";
const PLUGIN: &str = "keelson-cni";
const CNI_VERSION: &str = "1.0.0";

/// A node as far as routes depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<IpNet>,
}

impl Peer {
    pub(crate) fn parse(node: &Node) -> Self {
        let mut ranges: Vec<IpNet> = node.spec.pod_cidrs.iter().filter_map(|text| text.parse().ok()).collect();
        if ranges.is_empty() {
            ranges.extend(node.spec.pod_cidr.parse::<IpNet>().ok());
        }
        let internal = node.status.addresses.iter().filter(|address| address.r#type == "InternalIP");
        Self {
            name: node.metadata.name.clone(),
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            ranges: ranges.iter().map(IpNet::trunc).collect(),
        }
    }

    fn address_like(&self, range: &IpNet) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == range.addr().is_ipv4())
    }
}

/// What this machine's kernel has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) loopback: u32,
    /// Links with their largest packets.
    pub(crate) mtus: Vec<(u32, u32)>,
}

/// What it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// None while this node has no pod range.
    pub(crate) configuration: Option<String>,
    pub(crate) add: Vec<Route>,
    pub(crate) remove: Vec<Route>,
    pub(crate) tables: [Table; 2],
    /// Nodes that are on no segment of this machine.
    pub(crate) unreachable: Vec<String>,
}

pub(crate) fn plan(config: &Config, peers: &[Peer], observed: &Observed) -> Plan {
    let own = peers.iter().find(|peer| peer.name == config.node_name);
    let mut own_addresses = config.node_addresses.clone();
    if own_addresses.is_empty() {
        own_addresses.extend(own.iter().flat_map(|peer| peer.addresses.iter().copied()));
    }
    let ranges: &[IpNet] = own.map(|peer| peer.ranges.as_slice()).unwrap_or_default();
    let (mut wanted, unreachable) = routes_to(config, peers, observed);
    wanted.extend(service_routes(config, observed, &own_addresses));
    let present: Vec<&Route> = observed.routes.iter().filter(|route| route.protocol == NODE_ROUTES).collect();
    Plan {
        configuration: (!ranges.is_empty())
            .then(|| configuration(config, ranges, mtu(config, observed, &own_addresses))),
        add: wanted.iter().filter(|route| !present.iter().any(|other| is_same(route, other))).copied().collect(),
        remove: present
            .into_iter()
            .filter(|route| !wanted.iter().any(|other| leads_alike(route, other)))
            .copied()
            .collect(),
        tables: [Family::Ip, Family::Ip6].map(|family| masquerade(family, config, peers, ranges)),
        unreachable,
    }
}

/// Whether the kernel's route is the wanted one; it fills in a link where only a gateway was asked for.
fn is_same(wanted: &Route, present: &Route) -> bool {
    leads_alike(wanted, present)
        && wanted.gateway == present.gateway
        && (wanted.link.is_none() || wanted.link == present.link)
        && (wanted.source.is_none() || wanted.source == present.source)
}

/// Whether putting one in place would replace the other.
fn leads_alike(a: &Route, b: &Route) -> bool {
    a.destination == b.destination
}

fn routes_to(config: &Config, peers: &[Peer], observed: &Observed) -> (Vec<Route>, Vec<String>) {
    let mut routes = Vec::new();
    let mut unreachable = Vec::new();
    for peer in peers.iter().filter(|peer| peer.name != config.node_name) {
        for range in &peer.ranges {
            // A node that has no address yet will come back with one.
            let Some(gateway) = peer.address_like(range) else { continue };
            if observed.addresses.iter().any(|address| address.net.contains(&gateway)) {
                routes.push(Route::via(*range, gateway, NODE_ROUTES));
            } else {
                unreachable.push(peer.name.clone());
            }
        }
    }
    (routes, unreachable)
}

/// IPv6 has no routes by the loopback link: there a default route has to exist.
fn service_routes(config: &Config, observed: &Observed, own: &[IpAddr]) -> Vec<Route> {
    let ranges = config.service_cidrs.iter().filter(|range| range.addr().is_ipv4());
    let route = |range: &IpNet| {
        let mut route = Route::direct(range.trunc(), observed.loopback, NODE_ROUTES);
        let held = |address: &&IpAddr| observed.addresses.iter().any(|other| other.net.addr() == **address);
        route.source = own.iter().filter(|address| address.is_ipv4()).find(held).copied();
        route
    };
    ranges.map(route).collect()
}

fn mtu(config: &Config, observed: &Observed, own: &[IpAddr]) -> Option<u32> {
    let link =
        || observed.addresses.iter().find(|address| own.contains(&address.net.addr())).map(|address| address.link);
    config.mtu.or_else(|| {
        let link = link()?;
        observed.mtus.iter().find(|(index, _)| *index == link).map(|(_, mtu)| *mtu)
    })
}

fn configuration(config: &Config, ranges: &[IpNet], mtu: Option<u32>) -> String {
    let mut plugin = json!({
        "type": PLUGIN,
        "podCIDRs": ranges,
        "stateDir": config.state_folder,
        "capabilities": {"portMappings": true},
    });
    if let Some(mtu) = mtu {
        plugin["mtu"] = json!(mtu);
    }
    if let Some(nft) = &config.nft {
        plugin["nft"] = json!(nft);
    }
    let list = json!({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [plugin]});
    format!("{list:#}\n")
}

/// Pods of this node reach what is outside of the cluster under the node's address.
fn masquerade(family: Family, config: &Config, peers: &[Peer], ranges: &[IpNet]) -> Table {
    let (ip, kind) = if family == Family::Ip6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
    let is_of = |net: &IpNet| net.addr().is_ipv6() == (family == Family::Ip6);
    let everywhere =
        peers.iter().flat_map(|peer| peer.ranges.iter().copied().chain(peer.addresses.iter().map(|a| IpNet::from(*a))));
    let inside: Vec<IpNet> = everywhere.chain(config.cluster_cidrs.iter().copied()).filter(is_of).collect();
    let mut set = Set::new(kind).with(IpNet::aggregate(&inside).iter().map(ToString::to_string));
    set.flags = vec!["interval"];
    let own: BTreeSet<String> = ranges.iter().filter(|net| is_of(net)).map(ToString::to_string).collect();
    let own = Vec::from_iter(own).join(", ");
    let mut rules = Vec::new();
    if !own.is_empty() {
        let multicast = if family == Family::Ip6 { "ff00::/8" } else { "224.0.0.0/4" };
        rules.push(format!(
            "{ip} saddr {{ {own} }} {ip} daddr != @inside {ip} daddr != {multicast} masquerade fully-random"
        ));
    }
    let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 101 };
    let mut table = Table::new(family, TABLE);
    table.sets.insert("inside".into(), set);
    table.chains.insert("postrouting".into(), Chain::base(base, rules));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, address: &str, range: &str) -> Peer {
        Peer { name: name.into(), addresses: vec![address.parse().unwrap()], ranges: vec![range.parse().unwrap()] }
    }

    fn observed() -> Observed {
        let address = |net: &str, link| Address {
            link,
            net: net.parse().unwrap(),
            global: true,
            tentative: false,
            from_router: false,
        };
        Observed {
            addresses: vec![address("127.0.0.1/8", 1), address("172.30.0.1/24", 2)],
            routes: Vec::new(),
            loopback: 1,
            mtus: vec![(1, 65536), (2, 1450)],
        }
    }

    fn config() -> Config {
        Config {
            node_name: "a".into(),
            conf_folder: "/conf".into(),
            state_folder: "/state".into(),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            ..Config::default()
        }
    }

    #[test]
    fn every_other_node_of_the_segment_gets_a_route_and_stale_ones_go() {
        let peers = [
            peer("a", "172.30.0.1", "10.244.0.0/24"),
            peer("b", "172.30.0.2", "10.244.1.0/24"),
            peer("c", "192.0.2.3", "10.244.2.0/24"),
        ];
        let plan_of = |observed: &Observed| plan(&config(), &peers, observed);
        let first = plan_of(&observed());
        let added: Vec<_> =
            first.add.iter().map(|route| (route.destination.to_string(), route.gateway, route.link)).collect();
        let gateway = "172.30.0.2".parse().ok();
        assert_eq!(added, [("10.244.1.0/24".to_owned(), gateway, None), ("10.96.0.0/16".to_owned(), None, Some(1))]);
        assert_eq!(first.unreachable, ["c"]);
        assert!(first.remove.is_empty());

        let mut later = observed();
        later.routes = first.add.clone();
        later.routes[0].link = Some(2);
        let stale = Route::via("10.244.9.0/24".parse().unwrap(), "172.30.0.9".parse().unwrap(), NODE_ROUTES);
        let foreign = Route::via("10.244.8.0/24".parse().unwrap(), "172.30.0.9".parse().unwrap(), Protocol::Static);
        later.routes.extend([stale, foreign]);
        let second = plan_of(&later);
        assert_eq!((second.add, second.remove), (Vec::new(), vec![stale]));
    }

    #[test]
    fn the_configuration_waits_for_the_pod_range() {
        let mut peers = [peer("a", "172.30.0.1", "10.244.0.0/24")];
        let text = plan(&config(), &peers, &observed()).configuration.unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let plugin = &list["plugins"][0];
        assert_eq!((plugin["podCIDRs"][0].as_str(), plugin["mtu"].as_u64()), (Some("10.244.0.0/24"), Some(1450)));
        peers[0].ranges.clear();
        assert_eq!(plan(&config(), &peers, &observed()).configuration, None);
    }

    #[test]
    fn pods_are_masqueraded_only_towards_the_outside() {
        let peers = [peer("a", "172.30.0.1", "10.244.0.0/24"), peer("b", "172.30.0.2", "10.244.1.0/24")];
        let [ip, ip6] = plan(&config(), &peers, &observed()).tables;
        let text = ip.replace_script().as_str().to_owned();
        assert!(text.contains("ip saddr { 10.244.0.0/24 } ip daddr != @inside"), "{text}");
        assert!(
            text.contains("add element ip keelson-podnet inside { 10.244.0.0/23, 172.30.0.1/32, 172.30.0.2/32 }"),
            "{text}"
        );
        assert!(!ip6.replace_script().as_str().contains("add rule"));
    }
}
