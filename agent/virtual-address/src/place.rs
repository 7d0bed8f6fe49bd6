//! Where the address belongs: which link, and under which address of its own this machine speaks there.

use std::net::IpAddr;

use netlink::{Address, Link};

use crate::config::Config;

/// A link that can have the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) link: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    /// From which this machine advertises.
    pub(crate) own: IpAddr,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("no interface has a network with {0}")]
    Network(IpAddr),
    #[error("there is no interface {0}")]
    Interface(String),
    #[error("{0} has no Ethernet address")]
    Kind(String),
    #[error("{0} has no signal")]
    Signal(String),
    #[error("{0} has no {1} address of its own yet")]
    Own(String, &'static str),
}

/// Finds it.
pub(crate) fn find(config: &Config, links: &[Link], addresses: &[Address]) -> Result<Place, NoPlace> {
    let others = || addresses.iter().filter(|address| address.net.addr() != config.address);
    let has_network = |link: &Link| others().any(|it| it.link == link.index && it.net.contains(&config.address));
    let link = match &config.interface {
        Some(name) => links.iter().find(|link| link.name == *name).ok_or_else(|| NoPlace::Interface(name.clone())),
        None => links.iter().find(|link| has_network(link)).ok_or(NoPlace::Network(config.address)),
    }?;
    let name = link.name.clone();
    let Some(mac) = link.mac.filter(|mac| *mac != [0; 6]) else { return Err(NoPlace::Kind(name)) };
    if !link.up || !link.carrier {
        return Err(NoPlace::Signal(name));
    }
    let on_link = || others().filter(|address| address.link == link.index);
    let own = match config.address {
        // One of the same network, if there are several.
        IpAddr::V4(_) => {
            let of_family = || on_link().filter(|it| it.global && it.net.addr().is_ipv4());
            of_family().find(|it| it.net.contains(&config.address)).or_else(|| of_family().next())
        }
        IpAddr::V6(_) => on_link().find(|it| is_link_local(it.net.addr()) && !it.tentative),
    };
    let family = if config.address.is_ipv4() { "IPv4" } else { "link-local IPv6" };
    match own {
        Some(own) => Ok(Place { link: link.index, name, mac, own: own.net.addr() }),
        None => Err(NoPlace::Own(name, family)),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::LinkKind;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: LinkKind::Physical,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            mtu: 1500,
            up: true,
            carrier: true,
            controller: None,
            permanent_mac: None,
            below: None,
            made: None,
        }
    }

    fn on(link: u32, net: &str) -> Address {
        let net: ipnet::IpNet = net.parse().unwrap();
        Address { link, net, global: !is_link_local(net.addr()), tentative: false, from_router: false }
    }

    fn config(address: &str, interface: Option<&str>) -> Config {
        Config {
            address: address.parse().unwrap(),
            interface: interface.map(str::to_owned),
            router_id: 5,
            priority: 100,
            preempt: true,
            run: "/run".into(),
            notify_socket: None,
        }
    }

    #[test]
    fn the_link_is_that_of_the_network_or_the_one_that_is_named() {
        let links = [link(2, "eth0"), link(3, "eth1")];
        let all = [
            on(2, "10.1.0.2/24"),
            on(3, "10.0.0.5/32"),
            on(3, "10.9.0.3/24"),
            on(3, "10.0.0.3/24"),
            on(3, "fd00::3/64"),
            on(3, "fe80::3/64"),
        ];
        let found = |address: &str, interface: Option<&str>| {
            let place = find(&config(address, interface), &links, &all).map_err(|error| error.to_string())?;
            Ok((place.link, place.own.to_string()))
        };
        assert_eq!(found("10.0.0.5", None), Ok((3, "10.0.0.3".to_owned())));
        assert_eq!(found("10.0.0.5", Some("eth0")), Ok((2, "10.1.0.2".to_owned())));
        assert_eq!(found("fd00::5", None), Ok((3, "fe80::3".to_owned())));
        let failed = |text: &str| Err::<(u32, String), String>(text.to_owned());
        assert_eq!(found("10.2.0.5", None), failed("no interface has a network with 10.2.0.5"));
        assert_eq!(found("10.0.0.5", Some("eth9")), failed("there is no interface eth9"));
        assert_eq!(found("fd00::5", Some("eth0")), failed("eth0 has no link-local IPv6 address of its own yet"));
    }

    #[test]
    fn a_link_without_a_signal_has_no_addresses_for_others() {
        let silent = Link { carrier: false, ..link(2, "eth0") };
        let found = find(&config("10.0.0.5", None), &[silent], &[on(2, "10.0.0.2/24")]);
        assert_eq!(found, Err(NoPlace::Signal("eth0".to_owned())));
        let tunnel = Link { mac: None, ..link(2, "eth0") };
        let found = find(&config("10.0.0.5", None), &[tunnel], &[on(2, "10.0.0.2/24")]);
        assert_eq!(found, Err(NoPlace::Kind("eth0".to_owned())));
    }
}
