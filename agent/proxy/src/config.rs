//! What the proxy is told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// The proxy's settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The Node object of this machine.
    pub node_name: String,
    /// The node's own addresses, the first of each family being the primary one. Empty: from the Node object.
    pub node_addresses: Vec<IpAddr>,
    /// Which of the node's addresses answer node ports. Empty: the primary ones.
    pub node_port_addresses: Vec<IpNet>,
    /// The ranges of all pods of the cluster: senders that reach cluster addresses under their own address. Empty:
    /// nobody is translated on the way to a cluster address, except by [`Config::masquerade_all`].
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges that cluster addresses come from; what is unallocated in them is dropped.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses within those ranges that the node itself answers, such as the cluster's DNS: left alone.
    pub local_addresses: Vec<IpAddr>,
    /// Whether everybody who reaches a cluster address is seen under the node's address.
    pub masquerade_all: bool,
    /// Where to answer health checks of the proxy itself, upstream's port being 10256.
    pub health_address: Option<SocketAddr>,
    /// The `nft` program, if not the one on the path.
    pub nft: Option<PathBuf>,
}
