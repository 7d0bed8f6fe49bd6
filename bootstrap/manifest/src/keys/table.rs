//! The rows.

use super::{Key, Kind, Presence, Scalar};
use crate::words::{
    AuditPolicy, AuthenticationConfiguration, AuthorizationConfiguration, ByteSize, CaHash, Cidr, ClusterName,
    ClusterSecret, ControlPlanePart, Cpu, DhcpMode, DiskSelector, DnsName, EncryptionConfiguration, Endpoint,
    FeatureName, FileContent, FileName, Host, Hostname, InterfaceAddress, InterfaceName, IpWord, JoinToken, KeptFolder,
    Kubeconfig, LabelKey, LabelValue, LogPath, MacAddress, MirrorUrl, ModuleName, ModuleParameters, PemCertificates,
    PodNetworkMode, RegistryHost, Role, RouteDestination, SysctlName, Taint, Threshold, TimeSpan, Word,
};
use Presence::{Default, Optional, Required};

const fn one<W: Word>() -> Kind {
    Kind::One(Scalar::Word(W::FORMAT))
}

const fn list<W: Word>() -> Kind {
    Kind::List(Scalar::Word(W::FORMAT))
}

const fn map<W: Word>() -> Kind {
    Kind::Map(W::FORMAT)
}

const fn int(min: i64, max: i64) -> Kind {
    Kind::One(Scalar::Integer { min, max })
}

const BOOL: Kind = Kind::One(Scalar::Bool);
const TEXT: Kind = Kind::One(Scalar::Text);

const fn key(path: &'static str, kind: Kind, presence: Presence, doc: &'static str, example: &'static str) -> Key {
    Key { path, kind, presence, doc, example, secret: false }
}

const fn secret(path: &'static str, kind: Kind, presence: Presence, doc: &'static str, example: &'static str) -> Key {
    Key { path, kind, presence, doc, example, secret: true }
}

