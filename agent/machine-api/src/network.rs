//! The machine's network: as its own components see it, and as the kernel has it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::table::{Row, size};
use crate::{Connection, FirewallRule, Interface, RouteStatus, Tunnel};

/// What the network looks like, as `network.json` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStatus {
    /// Whether what the manifest requires is there.
    pub ready: bool,
    /// The machine's address for others: one of the interface with the default route.
    pub primary: Option<IpAddr>,
    /// The same in the other address family, if there is one.
    pub secondary: Option<IpAddr>,
    /// Name servers, best first.
    pub dns_servers: Vec<IpAddr>,
    /// Domains in which short names are looked up, in order.
    pub search_domains: Vec<String>,
    /// Time servers, best first, by address or name.
    pub ntp_servers: Vec<String>,
    /// Why the firewall is not in force; empty if it is, or if there is none.
    pub firewall_failure: String,
    /// The interfaces that are ours.
    pub interfaces: Vec<InterfaceStatus>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its addresses with the lengths of their prefixes.
    pub addresses: Vec<String>,
    /// What it waits for; empty when it is configured.
    pub waits_for: String,
}

impl Row for Interface {
    const HEAD: &'static [&'static str] =
        &["NAME", "KIND", "STATE", "MTU", "MAC", "RECEIVED", "SENT", "ERRORS", "DROPPED", "PEERS", "ADDRESSES"];

    fn cells(&self) -> Vec<String> {
        let state = match (self.is_up, self.has_carrier) {
            (false, _) => "down",
            (true, false) => "no signal",
            (true, true) => "up",
        };
        let (received, sent) = (self.received.unwrap_or_default(), self.sent.unwrap_or_default());
        vec![
            self.name.clone(),
            self.kind.clone(),
            state.to_owned(),
            self.mtu.to_string(),
            self.mac.clone(),
            size(received.bytes),
            size(sent.bytes),
            (received.errors + sent.errors).to_string(),
            (received.dropped + sent.dropped).to_string(),
            self.tunnel.as_ref().map(Tunnel::heard).unwrap_or_default(),
            self.addresses.join(","),
        ]
    }
}

impl Tunnel {
    /// How many of the peers were ever heard of, such as `1/2`.
    fn heard(&self) -> String {
        let heard = self.peers.iter().filter(|peer| peer.last_handshake_seconds.is_some()).count();
        format!("{heard}/{}", self.peers.len())
    }
}

impl Row for FirewallRule {
    const HEAD: &'static [&'static str] =
        &["RULE", "ACTION", "PROTOCOL", "PORTS", "FROM", "INTERFACE", "PACKETS", "BYTES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.rule.clone(),
            self.action.clone(),
            self.protocol.clone(),
            self.ports.clone(),
            self.from.join(","),
            self.interface.clone(),
            self.packets.to_string(),
            size(self.bytes),
        ]
    }
}

impl Row for RouteStatus {
    const HEAD: &'static [&'static str] = &["DESTINATION", "GATEWAY", "INTERFACE", "SOURCE", "METRIC", "MADE BY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.destination.clone(),
            self.gateway.clone().unwrap_or_default(),
            self.interface.clone(),
            self.source.clone().unwrap_or_default(),
            self.metric.map(|metric| metric.to_string()).unwrap_or_default(),
            self.protocol.clone(),
        ]
    }
}

impl Row for Connection {
    const HEAD: &'static [&'static str] =
        &["PROTOCOL", "STATE", "LOCAL", "REMOTE", "UNREAD", "UNSENT", "PID", "PROCESS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.clone(),
            self.state.clone(),
            self.local.clone(),
            self.remote.clone(),
            self.unread_bytes.to_string(),
            self.unsent_bytes.to_string(),
            self.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            self.process.clone(),
        ]
    }
}
