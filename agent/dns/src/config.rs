//! What the cluster's DNS is told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Settings of the cluster's DNS on one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, by UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Addresses that the node's loopback link is given first, such as the cluster's DNS address. They are known on
    /// this machine only.
    pub hold_addresses: Vec<IpAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// Who knows all other names, in order of preference.
    pub upstreams: Vec<SocketAddr>,
    /// How long answers may be kept.
    pub ttl_seconds: u32,
    /// How long one resolver may take before the next is asked.
    pub upstream_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            hold_addresses: Vec::new(),
            domain: "cluster.local".to_owned(),
            upstreams: Vec::new(),
            // What the specification's tests and upstream's server use.
            ttl_seconds: 5,
            // With two tries each, two dead resolvers still leave time within a stub resolver's usual five seconds.
            upstream_timeout: Duration::from_millis(1200),
        }
    }
}