#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("version", int(1, 1), Required, "Version of the manifest's schema.", "1"),

    key("machine", Kind::Section, Required, "What this machine is.", "hostname = \"worker-1\"\nrole = \"worker\""),
    key("machine.hostname", one::<Hostname>(), Required,
        "Host name of the machine and name of its Node. Unique in the cluster.", "\"worker-1\""),
    key("machine.role", one::<Role>(), Required,
        "`master` runs etcd, the control plane and the node's components and is tainted against ordinary pods; `worker` \
         runs pods; `single` is a master without the taint.", "\"worker\""),
    key("machine.labels", map::<LabelKey>(), Optional, "Labels of the Node.", "\"example.com/rack\" = \"r1\""),
    key("machine.labels.*", one::<LabelValue>(), Optional, "Value of one label.", "\"r1\""),
    key("machine.taints", list::<Taint>(), Default("[]"),
        "Taints of the Node when it registers, as `key=value:Effect`. A master's own taint need not be given.",
        "[\"example.com/gpu=true:NoSchedule\"]"),
    key("machine.watchdog", one::<TimeSpan>(), Default("\"2m\""),
        "The hardware starts the machine again once the agent has not moved for this long: at least `10s`, at most `10m`.",
        "\"1m\""),
    key("machine.shutdown-grace", one::<TimeSpan>(), Default("\"5s\""),
        "How long pods get to end when the machine goes down or starts again, at most `10m`; a pod that asks for a longer \
         time gets no more. Everything else together gets 9.5 seconds.",
        "\"30s\""),

    key("install", Kind::Section, Optional, "Where the machine keeps its data.", "disk = \"/dev/nvme0n1\""),
    key("install.disk", one::<DiskSelector>(), Optional,
        "Disk to install to: a device, or `serial:`, `model:`, `size:`, `smallest`, `largest`. Without it, the disk that the \
         machine started from.", "\"serial:S5GXNX0T\""),
    key("install.wipe", BOOL, Default("false"),
        "Whether the disk to install to may hold something else, which is lost then.", "true"),
    key("install.state-size", one::<ByteSize>(), Default("\"2Gi\""),
        "Size of the STATE partition: the manifest, keys and etcd.", "\"4Gi\""),
    key("install.data-size", one::<ByteSize>(), Optional,
        "Size of the DATA partition: images, pods and logs. Without it, the rest of the disk.", "\"100Gi\""),

    key("network", Kind::Section, Optional, "Network of the machine.", "dns-servers = [\"192.168.1.1\"]"),
    key("network.interfaces", Kind::Sections, Optional,
        "Interfaces to configure. Without any, every Ethernet interface is configured by DHCPv4 and router \
         advertisements.", "name = \"eth0\"\naddresses = [\"192.168.1.10/24\"]"),
    key("network.interfaces[].name", one::<InterfaceName>(), Optional,
        "The interface, by name. Either this or `mac`.", "\"eth0\""),
    key("network.interfaces[].mac", one::<MacAddress>(), Optional,
        "The interface, by its MAC address. Either this or `name`.", "\"52:54:00:12:34:56\""),
    key("network.interfaces[].dhcp", one::<DhcpMode>(), Default("\"none\""),
        "Address families for which the interface asks a DHCP server.", "\"ipv4\""),
    key("network.interfaces[].addresses", list::<InterfaceAddress>(), Default("[]"),
        "Static addresses with their networks' prefix lengths.", "[\"192.168.1.10/24\", \"fd00::10/64\"]"),
    key("network.interfaces[].router-advertisements", BOOL, Default("true"),
        "Whether IPv6 addresses and routes are taken from router advertisements.", "false"),
    key("network.interfaces[].mtu", int(576, 65535), Optional, "Largest packet, in bytes.", "9000"),
    key("network.interfaces[].required", BOOL, Default("true"),
        "Whether the machine waits for this interface before it starts Kubernetes.", "false"),
    key("network.interfaces[].routes", Kind::Sections, Optional, "Static routes over the interface.",
        "to = \"default\"\nvia = \"192.168.1.1\""),
    key("network.interfaces[].routes[].to", one::<RouteDestination>(), Required,
        "Where the route leads: `default` or a range.", "\"default\""),
    key("network.interfaces[].routes[].via", one::<IpWord>(), Optional,
        "The gateway. Without it, the range is on the link itself.", "\"192.168.1.1\""),
    key("network.interfaces[].routes[].metric", int(0, 4_294_967_295), Optional,
        "Preference among routes to the same range; the lowest is used.", "100"),
    key("network.dns-servers", list::<IpWord>(), Default("[]"),
        "DNS servers, before those that DHCP names.", "[\"192.168.1.1\", \"fd00::1\"]"),
    key("network.search-domains", list::<DnsName>(), Default("[]"),
        "Domains in which short names are looked up.", "[\"example.com\"]"),
    key("network.ntp-servers", list::<Host>(), Default("[]"),
        "Time servers, before those that DHCP names.", "[\"time.example.com\"]"),

    key("cluster", Kind::Section, Optional, "The cluster that the machine belongs to.",
        "endpoint = \"https://192.168.1.10:6443\""),
    key("cluster.name", one::<ClusterName>(), Default("\"keelson\""),
        "Name of the cluster in kubeconfig files.", "\"home\""),
    key("cluster.endpoint", one::<Endpoint>(), Optional,
        "URL at which every machine reaches the API. A worker needs it; on a single master it is the master's own \
         address on port 6443 if absent.", "\"https://192.168.1.10:6443\""),
    key("cluster.pod-cidrs", list::<Cidr>(), Default("[\"10.244.0.0/16\"]"),
        "Ranges of pod addresses, one per address family. Every node gets a part. The same on all machines.",
        "[\"10.244.0.0/16\", \"fd00:10:244::/56\"]"),
    key("cluster.service-cidrs", list::<Cidr>(), Default("[\"10.96.0.0/16\"]"),
        "Ranges of Service addresses, one per address family. The same on all machines.",
        "[\"10.96.0.0/16\", \"fd00:10:96::/112\"]"),
    key("cluster.dns-domain", one::<DnsName>(), Default("\"cluster.local\""),
        "Domain of Services and pods in cluster DNS.", "\"cluster.local\""),
    key("cluster.dns-address", one::<IpWord>(), Optional,
        "Service address of cluster DNS. Without it, address number 10 of the first Service range.", "\"10.96.0.10\""),
    secret("cluster.token", one::<JoinToken>(), Optional,
        "Bootstrap token with which machines join. A worker needs it; a master accepts it from others.",
        "\"abcdef.0123456789abcdef\""),
    key("cluster.ca", one::<PemCertificates>(), Optional,
        "The cluster's CA certificates in PEM. A worker needs this or `ca-hash`.",
        "\"\"\"\n-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n\"\"\""),
    key("cluster.ca-hash", one::<CaHash>(), Optional,
        "SHA-256 of the CA's public key, with which a worker recognizes its cluster.",
        "\"sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866\""),

    key("control-plane", Kind::Section, Optional, "Options of the control plane. For masters.",
        "extra-sans = [\"api.example.com\"]"),
    key("control-plane.extra-sans", list::<Host>(), Default("[]"),
        "Further names and addresses in the API server's certificate.", "[\"api.example.com\", \"203.0.113.5\"]"),
    secret("control-plane.secret", one::<ClusterSecret>(), Optional,
        "Secret that all masters of a cluster share and from which the CA keys are derived. Needed with more than one \
         master; without it, a master makes its own keys on its first start. `openssl rand -hex 32` makes one.",
        "\"...64 hexadecimal digits...\""),
    key("control-plane.external", list::<ControlPlanePart>(), Default("[]"),
        "Parts of the control plane that do not run here because others are run in their place, such as upstream's.",
        "[\"scheduler\"]"),
    key("control-plane.features", map::<FeatureName>(), Optional,
        "Feature gates of the control plane's components.", "InPlacePodVerticalScaling = true"),
    key("control-plane.features.*", BOOL, Optional, "Whether the feature is on.", "true"),
    key("control-plane.audit", Kind::Section, Optional,
        "What the API server writes down of requests, as upstream's audit flags. Needs a log, a webhook or both.",
        "log-path = \"/var/log/keelson/audit.log\""),
    key("control-plane.audit.policy", one::<AuditPolicy>(), Required,
        "Which requests are written down, and how much of them.",
        "'''\napiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n'''"),
    key("control-plane.audit.log-path", one::<LogPath>(), Optional, "File that events are appended to.",
        "\"/var/log/keelson/audit.log\""),
    key("control-plane.audit.log-max-size", one::<ByteSize>(), Default("\"100Mi\""),
        "Size at which the file is rotated.", "\"50Mi\""),
    key("control-plane.audit.log-max-files", int(0, 10_000), Default("10"),
        "Number of old files that are kept; 0 keeps all.", "10"),
    key("control-plane.audit.log-max-age", one::<TimeSpan>(), Optional,
        "How long old files are kept. Without it, only their number counts.", "\"720h\""),
    key("control-plane.audit.log-compress", BOOL, Default("false"), "Whether old files are compressed.", "true"),
    secret("control-plane.audit.webhook", one::<Kubeconfig>(), Optional,
        "Kubeconfig of a server that events are sent to, in batches.",
        "'''\napiVersion: v1\nkind: Config\nclusters: [...]\n'''"),
    secret("control-plane.encryption", one::<EncryptionConfiguration>(), Optional,
        "What is encrypted in etcd and by which keys, or by which KMS v2 plugin. The same on all masters.",
        "'''\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [...]\n'''"),
    key("control-plane.authentication", one::<AuthenticationConfiguration>(), Optional,
        "Issuers of OIDC tokens that are believed, with the rules for their claims, and who may be anonymous.",
        "'''\napiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [...]\n'''"),
    key("control-plane.authorization", one::<AuthorizationConfiguration>(), Optional,
        "Authorizers in order, Node and RBAC among them. Without it, these two.",
        "'''\napiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [...]\n'''"),
    key("control-plane.files", Kind::Sections, Optional,
        "Files that these documents refer to, such as kubeconfigs of webhooks: NAME is \
         `/run/keelson/apiserver/files/NAME`.",
        "name = \"webhook.kubeconfig\"\ncontent = \"...\""),
    key("control-plane.files[].name", one::<FileName>(), Required, "Name of the file.", "\"webhook.kubeconfig\""),
    secret("control-plane.files[].content", one::<FileContent>(), Required,
        "Text of the file, which only the API server can read.", "\"...\""),

    key("etcd", Kind::Section, Optional, "Options of etcd. For masters.", "quota = \"1Gi\""),
    key("etcd.members", Kind::Sections, Optional,
        "The masters that form etcd's first membership, this one among them. Without any, this machine alone.",
        "name = \"master-1\"\naddress = \"192.168.1.11\""),
    key("etcd.members[].name", one::<Hostname>(), Required, "Host name of the master.", "\"master-1\""),
    key("etcd.members[].address", one::<IpWord>(), Required,
        "Address at which the other masters reach this member.", "\"192.168.1.11\""),
    key("etcd.quota", one::<ByteSize>(), Default("\"1Gi\""), "Size of the database at which etcd stops writing.",
        "\"2Gi\""),
    key("etcd.heartbeat-interval", one::<TimeSpan>(), Default("\"100ms\""),
        "Interval of the leader's heartbeats: about the round trip between the masters.", "\"100ms\""),
    key("etcd.election-timeout", one::<TimeSpan>(), Default("\"1s\""),
        "Silence after which a new leader is elected: at least five heartbeats.", "\"1s\""),
    key("etcd.snapshot-count", int(1_000, 1_000_000), Default("10000"),
        "Number of writes after which etcd writes its state to disk and drops its log.", "10000"),
    key("etcd.snapshots", Kind::Section, Optional,
        "Snapshots that this master takes by itself, for `keelson etcd restore`. Without it, it takes none.",
        "interval = \"6h\""),
    key("etcd.snapshots.interval", one::<TimeSpan>(), Required, "Time from one snapshot to the next.", "\"6h\""),
    key("etcd.snapshots.keep", int(1, 1_000), Default("5"), "Number of snapshots that are kept.", "5"),
    key("etcd.snapshots.folder", one::<KeptFolder>(), Default("\"/var/lib/keelson/etcd-snapshots\""),
        "Folder of the snapshots. Each takes as much space as etcd's database, and holds every secret of the cluster.",
        "\"/var/lib/keelson/etcd-snapshots\""),

    key("kubelet", Kind::Section, Optional, "Options of the kubelet.", "max-pods = 110"),
    key("kubelet.max-pods", int(1, 10_000), Default("110"), "Largest number of pods on the node.", "250"),
    key("kubelet.node-addresses", list::<IpWord>(), Default("[]"),
        "Addresses of the Node, at most one per address family. Without any, those of the interface with the default \
         route.", "[\"192.168.1.11\"]"),
    key("kubelet.reserved", Kind::Section, Optional, "What the system keeps for itself, away from pods.",
        "memory = \"256Mi\""),
    key("kubelet.reserved.cpu", one::<Cpu>(), Default("\"100m\""), "CPU time.", "\"250m\""),
    key("kubelet.reserved.memory", one::<ByteSize>(), Default("\"128Mi\""), "Memory.", "\"256Mi\""),
    key("kubelet.reserved.ephemeral-storage", one::<ByteSize>(), Default("\"0\""), "Space on the DATA partition.",
        "\"1Gi\""),
    key("kubelet.reserved.pids", int(0, 4_194_304), Default("0"), "Process numbers.", "1000"),
    key("kubelet.eviction", Kind::Section, Optional, "Thresholds below which pods are evicted.",
        "memory-available = \"100Mi\""),
    key("kubelet.eviction.memory-available", one::<Threshold>(), Default("\"100Mi\""), "Memory left.", "\"5%\""),
    key("kubelet.eviction.nodefs-available", one::<Threshold>(), Default("\"10%\""),
        "Space left on the file system of pods and logs.", "\"10%\""),
    key("kubelet.eviction.nodefs-inodes-free", one::<Threshold>(), Default("\"5%\""),
        "Inodes left on the file system of pods and logs.", "\"5%\""),
    key("kubelet.eviction.imagefs-available", one::<Threshold>(), Default("\"15%\""),
        "Space left on the file system of images.", "\"15%\""),
    key("kubelet.eviction.imagefs-inodes-free", one::<Threshold>(), Default("\"5%\""),
        "Inodes left on the file system of images.", "\"5%\""),
    key("kubelet.eviction.pid-available", one::<Threshold>(), Default("\"5%\""), "Process numbers left.", "\"5%\""),
    key("kubelet.log-max-size", one::<ByteSize>(), Default("\"10Mi\""),
        "Size at which a container's log is rotated.", "\"50Mi\""),
    key("kubelet.log-max-files", int(2, 100), Default("5"), "Number of log files kept per container.", "3"),
    key("kubelet.image-gc-high-percent", int(0, 100), Default("85"),
        "Use of the image file system at which unused images are removed.", "85"),
    key("kubelet.image-gc-low-percent", int(0, 100), Default("80"), "Use down to which they are removed.", "80"),
    key("kubelet.shutdown-grace", one::<TimeSpan>(), Default("\"30s\""),
        "Time for pods to end when the machine stops.", "\"60s\""),
    key("kubelet.shutdown-grace-critical", one::<TimeSpan>(), Default("\"10s\""),
        "The part of it that is kept for critical pods.", "\"10s\""),
    key("kubelet.features", map::<FeatureName>(), Optional, "Feature gates of the kubelet and the proxy.",
        "InPlacePodVerticalScaling = true"),
    key("kubelet.features.*", BOOL, Optional, "Whether the feature is on.", "true"),

    key("pod-network", Kind::Section, Optional, "Network between pods. The same on all machines.", "mode = \"auto\""),
    key("pod-network.mode", one::<PodNetworkMode>(), Default("\"auto\""),
        "`direct` routes between nodes on one segment, `vxlan` tunnels between all nodes, `auto` does what each pair of \
         nodes needs.", "\"vxlan\""),
    key("pod-network.mtu", int(1280, 65535), Optional,
        "Largest packet between pods, in bytes. Without it, derived from the interface.", "1400"),

    key("registries", Kind::Section, Optional, "Where images come from.", ""),
    key("registries.mirrors", map::<RegistryHost>(), Optional,
        "Mirrors by registry; `_default` for every registry without an own entry.", ""),
    key("registries.mirrors.*", Kind::Section, Optional, "Mirrors of one registry.",
        "endpoints = [\"http://192.168.1.2:5000\"]"),
    key("registries.mirrors.*.endpoints", list::<MirrorUrl>(), Required, "Mirrors, tried in this order.",
        "[\"http://192.168.1.2:5000\"]"),
    key("registries.mirrors.*.fallback", BOOL, Default("true"),
        "Whether the registry itself is asked after the mirrors.", "false"),
    key("registries.mirrors.*.ca", one::<PemCertificates>(), Optional,
        "CA certificates of the mirrors in PEM. Without it, those of the image.",
        "\"\"\"\n-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n\"\"\""),
    key("registries.mirrors.*.skip-verify", BOOL, Default("false"),
        "Whether the mirrors' certificates are not verified.", "true"),

    key("sysctls", map::<SysctlName>(), Optional, "Kernel parameters.", "\"vm.max_map_count\" = 262144"),
    key("sysctls.*", TEXT, Optional, "Value of one kernel parameter.", "262144"),

    key("modules", Kind::Section, Optional, "Kernel modules.", "load = [\"wireguard\"]"),
    key("modules.load", list::<ModuleName>(), Default("[]"),
        "Modules to load, beside those that the machine needs anyway.", "[\"wireguard\"]"),
    key("modules.parameters", map::<ModuleName>(), Optional, "Parameters of modules.", "loop = \"max_loop=8\""),
    key("modules.parameters.*", one::<ModuleParameters>(), Optional, "Parameters of one module.", "\"max_loop=8\""),

    key("time", Kind::Section, Optional, "The clock.", "boot-timeout = \"30s\""),
    key("time.sync", BOOL, Default("true"), "Whether the clock follows the time servers.", "false"),
    key("time.boot-timeout", one::<TimeSpan>(), Default("\"30s\""),
        "How long the start waits for a time server before it goes on with the clock as it is.", "\"10s\""),
];
