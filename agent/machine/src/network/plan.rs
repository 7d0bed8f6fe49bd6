//! Which links are ours and what each gets.

use ipnet::IpNet;
use manifest::{Interface, InterfaceId, RouteDestination};
use netlink::{Link, LinkKind, Protocol, Route};

/// What one link gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    pub(crate) link: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: Option<u32>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dhcp4: bool,
    pub(crate) dhcp6: bool,
    pub(crate) router_advertisements: bool,
    /// Whether Kubernetes waits for it.
    pub(crate) required: bool,
}

/// What all links get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkPlan {
    pub(crate) links: Vec<LinkPlan>,
    /// Interfaces that are required and that the machine does not have.
    pub(crate) missing: Vec<String>,
}

/// Decides. Without interfaces in the manifest every Ethernet link is configured automatically, and one suffices.
pub(crate) fn plan(interfaces: &[Interface], links: &[Link]) -> NetworkPlan {
    let ours = links.iter().filter(|link| is_ethernet(link));
    if interfaces.is_empty() {
        let links = ours.filter_map(|link| {
            let defaults = LinkPlan {
                link: link.index,
                name: link.name.clone(),
                mac: link.mac?,
                mtu: None,
                addresses: Vec::new(),
                routes: Vec::new(),
                dhcp4: true,
                dhcp6: false,
                router_advertisements: true,
                required: false,
            };
            Some(defaults)
        });
        return NetworkPlan { links: links.collect(), missing: Vec::new() };
    }
    let ours: Vec<&Link> = ours.collect();
    let mut plan = NetworkPlan::default();
    for interface in interfaces {
        let found = ours.iter().find(|link| fits(interface, link));
        match found.and_then(|link| Some((link, link.mac?))) {
            Some((link, mac)) => plan.links.push(from_manifest(interface, link, mac)),
            None if interface.required => plan.missing.push(interface.id.to_string()),
            None => {}
        }
    }
    plan
}

fn fits(interface: &Interface, link: &Link) -> bool {
    match &interface.id {
        InterfaceId::Name(name) => name.to_string() == link.name,
        InterfaceId::Mac(mac) => Some(mac.octets()) == link.mac,
    }
}

/// Cards, and in a namespace the end of a pair that somebody put there as its card. What podnet makes has other names.
fn is_ethernet(link: &Link) -> bool {
    let has_address = link.mac.is_some_and(|mac| mac != [0; 6]);
    let looks_like_a_card = link.name.starts_with("eth") || link.name.starts_with("en");
    let is_card = match link.kind {
        LinkKind::Physical => true,
        LinkKind::Veth => looks_like_a_card,
        _ => false,
    };
    has_address && is_card && link.controller.is_none()
}

fn from_manifest(interface: &Interface, link: &Link, mac: [u8; 6]) -> LinkPlan {
    let routes = interface.routes.iter().map(|route| {
        let destination = match (route.to, route.via) {
            (RouteDestination::Range(range), _) => range.net(),
            (RouteDestination::Default, Some(via)) => Route::everywhere(via),
            (RouteDestination::Default, None) => IpNet::V4(ipnet::Ipv4Net::default()),
        };
        let mut made = Route::direct(destination, link.index, Protocol::Static);
        made.gateway = route.via;
        made.metric = route.metric;
        made
    });
    LinkPlan {
        link: link.index,
        name: link.name.clone(),
        mac,
        mtu: interface.mtu,
        addresses: interface.addresses.iter().map(|address| address.net()).collect(),
        routes: routes.collect(),
        dhcp4: interface.dhcp.ipv4(),
        dhcp6: interface.dhcp.ipv6(),
        router_advertisements: interface.router_advertisements,
        required: interface.required,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: LinkKind) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            mtu: 1500,
            up: false,
            carrier: false,
            controller: None,
            below: None,
        }
    }

    fn interfaces(text: &str) -> Vec<Interface> {
        let manifest =
            format!("version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n{text}");
        manifest::parse("test", &manifest).unwrap().network.interfaces
    }

    #[test]
    fn without_a_word_every_card_asks_for_an_address() {
        let links = [
            link(1, "lo", LinkKind::Loopback),
            link(2, "ens3", LinkKind::Physical),
            link(3, "eth0", LinkKind::Veth),
            link(4, "pod1234", LinkKind::Veth),
            link(5, "cni0", LinkKind::Bridge),
        ];
        let plan = plan(&[], &links);
        let names: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["ens3", "eth0"]);
        assert!(plan.links.iter().all(|link| link.dhcp4 && !link.required));
    }

    #[test]
    fn interfaces_are_found_by_name_and_by_address() {
        let text = "[[network.interfaces]]\nname = \"ens3\"\naddresses = [\"10.0.0.2/24\"]\n\
                    [[network.interfaces.routes]]\nto = \"default\"\nvia = \"10.0.0.1\"\n\
                    [[network.interfaces]]\nmac = \"02:00:00:00:00:03\"\ndhcp = \"ipv4\"\n\
                    [[network.interfaces]]\nname = \"ens9\"\ndhcp = \"ipv4\"\n";
        let links = [link(2, "ens3", LinkKind::Physical), link(3, "ens4", LinkKind::Physical)];
        let plan = plan(&interfaces(text), &links);
        assert_eq!(plan.missing, ["ens9"]);
        let first = &plan.links[0];
        assert_eq!((first.link, first.dhcp4, first.addresses.len()), (2, false, 1));
        let route = &first.routes[0];
        assert_eq!((route.destination.to_string().as_str(), route.link), ("0.0.0.0/0", Some(2)));
        assert_eq!((plan.links[1].name.as_str(), plan.links[1].dhcp4), ("ens4", true));
    }
}
