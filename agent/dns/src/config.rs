//! What the cluster's DNS is told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use machine_api::NameServers;
use tokio::sync::watch;

/// Other resolvers, and what each is asked about; they may change at any time.
#[derive(Clone, Debug)]
pub struct Upstreams(pub(crate) watch::Receiver<Vec<NameServers>>);

impl From<watch::Receiver<Vec<NameServers>>> for Upstreams {
    fn from(changing: watch::Receiver<Vec<NameServers>>) -> Self {
        Self(changing)
    }
}

impl From<Vec<NameServers>> for Upstreams {
    fn from(fixed: Vec<NameServers>) -> Self {
        Self(watch::channel(fixed).1)
    }
}

/// With two tries each, two dead resolvers still leave time within a stub resolver's usual five seconds.
pub(crate) const UPSTREAM_TIMEOUT: Duration = Duration::from_millis(1200);

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
    /// Who knows all other names.
    pub upstreams: Upstreams,
    /// How long answers may be kept.
    pub ttl_seconds: u32,
    /// How long one resolver may take before the next is asked.
    pub upstream_timeout: Duration,
    /// A file where what is counted is told again and again, for whoever tells it to monitoring.
    pub metrics: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            hold_addresses: Vec::new(),
            domain: "cluster.local".to_owned(),
            upstreams: Vec::<NameServers>::new().into(),
            // What the specification's tests and upstream's server use.
            ttl_seconds: 5,
            upstream_timeout: UPSTREAM_TIMEOUT,
            metrics: None,
        }
    }
}
