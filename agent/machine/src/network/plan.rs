//! Which links are ours and what each gets.

use ipnet::IpNet;
use manifest::{DhcpMode, Interface, InterfaceId, InterfaceKind, Network, RouteDestination};
use netlink::{Link, LinkKind, Made, Protocol, Route, Rule, Secret, Wireguard};

use crate::dhcp::Family;

/// What one link gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    pub(crate) link: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: Option<u32>,
    /// The keys and peers of a tunnel.
    pub(crate) wireguard: Option<Wireguard>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dhcp4: bool,
    pub(crate) dhcp6: bool,
    pub(crate) router_advertisements: bool,
    /// Whether it is configured only once it has an address.
    pub(crate) needs_address: bool,
    /// Whether Kubernetes waits for it.
    pub(crate) required: bool,
}

impl LinkPlan {
    /// Whether servers of this family are asked.
    pub(crate) fn asks(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.dhcp4,
            Family::V6 => self.dhcp6,
        }
    }
}

/// What all links get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkPlan {
    pub(crate) links: Vec<LinkPlan>,
    /// Rules that choose tables of routes.
    pub(crate) rules: Vec<Rule>,
    /// Interfaces that are required and that the machine does not have.
    pub(crate) missing: Vec<String>,
}

/// Decides. Without interfaces in the manifest every Ethernet link is configured automatically, and one suffices.
pub(crate) fn plan(network: &Network, links: &[Link]) -> NetworkPlan {
    if network.interfaces.is_empty() {
        let cards = links.iter().filter(|link| is_card(link) && link.controller.is_none());
        let links = cards.filter_map(|link| {
            let defaults = LinkPlan {
                link: link.index,
                name: link.name.clone(),
                mac: link.mac?,
                mtu: None,
                wireguard: None,
                addresses: Vec::new(),
                routes: Vec::new(),
                dhcp4: true,
                dhcp6: false,
                router_advertisements: true,
                needs_address: true,
                required: false,
            };
            Some(defaults)
        });
        return NetworkPlan { links: links.collect(), rules: rules(network), missing: Vec::new() };
    }
    let mut plan = NetworkPlan { rules: rules(network), ..NetworkPlan::default() };
    // What carries others has to be on before them.
    for interface in network.in_order() {
        let found = links.iter().find(|link| fits(interface, link));
        match found {
            Some(link) => plan.links.push(from_manifest(network, interface, link)),
            None if interface.required => plan.missing.push(interface.id.to_string()),
            None => {}
        }
    }
    plan
}

/// A rule that names no addresses is for both families.
fn rules(network: &Network) -> Vec<Rule> {
    let families = |rule: &manifest::Rule| match rule.from.or(rule.to) {
        Some(range) => vec![range.is_ipv4()],
        None => vec![true, false],
    };
    let made = |rule: &manifest::Rule, is_ipv4: bool| Rule {
        is_ipv4,
        priority: rule.priority,
        from: rule.from.map(manifest::Cidr::net),
        to: rule.to.map(manifest::Cidr::net),
        mark: rule.mark,
        incoming: rule.incoming.as_ref().map(ToString::to_string),
        table: rule.table,
    };
    network.rules.iter().flat_map(|rule| families(rule).into_iter().map(move |is_ipv4| made(rule, is_ipv4))).collect()
}

/// The link that an interface of the manifest is.
pub(crate) fn find<'a>(network: &Network, id: &InterfaceId, links: &'a [Link]) -> Option<&'a Link> {
    let interface = network.interface(id)?;
    links.iter().find(|link| fits(interface, link))
}

fn fits(interface: &Interface, link: &Link) -> bool {
    let is_that = match interface.kind {
        InterfaceKind::Card => is_card(link),
        InterfaceKind::Vlan(_) => matches!(link.made, Some(Made::Vlan { .. })),
        InterfaceKind::Bond(_) => matches!(link.made, Some(Made::Bond(_))),
        InterfaceKind::Bridge(_) => matches!(link.made, Some(Made::Bridge { .. })),
        InterfaceKind::Wireguard(_) => matches!(link.made, Some(Made::Wireguard)),
    };
    is_that
        && match &interface.id {
            InterfaceId::Name(name) => name.as_str() == link.name,
            InterfaceId::Mac(mac) => Some(mac.octets()) == link.permanent_mac.or(link.mac),
        }
}

