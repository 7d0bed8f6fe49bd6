//! What the node's side is told.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// Settings of the pod network on one node.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The Node object of this machine.
    pub node_name: String,
    /// The node's own addresses. Empty: from the Node object.
    pub node_addresses: Vec<IpAddr>,
    /// The folder that the container runtime reads CNI configurations from.
    pub conf_folder: PathBuf,
    /// Where leases are kept; should not outlive a boot.
    pub state_folder: PathBuf,
    /// Largest packet of pods. None: that of the link with the node's address.
    pub mtu: Option<u32>,
    /// Ranges that pods reach under their own address, besides all nodes' pod ranges and addresses.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of cluster addresses. They get a route, so that a machine without a default route can send there
    /// and have the service proxy translate on the way.
    pub service_cidrs: Vec<IpNet>,
    /// The `nft` program, if not the one on the path.
    pub nft: Option<PathBuf>,
}
