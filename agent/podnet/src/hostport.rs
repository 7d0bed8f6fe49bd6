//! Ports of the node that lead to a port of a pod.
//!
//! One table per family, rendered whole from the leases and replaced in one transaction by whoever changes them. It
//! is rare: most pods have none, and then no table is touched.

use std::net::IpAddr;

use nft::{Base, Chain, ChainKind, Family, Hook, Map, Set, Table};
use serde::{Deserialize, Serialize};

use crate::lease::Lease;

/// Links of pods have names that start like this.
pub const LINK_PREFIX: &str = "kl";
const TABLE: &str = "keelson-hostports";

/// A transport protocol that ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Transport,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The one address of the node that it is for; any if not given.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
}

/// The tables for these leases, one per family.
pub(crate) fn plan_tables(leases: &[Lease]) -> [Table; 2] {
    [plan_table(Family::Ip, leases), plan_table(Family::Ip6, leases)]
}

fn plan_table(family: Family, leases: &[Lease]) -> Table {
    let is_ip6 = family == Family::Ip6;
    let (ip, address) = if is_ip6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
    let mut any = Map::new("inet_proto . inet_service", format!("{address} . inet_service"));
    let mut one = Map::new(format!("{address} . inet_proto . inet_service"), format!("{address} . inet_service"));
    let mut selves = Set::new(format!("{address} . {address}"));
    for lease in leases.iter().filter(|lease| !lease.ports.is_empty()) {
        let Some(pod) = lease.addresses.iter().find(|address| address.is_ipv6() == is_ip6) else { continue };
        selves.elements.insert(format!("{pod} . {pod}").into());
        for port in &lease.ports {
            let key = format!("{} . {}", port.protocol.name(), port.host_port);
            let target = format!("{pod} . {}", port.container_port);
            match port.host_address.filter(|address| !address.is_unspecified()) {
                None => drop(any.elements.insert(key.into(), target.into())),
                Some(host) if host.is_ipv6() == is_ip6 => {
                    one.elements.insert(format!("{host} . {key}").into(), target.into());
                }
                Some(_) => {}
            }
        }
    }
    let mut table = Table::new(family, TABLE);
    table.maps.insert("any-address".into(), any);
    table.maps.insert("one-address".into(), one);
    table.sets.insert("pod-to-itself".into(), selves);
    table.chains.extend(chains(ip));
    table
}

fn chains(ip: &str) -> Vec<(Box<str>, Chain)> {
    let with_port = "meta l4proto { tcp, udp, sctp }";
    let translate = [
        format!("{with_port} dnat {ip} to {ip} daddr . meta l4proto . th dport map @one-address"),
        format!("{with_port} dnat {ip} to meta l4proto . th dport map @any-address"),
    ];
    // Just before Services, so that a node's port that a pod asked for is the pod's.
    let enter = |hook| Base { kind: ChainKind::Nat, hook, priority: -101 };
    let local = ["fib daddr type local jump translate"];
    let mut leave = vec![format!("{ip} saddr . {ip} daddr @pod-to-itself masquerade")];
    let mut chains: Vec<(Box<str>, Chain)> = vec![
        ("translate".into(), Chain::new(translate)),
        ("prerouting".into(), Chain::base(enter(Hook::Prerouting), local)),
    ];
    if ip == "ip" {
        chains.push(("output".into(), Chain::base(enter(Hook::Output), local)));
        // The node reaches its own ports by 127.0.0.1 too; the pod has to see an address that it can answer to, and
        // must not use the opened way to the node's loopback itself.
        leave.push(format!("oifname \"{LINK_PREFIX}*\" ip saddr 127.0.0.0/8 masquerade"));
        let raw = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300 };
        let guard = format!("iifname \"{LINK_PREFIX}*\" ip daddr 127.0.0.0/8 drop");
        chains.push(("guard".into(), Chain::base(raw, [guard])));
    } else {
        chains.push((
            "output".into(),
            Chain::base(enter(Hook::Output), ["ip6 daddr != ::1 fib daddr type local jump translate"]),
        ));
    }
    let postrouting = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 99 };
    chains.push(("postrouting".into(), Chain::base(postrouting, leave)));
    chains
}