/// Cards, and in a namespace the end of a pair that somebody put there as its card. What podnet makes has other names.
fn is_card(link: &Link) -> bool {
    let has_address = link.mac.is_some_and(|mac| mac != [0; 6]);
    let looks_like_a_card = link.name.starts_with("eth") || link.name.starts_with("en");
    has_address
        && match link.kind {
            LinkKind::Physical => true,
            LinkKind::Veth => looks_like_a_card,
            _ => false,
        }
}

fn from_manifest(network: &Network, interface: &Interface, link: &Link) -> LinkPlan {
    let routes = interface.routes.iter().map(|route| {
        let destination = match (route.to, route.via) {
            (RouteDestination::Range(range), _) => range.net(),
            (RouteDestination::Default, Some(via)) => Route::everywhere(via),
            (RouteDestination::Default, None) => IpNet::V4(ipnet::Ipv4Net::default()),
        };
        let mut made = Route::direct(destination, link.index, Protocol::Static);
        made.gateway = route.via;
        made.metric = route.metric;
        made.table = route.table;
        made
    });
    let is_member = network.owner(&interface.id).is_some();
    let asks = interface.dhcp != DhcpMode::None || !interface.addresses.is_empty();
    let wireguard = match &interface.kind {
        InterfaceKind::Wireguard(wireguard) => tunnel(wireguard),
        InterfaceKind::Card | InterfaceKind::Vlan(_) | InterfaceKind::Bond(_) | InterfaceKind::Bridge(_) => None,
    };
    // No router is at the other end of a tunnel.
    let is_tunnel = matches!(interface.kind, InterfaceKind::Wireguard(_));
    let listens = interface.router_advertisements && !is_member && !is_tunnel;
    LinkPlan {
        link: link.index,
        name: link.name.clone(),
        // A tunnel has none.
        mac: link.mac.unwrap_or_default(),
        mtu: interface.mtu,
        wireguard,
        addresses: interface.addresses.iter().map(|address| address.net()).collect(),
        routes: routes.collect(),
        dhcp4: interface.dhcp.ipv4(),
        dhcp6: interface.dhcp.ipv6(),
        router_advertisements: listens,
        // On what carries others routers may be listened to, but nobody waits for one.
        needs_address: asks || (listens && !network.carries_others(&interface.id)),
        required: interface.required,
    }
}

