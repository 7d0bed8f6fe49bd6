//! The manifest as closed types. Nothing here is unchecked text, and defaults are filled in.

use std::collections::BTreeMap;
use std::net::IpAddr;

mod firewall;
mod network;
mod outbound;

pub use firewall::{Callers, Firewall, FirewallRule, HostService, MACHINE_PORT, host_services};
pub use network::{
    Bond, Bridge, DnsDomains, Interface, InterfaceKind, Network, Route, Rule, Vlan, Wireguard, WireguardPeer,
};
pub use outbound::{Login, Outbound, OutboundProxy, OutboundServer};

use crate::secret::{Secret, SecretText};
use crate::words::{
    AuditPolicy, AuthenticationConfiguration, AuthorizationConfiguration, BucketPlace, ByteSize, CaHash, Cidr,
    ClusterName, ClusterSecret, ControlPlanePart, Cpu, DiskSelector, DnsName, EncryptionConfiguration, Endpoint,
    FeatureName, FileContent, FileName, Host, Hostname, InterfaceName, JoinToken, KeptFolder, KeyServerUrl, Kubeconfig,
    LabelKey, LabelValue, LogPath, MirrorUrl, ModuleName, ModuleParameters, Passphrase, PemCertificates,
    PodNetworkMode, RegistryHost, Role, StoreRegion, StoreSecret, StoreUrl, StoreUser, SysctlName, Taint, Threshold,
    Thumbprint, TimeSpan, Volume, VolumeName,
};

/// The port on which masters serve the API.
pub const API_PORT: u16 = 6443;

/// The number of cluster DNS in the first Service range.
const DNS_ADDRESS_INDEX: u32 = 10;

/// A whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What the machine is.
    pub machine: Machine,
    /// Where it keeps its data.
    pub install: Install,
    /// Its further disks.
    pub storage: Storage,
    /// Its network.
    pub network: Network,
    /// The cluster that it belongs to.
    pub cluster: Cluster,
    /// Options of the control plane.
    pub control_plane: ControlPlane,
    /// Options of etcd.
    pub etcd: Etcd,
    /// Options of the kubelet.
    pub kubelet: Kubelet,
    /// The network between pods.
    pub pod_network: PodNetwork,
    /// Where images come from.
    pub registries: Registries,
    /// How servers elsewhere are reached.
    pub outbound: Outbound,
    /// Kernel parameters, in order of their names.
    pub sysctls: BTreeMap<SysctlName, String>,
    /// Kernel modules.
    pub modules: Modules,
    /// The clock.
    pub time: Time,
    /// What must not be shown of its secrets.
    pub(crate) hidden: Vec<SecretText>,
}

/// `[machine]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Host name and Node name.
    pub hostname: Hostname,
    /// Role in the cluster.
    pub role: Role,
    /// Labels of the Node.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// Taints as written; [`Manifest::node_taints`] adds the role's own.
    pub taints: Vec<Taint>,
    /// How long the agent may stand still before the hardware starts the machine again.
    pub watchdog: TimeSpan,
    /// How long pods get to end when the machine goes down.
    pub shutdown_grace: TimeSpan,
    /// The part of it that is kept for critical pods.
    pub shutdown_grace_critical: TimeSpan,
}

/// `[install]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The disk; `None` is the disk that the machine started from.
    pub disk: Option<DiskSelector>,
    /// Whether what is on the disk may be lost.
    pub wipe: bool,
    /// Size of the STATE partition.
    pub state_size: ByteSize,
    /// Size of the DATA partition; `None` is the rest of the disk.
    pub data_size: Option<ByteSize>,
    /// Which partitions are encrypted, and what opens them.
    pub encryption: Vec<Encryption>,
}

impl Install {
    /// The keys of a partition that is to be encrypted.
    #[must_use]
    pub fn encryption_of(&self, volume: Volume) -> Option<&Encryption> {
        self.encryption.iter().find(|encryption| encryption.volumes.contains(&volume))
    }
}

/// One of `[[install.encryption]]`: keys, each of which opens what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Which partitions.
    pub volumes: Vec<Volume>,
    /// The TPM opens them while these registers are as they were.
    pub tpm: Option<Vec<u32>>,
    /// A passphrase opens them.
    pub passphrase: Option<Secret<Passphrase>>,
    /// Each of these servers opens them.
    pub network: Vec<KeyServer>,
}

/// One of `[[install.encryption.network]]`: a Tang server, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyServer {
    /// Where it is.
    pub url: KeyServerUrl,
    /// Thumbprints of keys one of which it must sign with.
    pub thumbprints: Vec<Thumbprint>,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Volumes for pods.
    pub volumes: Vec<UserVolume>,
}

