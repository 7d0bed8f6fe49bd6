//! What a DHCP server of either family lent, as the network needs it, and how clients tell of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    V4,
    V6,
}

/// What was lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Lent {
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<LentRoute>,
    pub(crate) dns_servers: Vec<IpAddr>,
    /// By address or name.
    pub(crate) ntp_servers: Vec<String>,
    /// Domains to search.
    pub(crate) domains: Vec<String>,
    pub(crate) mtu: Option<u32>,
}

/// A route that goes with an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LentRoute {
    pub(crate) to: IpNet,
    /// The gateway; none is the link itself.
    pub(crate) via: Option<IpAddr>,
    /// The sender's address.
    pub(crate) source: IpAddr,
    /// Whether no network of the link has the gateway.
    pub(crate) onlink: bool,
}

impl Lent {
    /// What of this is not in the other: it ends when the other takes its place.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let addresses = self.addresses.iter().filter(|address| !other.addresses.contains(address)).copied();
        let routes = self.routes.iter().filter(|route| !other.routes.contains(route)).cloned();
        Self { addresses: addresses.collect(), routes: routes.collect(), ..Self::default() }
    }
}

/// How far a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DhcpState {
    /// What is in use.
    pub(crate) lent: Option<Lent>,
    /// Whether that is known: not before a server has spoken, or a lease has ended.
    pub(crate) is_decided: bool,
    /// What is waited for; empty with a lease.
    pub(crate) waits_for: String,
}

/// The states of all clients, by link and family.
pub(crate) type DhcpStates = BTreeMap<(u32, Family), DhcpState>;

/// One client's place among the states.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    key: (u32, Family),
    states: std::sync::Arc<watch::Sender<DhcpStates>>,
}

impl Report {
    pub(crate) fn new(link: u32, family: Family, states: std::sync::Arc<watch::Sender<DhcpStates>>) -> Self {
        Self { key: (link, family), states }
    }

    /// Something is in use now, or nothing is any more.
    pub(crate) fn decide(&self, lent: Option<Lent>) {
        self.states.send_modify(|states| {
            let state = states.entry(self.key).or_default();
            (state.lent, state.is_decided) = (lent, true);
        });
    }

    /// What is waited for.
    pub(crate) fn wait(&self, waits_for: String) {
        self.states.send_if_modified(|states| {
            let state = states.entry(self.key).or_default();
            let is_changed = state.waits_for != waits_for;
            state.waits_for = waits_for;
            is_changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_new_lease_lacks_ends() {
        let address = |text: &str| text.parse::<IpNet>().unwrap();
        let lent = |addresses: &[&str]| Lent {
            addresses: addresses.iter().map(|text| address(text)).collect(),
            ..Lent::default()
        };
        let ended = lent(&["fd00::1/128", "fd00::2/128"]).without(&lent(&["fd00::2/128", "fd00::3/128"]));
        assert_eq!(ended, lent(&["fd00::1/128"]));
    }
}
