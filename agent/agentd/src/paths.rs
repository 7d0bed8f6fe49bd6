//! Where things are on a machine.

/// What survives: keys and etcd's data.
pub(crate) const STATE: &str = "/state";
/// Certificates and keys.
pub(crate) const PKI: &str = "/state/pki";
/// What became of the last update.
pub(crate) const UPDATE: &str = "/state/update.json";
/// What extensions tell the container runtime, such as further runtimes.
pub(crate) const CONTAINERD_DROP_INS: &str = "/usr/share/containerd/conf.d/*.toml";
/// The extensions that were added to the machine on their own.
pub(crate) const EXTENSIONS: &str = "/state/extensions";
/// The kernel's last lines before the last crash.
pub(crate) const CRASH: &str = "/state/crash.log";
/// The key that updates must be signed with; where there is none, they need no signature.
pub(crate) const UPDATE_KEY: &str = "/usr/share/keelson/update.key";
/// What keeps the Node from being ready; the first process reads it.
pub(crate) const NODE_CONDITION: &str = "/run/keelson/conditions/node";
/// State of this boot, and what is told of it.
pub(crate) const RUN: &str = "/run/keelson";
/// What pods get to end, in milliseconds; there once the machine goes down.
pub(crate) const ENDING: &str = "/run/keelson/ending";
/// What the first process tells of the machine.
pub(crate) const STATUS: &str = "/run/keelson/status.json";
/// The manifest in force.
pub(crate) const MANIFEST: &str = "/run/keelson/manifest.toml";
/// A manifest whose network counts before that of the one in force, such as one that was set at the console.
pub(crate) const MENDED: &str = "/run/keelson/mended.toml";
/// Where the machine role answers about the machine.
pub(crate) const MACHINE_SOCKET: &str = "/run/keelson/machine.sock";
/// What the machine role tells of the network.
pub(crate) const NETWORK: &str = "/run/keelson/network.json";
/// What the cluster's DNS of this machine counts; the machine role tells it.
pub(crate) const CLUSTER_DNS_METRICS: &str = "/run/keelson/cluster-dns.metrics";
/// The DNS servers, without the machine's own cache, for those who have another loopback link.
pub(crate) const RESOLVERS: &str = "/run/keelson/resolv.servers.conf";
/// The runtime, from Debian.
pub(crate) const CONTAINERD: &str = "/usr/bin/containerd";
/// The runtime's configuration, made at each boot.
pub(crate) const CONTAINERD_CONFIG: &str = "/run/keelson/containerd.toml";
/// Registries and their mirrors, as the runtime reads them.
pub(crate) const REGISTRY_HOSTS: &str = "/run/keelson/certs.d";
/// The runtime's socket.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// etcd, from Debian.
pub(crate) const ETCD: &str = "/usr/bin/etcd";
/// etcd's configuration, made at each start of it.
pub(crate) const ETCD_CONFIG: &str = "/run/keelson/etcd.yaml";
/// Documents of the manifest that the API server reads as files, made at each boot.
pub(crate) const API_SERVER: &str = "/run/keelson/apiserver";
/// Where the runtime reads the pod network's configuration.
pub(crate) const CNI_CONFIG: &str = "/run/keelson/cni/net.d";
/// Addresses that pods have; must not outlive a boot.
pub(crate) const CNI_LEASES: &str = "/run/keelson/cni/leases";
/// Folder of CNI plugins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";
/// Container images in the machine's image.
pub(crate) const IMAGE_CACHE: &str = "/usr/share/keelson/images";
/// The nftables program.
pub(crate) const NFT: &str = "/usr/sbin/nft";