/// One of `[[storage.volumes]]`: a disk of the machine for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserVolume {
    /// Its name.
    pub name: VolumeName,
    /// The disk that it is made on.
    pub disk: DiskSelector,
    /// Whether what is on the disk may be lost when it is made.
    pub wipe: bool,
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name.
    pub name: ClusterName,
    /// URL of the API; always there for workers.
    pub endpoint: Option<Endpoint>,
    /// The address that one of the masters has at a time.
    pub virtual_address: Option<VirtualAddress>,
    /// Ranges of pods, at most one per family, never empty.
    pub pod_cidrs: Vec<Cidr>,
    /// Ranges of Services, at most one per family, never empty.
    pub service_cidrs: Vec<Cidr>,
    /// Domain of cluster DNS.
    pub dns_domain: DnsName,
    /// Address of cluster DNS, inside the first Service range.
    pub dns_address: IpAddr,
    /// Bootstrap token; always there for workers.
    pub token: Option<Secret<JoinToken>>,
    /// How a worker recognizes its cluster; always there for workers.
    pub trust: Option<CaTrust>,
}

/// `[cluster.virtual-address]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// The interface; `None` is the one in whose network the address is.
    pub interface: Option<InterfaceName>,
    /// What tells it from other virtual addresses on the same link.
    pub router_id: u8,
    /// Who of several masters has it: the highest, or, among equals, who has it already.
    pub priority: u8,
    /// Whether a higher priority takes it from who has it.
    pub preempt: bool,
}

impl VirtualAddress {
    /// The router id where the manifest has none: the last byte of the address, which others in its network do not have.
    pub(crate) fn default_router_id(address: IpAddr) -> u8 {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        last.max(1)
    }
}

/// How a machine recognizes its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaTrust {
    /// By the CA itself.
    Certificates(PemCertificates),
    /// By the hashes of its CAs' public keys: first that of the one that issues. Never empty, none twice.
    Hashes(Vec<CaHash>),
}

/// `[control-plane]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Further names of the API server.
    pub extra_sans: Vec<Host>,
    /// The masters' shared secret; always there with more than one master.
    pub secret: Option<Secret<ClusterSecret>>,
    /// Another one that is trusted beside it; never without it.
    pub accepted_secret: Option<Secret<ClusterSecret>>,
    /// Parts that others run.
    pub external: Vec<ControlPlanePart>,
    /// Feature gates.
    pub features: BTreeMap<FeatureName, bool>,
    /// What is written down of requests.
    pub audit: Option<Audit>,
    /// What is encrypted in etcd.
    pub encryption: Option<Secret<EncryptionConfiguration>>,
    /// Whose tokens are believed beside the cluster's own.
    pub authentication: Option<AuthenticationConfiguration>,
    /// Who decides what is allowed, in place of the Node and RBAC authorizers alone.
    pub authorization: Option<AuthorizationConfiguration>,
    /// Files that these documents refer to.
    pub files: Vec<ConfigFile>,
}

/// `[control-plane.audit]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Which requests are written down.
    pub policy: AuditPolicy,
    /// The log; this or the webhook is there.
    pub log: Option<AuditLog>,
    /// The server that is told.
    pub webhook: Option<Secret<Kubeconfig>>,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLog {
    /// The file.
    pub path: LogPath,
    /// Size at which it is rotated.
    pub max_size: ByteSize,
    /// Number of old files kept; 0 keeps all.
    pub max_files: u32,
    /// How long old files are kept; without, for ever.
    pub max_age: Option<TimeSpan>,
    /// Whether old files are compressed.
    pub compress: bool,
}

/// `[[control-plane.files]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its name.
    pub name: FileName,
    /// What is in it.
    pub content: Secret<FileContent>,
}

/// `[etcd]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// First membership; empty means this machine alone.
    pub members: Vec<EtcdMember>,
    /// Size of the database at which writes stop.
    pub quota: ByteSize,
    /// Interval of heartbeats.
    pub heartbeat_interval: TimeSpan,
    /// Silence before an election.
    pub election_timeout: TimeSpan,
    /// Writes between snapshots.
    pub snapshot_count: u32,
    /// Snapshots by schedule, if any.
    pub snapshots: Option<EtcdSnapshots>,
}

/// `[etcd.snapshots]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSnapshots {
    /// From one to the next.
    pub interval: TimeSpan,
    /// So many are kept.
    pub keep: u32,
    /// Where they are.
    pub folder: KeptFolder,
    /// Where they are kept, too.
    pub store: Option<SnapshotStore>,
}

/// `[etcd.snapshots.store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStore {
    /// The bucket or the folder.
    pub url: StoreUrl,
    /// Where the S3 store is, if not at Amazon.
    pub endpoint: Option<MirrorUrl>,
    /// Its region.
    pub region: StoreRegion,
    /// Where the bucket is in its addresses.
    pub bucket_in: BucketPlace,
    /// As whom to ask.
    pub access: StoreAccess,
    /// So many are kept there.
    pub keep: u32,
    /// CAs of the store.
    pub ca: Option<PemCertificates>,
}

