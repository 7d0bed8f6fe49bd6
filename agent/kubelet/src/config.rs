//! What a kubelet is told at its start.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::Taint;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::ending::Ending;

/// A certificate chain and its key, as PEM. Empty: not issued yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingCertificate {
    /// Chain, leaf first.
    pub cert_pem: Vec<u8>,
    /// Private key.
    pub key_pem: Vec<u8>,
}

impl ServingCertificate {
    /// Whether it is still to be issued.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.cert_pem.is_empty()
    }
}

/// The HTTPS server of a kubelet.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate; a new value is used from the next connection on. Handshakes are refused while it is missing.
    pub certificate: watch::Receiver<ServingCertificate>,
    /// Certificates that sign client certificates, likewise; none accepts tokens only.
    pub client_ca_pem: Option<watch::Receiver<Vec<u8>>>,
    /// Where `/healthz` is answered in plain text; none for nowhere. Must be a loopback address.
    pub healthz: Option<SocketAddr>,
}

/// What is kept back from pods, in the spelling of quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// By resource name (`cpu`, `memory`, `ephemeral-storage`).
    pub amounts: BTreeMap<String, String>,
}

/// Which cgroup interface pods are put under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain folders.
    #[default]
    Cgroupfs,
    /// Names as systemd makes them.
    Systemd,
}

/// When disk and memory count as short, and pods are put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Free memory below this is pressure.
    pub memory_bytes: u64,
    /// Pods that wait for memory, all at once, for this part (in percent) of 10 s are pressure where little is left of it; 0
    /// is never.
    pub stall_percent: u8,
    /// Free disk below this is pressure.
    pub disk_bytes: u64,
    /// Free disk below this part (in percent) is pressure, too.
    pub disk_percent: u8,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { memory_bytes: 100 * 1024 * 1024, stall_percent: 10, disk_bytes: 0, disk_percent: 10 }
    }
}

/// How unused images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// Percent of the disk from which on images are removed; 100 is never.
    pub high_percent: u8,
    /// Percent of the disk down to which images are removed.
    pub low_percent: u8,
    /// Younger images stay.
    pub min_age: Duration,
}

impl Default for ImageCollection {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// What has to be there before the node's first pod.
pub trait Prepare: fmt::Debug + Send + Sync {
    /// Is asked before each sandbox is made: the first call does what is to be done, later ones find it done. Pods are
    /// started whether it succeeds or not; it reports its own errors.
    fn prepare(&self) -> BoxFuture<'_, ()>;
}

/// Everything a kubelet is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses, the main one first.
    pub node_ips: Vec<IpAddr>,
    /// The container runtime's socket.
    pub cri_socket: PathBuf,
    /// The server; none runs without.
    pub server: Option<ServerConfig>,
    /// Where volumes and pods' files lie, usually `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Where the pods' logs lie, usually `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// Where a link for each container's log is made, usually `/var/log/containers`.
    pub container_logs_dir: PathBuf,
    /// Name servers of pods.
    pub cluster_dns: Vec<String>,
    /// Domain of services.
    pub cluster_domain: String,
    /// The node's own resolver configuration.
    pub resolv_conf: PathBuf,
    /// A folder of pods to run without an API server.
    pub static_pod_dir: Option<PathBuf>,
    /// The most pods at a time.
    pub max_pods: u32,
    /// Labels that the node registers with.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// The name by which a cloud knows the node; empty for none.
    pub provider_id: String,
    /// Whether the node makes its own object.
    pub register_node: bool,
    /// How cgroups are named where the runtime does not say.
    pub cgroup_driver: CgroupDriver,
    /// Parent of the pods' cgroups, usually `/`.
    pub cgroup_root: String,
    /// Whether pods get cgroups of their own below those of their quality of service.
    pub cgroups_per_qos: bool,
    /// What is kept back from pods.
    pub reserved: Reserved,
    /// When disk and memory count as short.
    pub pressure: Pressure,
    /// How unused images are removed.
    pub image_collection: ImageCollection,
    /// A container's log file is rotated at this size.
    pub log_max_bytes: u64,
    /// Log files kept per container.
    pub log_max_files: u32,
    /// How often the lease is renewed.
    pub lease_renew: Duration,
    /// How long a lease lasts.
    pub lease_duration: Duration,
    /// How often the node's state is looked at; reported at once if it changed.
    pub status_interval: Duration,
    /// How often the node's state is reported if nothing changed.
    pub status_report: Duration,
    /// What comes before the first pod; nothing if none.
    pub before_pods: Option<Arc<dyn Prepare>>,
    /// Who ends the machine, where that ends the pods; nobody if they always outlive the kubelet.
    pub ending: Option<Arc<dyn Ending>>,
    /// As whom images are asked for where a pod's own secrets do not tell.
    pub logins: cri::Logins,
    /// The longest wait before a crashed container starts again.
    pub max_crash_backoff: Duration,
    /// The version that the node reports.
    pub version: String,
}

impl Config {
    /// A kubelet with upstream's defaults.
    #[must_use]
    pub fn new(node_name: &str, node_ips: Vec<IpAddr>, cri_socket: PathBuf) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_ips,
            cri_socket,
            server: None,
            root_dir: PathBuf::from("/var/lib/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            container_logs_dir: PathBuf::from("/var/log/containers"),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            static_pod_dir: None,
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: String::new(),
            register_node: true,
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_root: "/".to_owned(),
            cgroups_per_qos: true,
            reserved: Reserved::default(),
            pressure: Pressure::default(),
            image_collection: ImageCollection::default(),
            log_max_bytes: 10 * 1024 * 1024,
            log_max_files: 5,
            lease_renew: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_interval: Duration::from_secs(10),
            status_report: Duration::from_secs(300),
            before_pods: None,
            ending: None,
            logins: cri::Logins::default(),
            max_crash_backoff: Duration::from_secs(300),
            version: "v1.36.3".to_owned(),
        }
    }
}
