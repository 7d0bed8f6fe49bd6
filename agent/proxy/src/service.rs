//! Services as the proxy sees them: parsed once, small, without strings to compare.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ServiceName {
    /// Both parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn has_net(self, net: &IpNet) -> bool {
        self == Self::of(&net.addr())
    }
}

/// An address and port that packets end up at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// On this node.
    pub(crate) is_local: bool,
}

/// Everything the rules for one Service depend on, for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    pub(crate) ports: Vec<PortPlan>,
    /// Where to answer how many endpoints this node has, and how many it has.
    pub(crate) health: Option<HealthPort>,
}

/// A port that load balancers ask whether this node has endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HealthPort {
    pub(crate) port: u16,
    pub(crate) local_endpoints: usize,
}

/// One port of a Service, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortPlan {
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Tells ports of one Service apart, together with family and protocol.
    pub(crate) cluster_address: IpAddr,
    pub(crate) node_port: Option<u16>,
    /// From `externalIPs`.
    pub(crate) external_addresses: Vec<IpAddr>,
    /// From the load balancer's status.
    pub(crate) balancer_addresses: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty for everybody.
    pub(crate) source_ranges: Vec<IpNet>,
    /// How long a sender stays with its endpoint.
    pub(crate) affinity_seconds: Option<u32>,
    pub(crate) is_internal_local: bool,
    pub(crate) is_external_local: bool,
    /// Endpoints for policy `Cluster`.
    pub(crate) cluster: Vec<Endpoint>,
    /// Endpoints for policy `Local`.
    pub(crate) local: Vec<Endpoint>,
}

impl PortPlan {
    pub(crate) fn has_external(&self) -> bool {
        self.node_port.is_some() || !self.external_addresses.is_empty() || !self.balancer_addresses.is_empty()
    }

    /// Whether there is any endpoint anywhere.
    pub(crate) fn has_endpoints(&self) -> bool {
        !self.cluster.is_empty() || !self.local.is_empty()
    }
}
