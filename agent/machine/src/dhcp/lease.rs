//! What a server lent, as it is kept over a restart of the process.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::dhcp::lent::{Lent, LentRoute};
use crate::dhcp::message::Reply;

/// Without the server's word a lease is this long.
const DEFAULT_SECONDS: u32 = 3600;
/// A shorter lease would be renewed all the time.
const LEAST_SECONDS: u32 = 30;

/// An address and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The address with the length of its network's prefix.
    pub(crate) address: Ipv4Net,
    /// Who lent it.
    pub(crate) server: Ipv4Addr,
    /// Destinations and gateways; a gateway of 0.0.0.0 is the link itself.
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Name servers.
    pub(crate) dns_servers: Vec<Ipv4Addr>,
    /// Time servers.
    pub(crate) ntp_servers: Vec<Ipv4Addr>,
    /// Domain to search.
    pub(crate) domain: Option<String>,
    /// Largest packet.
    pub(crate) mtu: Option<u16>,
    /// How long it is lent.
    pub(crate) seconds: u32,
    /// When to ask the lender for more time.
    pub(crate) renew_seconds: u32,
    /// When to ask anybody.
    pub(crate) rebind_seconds: u32,
}

impl Lease {
    /// As the network needs it.
    pub(crate) fn lent(&self) -> Lent {
        let route = |(to, via): &(Ipv4Net, Ipv4Addr)| LentRoute {
            to: IpNet::V4(*to),
            via: (!via.is_unspecified()).then_some(IpAddr::V4(*via)),
            source: IpAddr::V4(self.address.addr()),
            onlink: !via.is_unspecified() && !self.address.contains(via),
        };
        Lent {
            addresses: vec![IpNet::V4(self.address)],
            routes: self.routes.iter().map(route).collect(),
            dns_servers: self.dns_servers.iter().copied().map(IpAddr::V4).collect(),
            ntp_servers: self.ntp_servers.iter().map(ToString::to_string).collect(),
            domains: self.domain.iter().cloned().collect(),
            mtu: self.mtu.map(u32::from),
        }
    }

    /// Reads an offer or an acknowledgement; one without a server or a usable address is nothing.
    pub(crate) fn from_reply(reply: &Reply) -> Option<Self> {
        let options = &reply.options;
        let prefix = options.mask.map_or(Some(24), |mask| ipnet::ipv4_mask_to_prefix(mask).ok())?;
        if reply.yours.is_unspecified() || reply.yours.is_broadcast() || reply.yours.is_multicast() {
            return None;
        }
        let everywhere = Ipv4Net::default();
        let routes = if options.routes.is_empty() {
            options.routers.first().map(|router| (everywhere, *router)).into_iter().collect()
        } else {
            options.routes.clone()
        };
        let seconds = options.lease_seconds.unwrap_or(DEFAULT_SECONDS).max(LEAST_SECONDS);
        let renew = options.renew_seconds.filter(|renew| *renew < seconds).unwrap_or(seconds / 2);
        let rebind = options.rebind_seconds.filter(|rebind| (renew..seconds).contains(rebind));
        // Whoever is asked for more time is the lender first, however late that is.
        let rebind = rebind.unwrap_or_else(|| (seconds - seconds / 8).max(renew));
        Some(Self {
            address: Ipv4Net::new(reply.yours, prefix).ok()?,
            server: options.server?,
            routes,
            dns_servers: options.dns_servers.clone(),
            ntp_servers: options.ntp_servers.clone(),
            domain: options.domain.clone(),
            mtu: options.mtu.filter(|mtu| *mtu >= 576),
            seconds,
            renew_seconds: renew,
            rebind_seconds: rebind,
        })
    }
}
