//! What the role process is told.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use machine_api::NameServers;
use manifest::Manifest;
use tokio::sync::watch;

use crate::api::{Peer, Updates};
use crate::etcd::Master;

/// The cache of this machine's look-ups, which whoever starts this process runs beside it.
#[derive(Clone, Debug)]
pub struct Names {
    /// Where it answers.
    pub address: SocketAddr,
    /// Whom it asks, as far as that is known.
    pub servers: watch::Sender<Vec<NameServers>>,
}

/// What the cache of this machine's look-ups tells, and is told.
pub trait LookUps: fmt::Debug + Send + Sync {
    /// What was counted, as monitoring reads it.
    fn metrics(&self) -> String;
    /// Which name servers cannot be asked by TLS at present, and why.
    fn troubles(&self) -> Vec<String>;
    /// The clock says what somebody told it: certificates may be judged by it.
    fn tell_clock(&self);
}

/// What the role process is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The manifest in force; `None` in maintenance.
    pub manifest: Option<Manifest>,
    /// A manifest whose network counts before that of the one in force, such as one that was set at the console, and
    /// nothing else of which does.
    pub mended: Option<Manifest>,
    /// Whether the machine, and with it the clock, is ours.
    pub owns_clock: bool,
    /// No clock is earlier than the moment this program was built.
    pub built: SystemTime,
    /// How the links of this machine's pods begin; empty if it has none.
    pub pod_links: String,
    /// The cache of the machine's own look-ups; without one they go to the DNS servers.
    pub names: Option<Names>,
    /// The same, as it fares.
    pub look_ups: Option<Arc<dyn LookUps>>,
    /// Where state of this boot is kept and published.
    pub run: PathBuf,
    /// Where to say that the network is up.
    pub notify_socket: Option<PathBuf>,
    /// Updates; none where the machine was not started from a disk of slots.
    pub updates: Option<Updates>,
    /// The other members of etcd, on a master.
    pub peers: Vec<Peer>,
    /// etcd, on a master.
    pub etcd: Option<Master>,
    /// The folder of what survives.
    pub state: PathBuf,
    /// The port of other machines that callers are forwarded to, on a master.
    pub forwards_to: Option<u16>,
    /// Where the kernel's last lines before the last crash are kept.
    pub crash: PathBuf,
    /// Where it is kept how the last starts went.
    pub boots: PathBuf,
    /// A file whose time is the last one that the machine knew.
    pub clock: PathBuf,
    /// The folder of the services' logs.
    pub logs: PathBuf,
    /// The folder of the pods' logs.
    pub pod_logs: PathBuf,
    /// The container runtime's socket.
    pub containerd: PathBuf,
    /// The folder of certificates, by which callers are known over the network.
    pub pki: PathBuf,
    /// Where a manifest is taken in while there is none, and callers with certificates are served otherwise.
    pub maintenance: SocketAddr,
}

impl Config {
    /// The manifest whose network counts.
    pub(crate) fn networking(&self) -> Option<&Manifest> {
        self.mended.as_ref().or(self.manifest.as_ref())
    }

    /// The usual places.
    #[must_use]
    pub fn new(manifest: Option<Manifest>, built: SystemTime) -> Self {
        Self {
            manifest,
            mended: None,
            owns_clock: true,
            built,
            pod_links: String::new(),
            names: None,
            look_ups: None,
            run: "/run/keelson".into(),
            notify_socket: Some("/run/keelson/notify".into()),
            updates: None,
            peers: Vec::new(),
            etcd: None,
            state: "/state".into(),
            forwards_to: None,
            crash: "/state/crash.log".into(),
            boots: "/state/boots.json".into(),
            clock: "/state/clock".into(),
            logs: "/var/log/keelson".into(),
            pod_logs: "/var/log/pods".into(),
            containerd: "/run/containerd/containerd.sock".into(),
            pki: "/state/pki".into(),
            maintenance: SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 50_000)),
        }
    }
}
