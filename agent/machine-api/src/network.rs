//! The machine's network, as its own components see it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
    /// Time servers, best first, by address or name.
    pub ntp_servers: Vec<String>,
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
