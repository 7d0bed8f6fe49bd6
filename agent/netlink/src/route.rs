//! Routes, of the main table where nothing else is said.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::error::tolerate;
use crate::{Error, Netlink, Result};

/// Who made a route: the mark by which its owner finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The kernel itself.
    Kernel,
    /// A person or a configuration file.
    Static,
    /// A DHCP client.
    Dhcp,
    /// A router advertisement.
    RouterAdvertisement,
    /// A number of the owner's choice.
    Number(u8),
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop; none means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The link to leave by; needed if there is no gateway.
    pub link: Option<u32>,
    /// The sender's address to prefer.
    pub source: Option<IpAddr>,
    /// Lower wins.
    pub metric: Option<u32>,
    /// Reach the gateway by the link even though no address of the link covers it.
    pub onlink: bool,
    /// Who made it.
    pub protocol: Protocol,
    /// The table that it is in; none is the main one.
    pub table: Option<u32>,
}

impl Route {
    /// A route by a gateway.
    #[must_use]
    pub fn via(destination: IpNet, gateway: IpAddr, protocol: Protocol) -> Self {
        Self { gateway: Some(gateway), link: None, ..Self::direct(destination, 0, protocol) }
    }

    /// A route to a destination that is on a link itself.
    #[must_use]
    pub fn direct(destination: IpNet, link: u32, protocol: Protocol) -> Self {
        let link = Some(link);
        Self { destination, gateway: None, link, source: None, metric: None, onlink: false, protocol, table: None }
    }

    /// The destination of a default route of the family of `like`.
    #[must_use]
    pub fn everywhere(like: IpAddr) -> IpNet {
        match like {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        }
    }

    fn message(&self, step: &'static str) -> Result<RouteMessage> {
        let invalid = |error| Error::Refused {
            step,
            subject: self.destination.to_string(),
            source: io::Error::new(io::ErrorKind::InvalidInput, error),
        };
        let destination = self.destination.trunc();
        let scope = match (self.gateway, destination) {
            (None, IpNet::V4(_)) => RouteScope::Link,
            (Some(_), _) | (_, IpNet::V6(_)) => RouteScope::Universe,
        };
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .protocol(self.protocol.into())
            .scope(scope)
            .destination_prefix(destination.addr(), destination.prefix_len())
            .map_err(invalid)?;
        if let Some(gateway) = self.gateway {
            builder = builder.gateway(gateway).map_err(invalid)?;
        }
        if let Some(source) = self.source {
            builder = builder.pref_source(source).map_err(invalid)?;
        }
        if let Some(link) = self.link {
            builder = builder.output_interface(link);
        }
        if let Some(metric) = self.metric {
            builder = builder.priority(metric);
        }
        if let Some(table) = self.table {
            builder = builder.table_id(table);
        }
        if self.onlink {
            builder = builder.onlink();
        }
        Ok(builder.build())
    }
}

impl Netlink {
    /// All unicast routes of the main table.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        self.routes_of(None).await
    }

    /// All unicast routes of a table; none is the main one.
    pub async fn routes_of(&self, table: Option<u32>) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for wanted in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let found = self.handle.route().get(wanted).execute();
            let messages: Vec<RouteMessage> = found.try_collect().await.map_err(|e| Error::new("list", "routes", e))?;
            routes.extend(messages.iter().filter_map(from_message).filter(|route| route.table == table));
        }
        Ok(routes)
    }

    /// Adds a route, or changes the one that leads to the same destination with the same metric.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let step = "add route to";
        let done = self.handle.route().add(route.message(step)?).replace().execute().await;
        tolerate(done.map_err(|e| Error::new(step, route.destination.to_string(), e)), Error::is_exists)
    }

    /// Removes a route.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let step = "delete route to";
        let done = self.handle.route().del(route.message(step)?).execute().await;
        tolerate(done.map_err(|e| Error::new(step, route.destination.to_string(), e)), Error::is_missing)
    }
}

fn from_message(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination = IpNet::new(unspecified, header.destination_prefix_length).ok()?;
    let mut route = Route::via(destination, unspecified, header.protocol.into());
    route.gateway = None;
    route.table = Some(u32::from(header.table));
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination = IpNet::new(ip(address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(link) => route.link = Some(*link),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Table(table) => route.table = Some(*table),
            _ => {}
        }
    }
    route.table = route.table.filter(|table| *table != u32::from(RouteHeader::RT_TABLE_MAIN));
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

impl From<Protocol> for RouteProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Kernel => Self::Kernel,
            Protocol::Static => Self::Static,
            Protocol::Dhcp => Self::Dhcp,
            Protocol::RouterAdvertisement => Self::Ra,
            Protocol::Number(number) => Self::from(number),
        }
    }
}

impl From<RouteProtocol> for Protocol {
    fn from(protocol: RouteProtocol) -> Self {
        match protocol {
            RouteProtocol::Kernel => Self::Kernel,
            RouteProtocol::Static => Self::Static,
            RouteProtocol::Dhcp => Self::Dhcp,
            RouteProtocol::Ra => Self::RouterAdvertisement,
            other => Self::Number(u8::from(other)),
        }
    }
}