/// As whom a store is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAccess {
    /// As nobody in particular.
    Nobody,
    /// With a key or as a user: the public part, and the secret.
    User(StoreUser, Secret<StoreSecret>),
    /// With a token.
    Token(Secret<StoreSecret>),
}

impl StoreAccess {
    /// Whether its secret, if it has one, was found.
    #[must_use]
    pub fn is_known(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::User(_, secret) | Self::Token(secret) => secret.known().is_some(),
        }
    }
}

/// `[[etcd.members]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Host name.
    pub name: Hostname,
    /// Address for the other members.
    pub address: IpAddr,
}

/// `[kubelet]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubelet {
    /// Largest number of pods.
    pub max_pods: u32,
    /// Addresses of the Node; empty means those of the interface with the default route.
    pub node_addresses: Vec<IpAddr>,
    /// What pods do not get.
    pub reserved: Reserved,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// Size at which logs are rotated.
    pub log_max_size: ByteSize,
    /// Number of log files.
    pub log_max_files: u32,
    /// Disk use at which images are removed, in percent.
    pub image_gc_high_percent: u32,
    /// Disk use down to which they are removed, in percent.
    pub image_gc_low_percent: u32,
    /// Feature gates.
    pub features: BTreeMap<FeatureName, bool>,
}

/// `[kubelet.reserved]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: ByteSize,
    /// Disk.
    pub ephemeral_storage: ByteSize,
    /// Process numbers.
    pub pids: u32,
}

/// `[kubelet.eviction]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// `memory.available`
    pub memory_available: Threshold,
    /// `nodefs.available`
    pub nodefs_available: Threshold,
    /// `nodefs.inodesFree`
    pub nodefs_inodes_free: Threshold,
    /// `imagefs.available`
    pub imagefs_available: Threshold,
    /// `imagefs.inodesFree`
    pub imagefs_inodes_free: Threshold,
    /// `pid.available`
    pub pid_available: Threshold,
}

/// `[pod-network]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodNetwork {
    /// How packets travel between nodes.
    pub mode: PodNetworkMode,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// `[registries]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registries {
    /// Mirrors by registry.
    pub mirrors: BTreeMap<RegistryHost, Mirror>,
}

impl Registries {
    /// The mirrors of a registry, or else those of all registries that have none of their own.
    #[must_use]
    pub fn mirror_of(&self, registry: &str) -> Option<&Mirror> {
        let named = |name: &str| self.mirrors.iter().find(|(known, _)| known.as_str() == name);
        named(registry).or_else(|| named(RegistryHost::ANY)).map(|(_, mirror)| mirror)
    }
}

/// `[registries.mirrors.REGISTRY]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Mirrors in order, at least one.
    pub endpoints: Vec<MirrorUrl>,
    /// Whether the registry itself comes last.
    pub fallback: bool,
    /// CAs of the mirrors.
    pub ca: Option<PemCertificates>,
    /// Whether the mirrors' certificates are not verified.
    pub skip_verify: bool,
}

/// `[modules]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    /// Modules to load.
    pub load: Vec<ModuleName>,
    /// Parameters by module.
    pub parameters: BTreeMap<ModuleName, ModuleParameters>,
}

/// `[time]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Whether the clock follows time servers.
    pub sync: bool,
    /// How long the start waits for one.
    pub boot_timeout: TimeSpan,
}

impl Role {
    /// Whether etcd and the control plane run here.
    #[must_use]
    pub const fn has_control_plane(self) -> bool {
        matches!(self, Self::Master | Self::Single)
    }
}

impl Manifest {
    /// What must not be shown, wherever it stands: the secrets that are known, in parts that stand in one line.
    pub fn hidden(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(SecretText::as_str)
    }

    /// The virtual address that this machine takes part in.
    #[must_use]
    pub fn virtual_address(&self) -> Option<&VirtualAddress> {
        self.cluster.virtual_address.as_ref().filter(|_| self.machine.role.has_control_plane())
    }

    /// The taints of the Node when it registers: those of the manifest and, for a master, the control plane's.
    #[must_use]
    pub fn node_taints(&self) -> Vec<Taint> {
        let mut taints = self.machine.taints.clone();
        let own = Taint::control_plane();
        if self.machine.role == Role::Master && !taints.iter().any(|taint| taint.key == own.key) {
            taints.push(own);
        }
        taints
    }
}

impl Cluster {
    /// The address of the Service `kubernetes`: the first of the first Service range.
    #[must_use]
    pub fn api_service_address(&self) -> Option<IpAddr> {
        self.service_cidrs.first().and_then(|range| range.address(1))
    }

    pub(crate) fn default_dns_address(service_cidrs: &[Cidr]) -> Option<IpAddr> {
        service_cidrs.first().and_then(|range| range.address(DNS_ADDRESS_INDEX))
    }
}
