//! The machine's network: as its own components see it, and as the kernel has it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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
    /// Name servers that are asked about all names, best first.
    pub dns_servers: Vec<IpAddr>,
    /// Who is asked about which names, and how.
    pub name_servers: Vec<NameServers>,
    /// Domains in which short names are looked up, in order.
    pub search_domains: Vec<String>,
    /// Time servers, best first, by address or name.
    pub ntp_servers: Vec<String>,
    /// Why the firewall is not in force; empty if it is, or if there is none.
    pub firewall_failure: String,
    /// The interfaces that are ours.
    pub interfaces: Vec<InterfaceStatus>,
}

impl NetworkStatus {
    /// Whether programs of the C library could ask the name servers themselves, as they ask: each about all names, at the
    /// usual port and without TLS.
    #[must_use]
    pub fn has_usual_name_servers(&self) -> bool {
        self.name_servers.iter().all(|group| group.domains.is_empty() && group.servers.iter().all(NameServer::is_usual))
    }
}

/// Name servers that are asked about certain names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameServers {
    /// The domains, each with all that is in it; none are all names that no others are asked about.
    pub domains: Vec<String>,
    /// Best first.
    pub servers: Vec<NameServer>,
}

impl From<Vec<SocketAddr>> for NameServers {
    /// Those that are asked without TLS, about all names.
    fn from(addresses: Vec<SocketAddr>) -> Self {
        let servers = addresses.into_iter().map(|address| NameServer { address, tls: None });
        Self { domains: Vec::new(), servers: servers.collect() }
    }
}

/// One name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameServer {
    /// Where it is asked.
    pub address: SocketAddr,
    /// What its certificate must be; none, if it is asked without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NameServerTls>,
}

/// What the certificate of a name server must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameServerTls {
    /// The name that it is for.
    pub name: String,
    /// CA certificates in PEM, one of which signed it; none are those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl NameServer {
    fn is_usual(&self) -> bool {
        self.tls.is_none() && self.address.port() == 53
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.tls.as_ref().map_or(Ok(()), |tls| write!(f, " ({})", tls.name))
    }
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
