//! `[network.firewall]`

use crate::model::API_PORT;
use crate::words::{Cidr, FirewallAction, FirewallProtocol, InterfaceName, PortRange, Role};

/// The port of the machine API.
pub const MACHINE_PORT: u16 = 50_000;

/// `[network.firewall]`: what reaches the host itself. What is for pods and Services passes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What becomes of packets that no rule fits.
    pub ingress: FirewallAction,
    /// Where the cluster's machines are; empty means everywhere.
    pub machines: Vec<Cidr>,
    /// Where those are who look after machines and cluster; `None` means everywhere.
    pub operators: Option<Vec<Cidr>>,
    /// Rules, the first that fits decides.
    pub rules: Vec<FirewallRule>,
}

/// `[[network.firewall.rules]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// What becomes of packets that it fits.
    pub action: FirewallAction,
    /// What they carry; `None` is anything.
    pub protocol: Option<FirewallProtocol>,
    /// The ports that they are for; empty means all.
    pub ports: Vec<PortRange>,
    /// Where they come from; empty means everywhere.
    pub from: Vec<Cidr>,
    /// The interface that they come in by; `None` is any.
    pub interface: Option<InterfaceName>,
}

/// Who has to reach a service of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Whoever looks after the machine, and the machines that pass their calls on.
    Operators,
    /// Users of the cluster, its machines and its pods.
    Users,
    /// The cluster's machines.
    Machines,
    /// The cluster's machines and pods.
    Cluster,
}

/// A service without which a machine cannot be looked after, or its cluster does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostService {
    /// For people.
    pub name: &'static str,
    /// Its TCP ports.
    pub ports: PortRange,
    /// Who has to reach it.
    pub callers: Callers,
    /// Whether only masters have it.
    pub is_masters: bool,
}

/// After all rules these are accepted.
const HOST_SERVICES: [HostService; 4] = [
    HostService {
        name: "machine API",
        ports: PortRange::new(MACHINE_PORT, MACHINE_PORT),
        callers: Callers::Operators,
        is_masters: false,
    },
    HostService {
        name: "API server",
        ports: PortRange::new(API_PORT, API_PORT),
        callers: Callers::Users,
        is_masters: true,
    },
    HostService { name: "etcd", ports: PortRange::new(2379, 2380), callers: Callers::Machines, is_masters: true },
    HostService {
        name: "kubelet",
        ports: PortRange::new(10_250, 10_250),
        callers: Callers::Cluster,
        is_masters: false,
    },
];

/// The services of a machine's host that others need.
pub fn host_services(role: Role) -> impl Iterator<Item = &'static HostService> {
    HOST_SERVICES.iter().filter(move |service| role.has_control_plane() || !service.is_masters)
}

impl Firewall {
    /// Where the callers of a service may be; `None` means everywhere.
    #[must_use]
    pub fn callers(&self, callers: Callers, pods: &[Cidr]) -> Option<Vec<Cidr>> {
        let operators = self.operators.as_deref();
        let (first, with_pods) = match callers {
            Callers::Operators => (operators?, false),
            Callers::Users => (operators?, true),
            Callers::Machines => (&[][..], false),
            Callers::Cluster => (&[][..], true),
        };
        if self.machines.is_empty() {
            return None;
        }
        let pods = if with_pods { pods } else { &[] };
        Some([first, &self.machines, pods].concat())
    }
}

impl FirewallRule {
    /// Whether it fits some packets for these TCP ports.
    #[must_use]
    pub fn concerns(&self, ports: PortRange) -> bool {
        self.is_about_tcp() && (self.ports.is_empty() || self.ports.iter().any(|own| own.overlaps(ports)))
    }

    /// Whether it fits every packet for these TCP ports.
    #[must_use]
    pub fn covers(&self, ports: PortRange) -> bool {
        let is_everywhere = |is_ipv4| {
            let is_all = |range: &Cidr| range.is_ipv4() == is_ipv4 && range.net().prefix_len() == 0;
            self.from.is_empty() || self.from.iter().any(is_all)
        };
        self.is_about_tcp()
            && (self.ports.is_empty() || self.ports.iter().any(|own| own.contains(ports)))
            && self.interface.is_none()
            && is_everywhere(true)
            && is_everywhere(false)
    }

    fn is_about_tcp(&self) -> bool {
        self.protocol.is_none_or(|protocol| protocol == FirewallProtocol::Tcp)
    }
}
