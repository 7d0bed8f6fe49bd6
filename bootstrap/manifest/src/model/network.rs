//! `[network]`

use std::net::IpAddr;

use crate::model::Firewall;
use crate::secret::Secret;
use crate::words::{
    BondMode, Cidr, DhcpMode, DnsName, HashPolicy, Host, InterfaceAddress, InterfaceId, InterfaceName, LacpRate,
    NameServer, PeerEndpoint, PemCertificates, PublicKey, RouteDestination, SecretKey, TimeSpan,
};

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Interfaces; empty means DHCPv4 and router advertisements on every Ethernet interface.
    pub interfaces: Vec<Interface>,
    /// Rules that choose tables of routes.
    pub rules: Vec<Rule>,
    /// What reaches the host itself; everything without.
    pub firewall: Option<Firewall>,
    /// DNS servers, before those of DHCP; in their place, if they are asked by TLS.
    pub dns_servers: Vec<NameServer>,
    /// The CAs of those that are asked by TLS.
    pub dns_ca: Option<PemCertificates>,
    /// DNS servers of certain domains.
    pub dns_domains: Vec<DnsDomains>,
    /// Whether the machine keeps answers for its own look-ups.
    pub dns_cache: bool,
    /// Search domains.
    pub search_domains: Vec<DnsName>,
    /// Time servers, before those of DHCP.
    pub ntp_servers: Vec<Host>,
}

/// `[[network.dns-domains]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDomains {
    /// The domains, with all that is in them.
    pub domains: Vec<DnsName>,
    /// Who knows them.
    pub servers: Vec<NameServer>,
    /// The CAs of those that are asked by TLS.
    pub ca: Option<PemCertificates>,
}

impl Network {
    /// Whether it takes the machine's own resolver to ask as this wants: the C library knows neither TLS nor domains.
    #[must_use]
    pub fn needs_resolver(&self) -> bool {
        !self.dns_domains.is_empty() || !self.dns_servers.iter().all(NameServer::is_usual)
    }

    /// Whether servers that others name are asked, too: not where somebody could listen to them only.
    #[must_use]
    pub fn takes_dns_servers(&self) -> bool {
        self.dns_servers.iter().all(|server| server.tls_name.is_none())
    }
}

/// `[[network.interfaces]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Which interface.
    pub id: InterfaceId,
    /// What it is: a card, or made of others.
    pub kind: InterfaceKind,
    /// DHCP families.
    pub dhcp: DhcpMode,
    /// Static addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// Whether router advertisements are taken.
    pub router_advertisements: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Whether Kubernetes waits for the interface.
    pub required: bool,
    /// Static routes.
    pub routes: Vec<Route>,
}

/// `[[network.interfaces.routes]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: RouteDestination,
    /// The gateway; `None` is the link itself.
    pub via: Option<IpAddr>,
    /// Preference.
    pub metric: Option<u32>,
    /// The table; `None` is the main one.
    pub table: Option<u32>,
}

/// `[[network.rules]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Place among the rules.
    pub priority: u32,
    /// Senders.
    pub from: Option<Cidr>,
    /// Receivers.
    pub to: Option<Cidr>,
    /// Mark of packets.
    pub mark: Option<u32>,
    /// Interface by which packets come in.
    pub incoming: Option<InterfaceName>,
    /// The table of routes.
    pub table: u32,
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A card that the machine has.
    Card,
    /// A VLAN of another interface.
    Vlan(Vlan),
    /// Cards that act as one.
    Bond(Bond),
    /// A switch of other interfaces.
    Bridge(Bridge),
    /// A tunnel to peers.
    Wireguard(Wireguard),
}

/// `[network.interfaces.vlan]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// The interface that the tagged packets travel on.
    pub link: InterfaceId,
    /// The number in the tags.
    pub id: u16,
}

/// `[network.interfaces.bond]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// The cards, at least one.
    pub members: Vec<InterfaceId>,
    /// How packets are distributed among them.
    pub mode: BondMode,
    /// How often their signals are looked at.
    pub miimon: TimeSpan,
    /// How often the other side is asked for signs of life.
    pub lacp_rate: Option<LacpRate>,
    /// What decides on the card that a packet takes.
    pub hash_policy: Option<HashPolicy>,
}

/// `[network.interfaces.bridge]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The interfaces that it switches between, perhaps none.
    pub members: Vec<InterfaceId>,
    /// Whether it keeps loops out by the spanning tree protocol.
    pub stp: bool,
}

/// `[network.interfaces.wireguard]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// Its own key.
    pub private_key: Secret<SecretKey>,
    /// UDP port; `None` is the kernel's choice.
    pub listen_port: Option<u16>,
    /// Who is at the other ends.
    pub peers: Vec<WireguardPeer>,
}

/// `[[network.interfaces.wireguard.peers]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardPeer {
    /// Its key.
    pub public_key: PublicKey,
    /// A further key that both know.
    pub preshared_key: Option<Secret<SecretKey>>,
    /// Where it is; `None` waits for it to call.
    pub endpoint: Option<PeerEndpoint>,
    /// What is sent to it, and taken from it.
    pub allowed: Vec<Cidr>,
    /// Interval of signs of life.
    pub keepalive: Option<TimeSpan>,
}

impl InterfaceKind {
    /// The interfaces that belong to it and have no addresses of their own.
    #[must_use]
    pub fn members(&self) -> &[InterfaceId] {
        match self {
            Self::Bond(bond) => &bond.members,
            Self::Bridge(bridge) => &bridge.members,
            Self::Card | Self::Vlan(_) | Self::Wireguard(_) => &[],
        }
    }

    /// The interfaces that have to be there before it.
    #[must_use]
    pub fn parts(&self) -> &[InterfaceId] {
        match self {
            Self::Vlan(vlan) => std::slice::from_ref(&vlan.link),
            Self::Card | Self::Bond(_) | Self::Bridge(_) | Self::Wireguard(_) => self.members(),
        }
    }

    /// The kernel module that makes it, if one does.
    #[must_use]
    pub fn module(&self) -> Option<&'static str> {
        match self {
            Self::Card => None,
            Self::Vlan(_) => Some("8021q"),
            Self::Bond(_) => Some("bonding"),
            Self::Bridge(_) => Some("bridge"),
            Self::Wireguard(_) => Some("wireguard"),
        }
    }
}

impl Network {
    /// The interface with this identity.
    #[must_use]
    pub fn interface(&self, id: &InterfaceId) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.id == *id)
    }

    /// The interfaces, each after those that it needs.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Interface> {
        let mut ordered: Vec<&Interface> = Vec::new();
        // No interface needs itself, so that each round finds one at least.
        for _round in &self.interfaces {
            for interface in &self.interfaces {
                let is_there = |id: &InterfaceId| ordered.iter().any(|earlier| earlier.id == *id);
                if !is_there(&interface.id) && interface.kind.parts().iter().all(is_there) {
                    ordered.push(interface);
                }
            }
        }
        ordered
    }

    /// Whether an interface is a part of another one, or carries it.
    #[must_use]
    pub fn carries_others(&self, id: &InterfaceId) -> bool {
        self.interfaces.iter().any(|interface| interface.kind.parts().contains(id))
    }

    /// The interface that another one belongs to, if it does.
    #[must_use]
    pub fn owner(&self, id: &InterfaceId) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.kind.members().contains(id))
    }

    /// The kernel modules that the interfaces need.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        let needed: std::collections::BTreeSet<_> = self.interfaces.iter().filter_map(|it| it.kind.module()).collect();
        needed.into_iter()
    }
}
