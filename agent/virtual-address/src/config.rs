//! What the election is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// As VRRP has it where nothing else is agreed on.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Of who is not ready and better than nobody.
pub(crate) const POOR_PRIORITY: u8 = 1;

/// What the election is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address.
    pub address: IpAddr,
    /// The interface; `None` is the one in whose network the address is.
    pub interface: Option<String>,
    /// What tells it from other virtual addresses on the same link.
    pub router_id: u8,
    /// 1 to 254; the highest takes it.
    pub priority: u8,
    /// Whether it is taken from who has a lower priority.
    pub preempt: bool,
    /// Where state of this boot is kept and published.
    pub run: PathBuf,
    /// Where to say how it is.
    pub notify_socket: Option<PathBuf>,
}

impl Config {
    /// The address as a link gets it: without a network, so that nothing else is sent from it.
    pub(crate) fn net(&self) -> IpNet {
        IpNet::from(self.address)
    }
}

/// Whether the API server of this machine can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It answers, but not as it should, because of this: it has the address only while nobody is ready.
    Poor(String),
    /// It cannot, because of this.
    NotReady(String),
}
