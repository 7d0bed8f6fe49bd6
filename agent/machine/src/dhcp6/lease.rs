//! What a server lent, as it is kept over a restart of the process.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dhcp::Lent;
use crate::dhcp6::message::Reply;

/// A shorter lease would be renewed all the time.
const LEAST_SECONDS: u32 = 30;

/// Addresses and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease6 {
    /// The addresses, without the prefix of their link: routers tell it.
    pub(crate) addresses: Vec<Ipv6Addr>,
    /// Who lent them.
    pub(crate) server: Vec<u8>,
    /// Name servers.
    pub(crate) dns_servers: Vec<Ipv6Addr>,
    /// Time servers, by address or name.
    pub(crate) ntp_servers: Vec<String>,
    /// Domains to search.
    pub(crate) domains: Vec<String>,
    /// How long all of them are lent.
    pub(crate) seconds: u32,
    /// When to ask the lender for more time.
    pub(crate) renew_seconds: u32,
    /// When to ask anybody.
    pub(crate) rebind_seconds: u32,
}

impl Lease6 {
    /// As the network needs it.
    pub(crate) fn lent(&self) -> Lent {
        Lent {
            addresses: self.addresses.iter().map(|address| IpNet::from(IpAddr::V6(*address))).collect(),
            dns_servers: self.dns_servers.iter().copied().map(IpAddr::V6).collect(),
            ntp_servers: self.ntp_servers.clone(),
            domains: self.domains.clone(),
            ..Lent::default()
        }
    }

    /// Reads an offer or what it was confirmed by; one without a usable address is nothing.
    pub(crate) fn from_reply(reply: &Reply) -> Option<Self> {
        let usable = reply.addresses.iter().filter(|lent| lent.valid_seconds > 0 && is_usable(lent.address));
        let usable: Vec<_> = usable.collect();
        if reply.is_refusal {
            return None;
        }
        let seconds = usable.iter().map(|lent| lent.valid_seconds).min()?.max(LEAST_SECONDS);
        let preferred = usable.iter().map(|lent| lent.preferred_seconds).min()?.clamp(LEAST_SECONDS, seconds);
        // RFC 8415, 14.2: half of and four fifths of the shortest preferred time, where the server leaves it to us.
        let renew = Some(reply.renew_seconds).filter(|renew| (1..seconds).contains(renew)).unwrap_or(preferred / 2);
        let rebind = Some(reply.rebind_seconds).filter(|rebind| (renew + 1..seconds).contains(rebind));
        let rebind = rebind.unwrap_or_else(|| (preferred - preferred / 5).max(renew));
        Some(Self {
            addresses: usable.iter().map(|lent| lent.address).collect(),
            server: reply.server.clone(),
            dns_servers: reply.dns_servers.clone(),
            ntp_servers: reply.ntp_servers.clone(),
            domains: reply.domains.clone(),
            seconds,
            renew_seconds: renew,
            rebind_seconds: rebind,
        })
    }
}

fn is_usable(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !address.is_unicast_link_local()
}
