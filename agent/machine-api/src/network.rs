//! The machine's network: as its own components see it, and as the kernel has it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::table::{Row, size};

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

/// An interface as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// `physical`, `bridge`, `veth`, …
    pub kind: String,
    /// Whether it was switched on.
    pub is_up: bool,
    /// Whether its wire has a signal.
    pub has_carrier: bool,
    /// Its Ethernet address.
    pub mac: String,
    /// Largest packet.
    pub mtu: u32,
    /// Its addresses with the lengths of their prefixes.
    pub addresses: Vec<String>,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
    /// The other ends, where it is a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
}

/// A WireGuard tunnel, without its secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// The key that its peers know it by, in base64.
    pub public_key: String,
    /// UDP port.
    pub listen_port: u16,
    /// Who is at the other ends.
    pub peers: Vec<Peer>,
}

/// The other end of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// The key that it is known by, in base64.
    pub public_key: String,
    /// Where it was last seen, or is to be.
    pub endpoint: Option<SocketAddr>,
    /// When both last agreed on keys, in seconds since 1970; none for never.
    pub last_handshake_seconds: Option<u64>,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Bytes that were sent to it.
    pub sent_bytes: u64,
}

/// What went one way through an interface since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets that there was no room for.
    pub dropped: u64,
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
        vec![
            self.name.clone(),
            self.kind.clone(),
            state.to_owned(),
            self.mtu.to_string(),
            self.mac.clone(),
            size(self.received.bytes),
            size(self.sent.bytes),
            (self.received.errors + self.sent.errors).to_string(),
            (self.received.dropped + self.sent.dropped).to_string(),
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

/// A rule of the host's firewall, and what it fitted since it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FirewallRule {
    /// What it is for: the number of a rule of the manifest, a service of the host, or everything else.
    pub rule: String,
    /// What becomes of packets: `accept` or `block`.
    pub action: String,
    /// What they carry; empty is anything.
    pub protocol: String,
    /// The ports that they are for; empty is all.
    pub ports: String,
    /// Where they come from; empty is everywhere.
    pub from: Vec<String>,
    /// The interface that they come in by; empty is any.
    pub interface: String,
    /// Packets; of connections only the first ones.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
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

/// A route of the main table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatus {
    /// Where it leads.
    pub destination: String,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: String,
    /// The sender's address to prefer.
    pub source: Option<IpAddr>,
    /// Lower wins.
    pub metric: Option<u32>,
    /// Who made it.
    pub protocol: String,
}

impl Row for RouteStatus {
    const HEAD: &'static [&'static str] = &["DESTINATION", "GATEWAY", "INTERFACE", "SOURCE", "METRIC", "MADE BY"];

    fn cells(&self) -> Vec<String> {
        let text = |address: Option<IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
        vec![
            self.destination.clone(),
            text(self.gateway),
            self.interface.clone(),
            text(self.source),
            self.metric.map(|metric| metric.to_string()).unwrap_or_default(),
            self.protocol.clone(),
        ]
    }
}

/// A socket of the machine's own network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// `tcp`, `tcp6`, `udp` or `udp6`.
    pub protocol: String,
    /// `listen`, `established`, …
    pub state: String,
    /// This end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Bytes that came in and were not read yet.
    pub unread_bytes: u64,
    /// Bytes that the other end did not acknowledge yet.
    pub unsent_bytes: u64,
    /// Whose it is; none where nobody has it any more.
    pub pid: Option<u32>,
    /// The name of that process.
    pub process: String,
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
