//! `[network]`

use super::{address, flag, number};
use crate::model::{
    Bond, Bridge, DnsDomains, Firewall, FirewallRule, Interface, InterfaceKind, Network, Route, Rule, Vlan, Wireguard,
    WireguardPeer,
};
use crate::reader::Section;
use crate::words::InterfaceId;

pub(super) fn network(section: &Section<'_>) -> Network {
    Network {
        interfaces: section.sections("interfaces").iter().filter_map(interface).collect(),
        rules: section.sections("rules").iter().filter_map(rule).collect(),
        firewall: firewall(&section.section("firewall")),
        dns_servers: section.list("dns-servers"),
        dns_ca: section.one("dns-ca"),
        dns_domains: section.sections("dns-domains").iter().map(dns_domains).collect(),
        dns_cache: flag(section, "dns-cache").unwrap_or_default(),
        search_domains: section.list("search-domains"),
        ntp_servers: section.list("ntp-servers"),
    }
}

fn dns_domains(section: &Section<'_>) -> DnsDomains {
    DnsDomains { domains: section.list("domains"), servers: section.list("servers"), ca: section.one("ca") }
}

fn interface(section: &Section<'_>) -> Option<Interface> {
    let name = section.one("name").map(InterfaceId::Name);
    let mac = section.one("mac").map(InterfaceId::Mac);
    let kind = kind(section);
    let dhcp = section.one("dhcp");
    let addresses = section.list("addresses");
    let router_advertisements = flag(section, "router-advertisements");
    let mtu = number(section, "mtu");
    let required = flag(section, "required");
    let routes = section.sections("routes").iter().filter_map(route).collect();
    Some(Interface {
        id: name.or(mac)?,
        kind,
        dhcp: dhcp?,
        addresses,
        router_advertisements: router_advertisements?,
        mtu,
        required: required?,
        routes,
    })
}

fn route(section: &Section<'_>) -> Option<Route> {
    let to = section.one("to");
    let via = address(section, "via");
    let metric = number(section, "metric");
    let table = number(section, "table");
    Some(Route { to: to?, via, metric, table })
}

fn rule(section: &Section<'_>) -> Option<Rule> {
    let priority = number(section, "priority");
    let from = section.one("from");
    let to = section.one("to");
    let mark = number(section, "mark");
    let incoming = section.one("incoming");
    let table = number(section, "table");
    Some(Rule { priority: priority?, from, to, mark, incoming, table: table? })
}

fn firewall(section: &Section<'_>) -> Option<Firewall> {
    let ingress = section.one("ingress");
    let machines = section.list("machines");
    let operators = section.list("operators");
    let rules = section.sections("rules").iter().filter_map(firewall_rule).collect();
    Some(Firewall { ingress: ingress?, machines, operators: section.has("operators").then_some(operators), rules })
}

fn firewall_rule(section: &Section<'_>) -> Option<FirewallRule> {
    let action = section.one("action");
    let protocol = section.one("protocol");
    let ports = section.list("ports");
    let from = section.list("from");
    let interface = section.one("interface");
    Some(FirewallRule { action: action?, protocol, ports, from, interface })
}

/// An interface that is nothing else is a card.
fn kind(section: &Section<'_>) -> InterfaceKind {
    let vlan = vlan(&section.section("vlan")).map(InterfaceKind::Vlan);
    let bond = bond(&section.section("bond")).map(InterfaceKind::Bond);
    let bridge = bridge(&section.section("bridge")).map(InterfaceKind::Bridge);
    let wireguard = wireguard(&section.section("wireguard")).map(InterfaceKind::Wireguard);
    vlan.or(bond).or(bridge).or(wireguard).unwrap_or(InterfaceKind::Card)
}

fn vlan(section: &Section<'_>) -> Option<Vlan> {
    let link = section.one("link");
    let id = number(section, "id").and_then(|id| u16::try_from(id).ok());
    Some(Vlan { link: link?, id: id? })
}

fn bond(section: &Section<'_>) -> Option<Bond> {
    let members = section.list("members");
    let mode = section.one("mode");
    let miimon = section.one("miimon");
    let lacp_rate = section.one("lacp-rate");
    let hash_policy = section.one("hash-policy");
    section.is_given().then_some(Bond { members, mode: mode?, miimon: miimon?, lacp_rate, hash_policy })
}

fn bridge(section: &Section<'_>) -> Option<Bridge> {
    let members = section.list("members");
    let stp = flag(section, "stp");
    section.is_given().then_some(Bridge { members, stp: stp? })
}

fn wireguard(section: &Section<'_>) -> Option<Wireguard> {
    let private_key = section.secret("private-key");
    let listen_port = number(section, "listen-port").and_then(|port| u16::try_from(port).ok());
    let peers = section.sections("peers").iter().filter_map(peer).collect();
    Some(Wireguard { private_key: private_key?, listen_port, peers })
}

fn peer(section: &Section<'_>) -> Option<WireguardPeer> {
    let public_key = section.one("public-key");
    let preshared_key = section.secret("preshared-key");
    let endpoint = section.one("endpoint");
    let allowed = section.list("allowed");
    let keepalive = section.one("keepalive");
    Some(WireguardPeer { public_key: public_key?, preshared_key, endpoint, allowed, keepalive })
}