/// Without its own key it has no peers, and one whose further key was not found is none: it would not be as secret.
fn tunnel(wireguard: &manifest::Wireguard) -> Option<Wireguard> {
    let secret = |key: &manifest::Secret<manifest::SecretKey>| key.known().map(|key| Secret::new(*key.bytes()));
    let peer = |peer: &manifest::WireguardPeer| {
        let preshared_key = peer.preshared_key.as_ref().map(secret);
        if matches!(preshared_key, Some(None)) {
            return None;
        }
        Some(netlink::WireguardPeer {
            public_key: *peer.public_key.bytes(),
            preshared_key: preshared_key.flatten(),
            endpoint: peer.endpoint.map(manifest::PeerEndpoint::address),
            keepalive: peer.keepalive.and_then(|it| u16::try_from(it.duration().as_secs()).ok()).unwrap_or(0),
            allowed: peer.allowed.iter().map(|range| range.net()).collect(),
        })
    };
    Some(Wireguard {
        private_key: secret(&wireguard.private_key)?,
        listen_port: wireguard.listen_port,
        peers: wireguard.peers.iter().filter_map(peer).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn link(index: u32, name: &str, kind: LinkKind) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            mtu: 1500,
            up: false,
            carrier: false,
            controller: None,
            permanent_mac: None,
            below: None,
            made: None,
        }
    }

    pub(crate) fn network(text: &str) -> Network {
        let manifest =
            format!("version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n{text}");
        manifest::parse("test", &manifest).unwrap().network
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
        let plan = plan(&Network::default(), &links);
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
        let plan = plan(&network(text), &links);
        assert_eq!(plan.missing, ["ens9"]);
        let first = &plan.links[0];
        assert_eq!((first.link, first.dhcp4, first.addresses.len()), (2, false, 1));
        let route = &first.routes[0];
        assert_eq!((route.destination.to_string().as_str(), route.link), ("0.0.0.0/0", Some(2)));
        assert_eq!((plan.links[1].name.as_str(), plan.links[1].dhcp4), ("ens4", true));
    }

    #[test]
    fn a_tunnel_without_its_secrets_is_no_weaker_one() {
        let tunnel = |own: &str, shared: &str| {
            let text = format!(
                "[[network.interfaces]]\nname = \"wg0\"\naddresses = [\"10.100.0.1/24\"]\nwireguard = {{ private-key = {own}, \
                 peers = [{{ public-key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\", preshared-key = {shared}, \
                 allowed = [\"10.100.0.2/32\"] }}] }}\n"
            );
            let made = Link { made: Some(Made::Wireguard), ..link(7, "wg0", LinkKind::Wireguard) };
            let plan = plan(&network(&text), &[made]);
            let [link] = &plan.links[..] else { panic!("{plan:?}") };
            assert!(!link.router_advertisements);
            link.wireguard.clone().map(|wireguard| wireguard.peers.len())
        };
        let key = "\"MEBPmHo7eH7ROIgG1cQ5D/sQiu2VxpO1bj8ORUqLI0A=\"";
        let elsewhere = "{ file = \"/state/secrets/key\" }";
        assert_eq!(tunnel(key, key), Some(1));
        assert_eq!(tunnel(key, elsewhere), Some(0));
        assert_eq!(tunnel(elsewhere, key), None);
    }

    #[test]
    fn a_tunnel_gets_its_peers_and_shows_no_secret() {
        let text = "[[network.interfaces]]\nname = \"wg0\"\naddresses = [\"10.100.0.1/24\"]\n[network.interfaces.wireguard]\n\
                    private-key = \"MEBPmHo7eH7ROIgG1cQ5D/sQiu2VxpO1bj8ORUqLI0A=\"\nlisten-port = 51820\n\
                    peers = [{ public-key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\", endpoint = \"192.0.2.1:7\",\n\
                    allowed = [\"10.100.0.2/32\"], keepalive = \"25s\" }]\n";
        let tunnel = Link { made: Some(Made::Wireguard), mac: None, ..link(7, "wg0", LinkKind::Wireguard) };
        let plan = plan(&network(text), &[tunnel]);
        assert_eq!((plan.missing.len(), plan.links[0].router_advertisements), (0, false));
        let wireguard = plan.links[0].wireguard.as_ref().unwrap();
        let peer = &wireguard.peers[0];
        assert_eq!((wireguard.listen_port, peer.keepalive, peer.public_key[0]), (Some(51820), 25, 0xc5));
        assert_eq!(format!("{:?}", wireguard.private_key), "***");
    }

    #[test]
    fn members_have_no_addresses_and_nobody_waits_for_one() {
        let text = "[[network.interfaces]]\nname = \"v\"\naddresses = [\"10.0.5.2/24\"]\nvlan = { link = \"br0\", id = 5 }\n\
                    [[network.interfaces]]\nname = \"eth0\"\n[[network.interfaces]]\nname = \"br0\"\n\
                    bridge.members = [\"eth0\"]\n";
        let made = |index, name: &str, kind, made| Link { made: Some(made), ..link(index, name, kind) };
        let links = [
            made(5, "v", LinkKind::Vlan, Made::Vlan { below: 4, id: 5 }),
            made(4, "br0", LinkKind::Bridge, Made::Bridge { stp: false }),
            Link { controller: Some(4), ..link(3, "eth0", LinkKind::Veth) },
        ];
        let plan = plan(&network(text), &links);
        let seen: Vec<(&str, bool, bool)> = plan
            .links
            .iter()
            .map(|link| (link.name.as_str(), link.needs_address, link.router_advertisements))
            .collect();
        assert_eq!(seen, [("eth0", false, false), ("br0", false, true), ("v", true, true)]);
    }
}
