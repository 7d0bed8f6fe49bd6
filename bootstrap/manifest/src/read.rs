//! Fills the model, section by section. A section with an error reads as `None`, the others are still read.

mod network;
mod outbound;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::findings::Findings;
use crate::model::{
    Audit, AuditLog, CaTrust, Cluster, ConfigFile, ControlPlane, Encryption, Etcd, EtcdMember, EtcdSnapshots, Eviction,
    Install, KeyServer, Kubelet, Machine, Mirror, Modules, Network, Outbound, PodNetwork, Registries, Reserved,
    SnapshotStore, Storage, StoreAccess, Time, UserVolume, VirtualAddress,
};
use crate::reader::{Flag, Section, Text, Whole};
use crate::secret::SecretText;
use crate::words::{IpWord, SysctlName, Word};

/// The sections of a manifest, each there if it could be read.
pub(crate) struct Parts {
    pub(crate) machine: Option<Machine>,
    pub(crate) install: Option<Install>,
    pub(crate) storage: Storage,
    pub(crate) network: Option<Network>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) control_plane: Option<ControlPlane>,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) kubelet: Option<Kubelet>,
    pub(crate) pod_network: Option<PodNetwork>,
    pub(crate) registries: Option<Registries>,
    pub(crate) outbound: Option<Outbound>,
    pub(crate) sysctls: BTreeMap<SysctlName, String>,
    pub(crate) modules: Option<Modules>,
    pub(crate) time: Option<Time>,
}

impl Parts {
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let _version: Option<Whole> = root.one("version");
        let sysctls: BTreeMap<SysctlName, Text> = root.map("sysctls");
        Self {
            machine: machine(&root.section("machine")),
            install: install(&root.section("install")),
            storage: storage(&root.section("storage")),
            network: Some(network::network(&root.section("network"))),
            cluster: cluster(&root.section("cluster")),
            control_plane: Some(control_plane(&root.section("control-plane"))),
            etcd: etcd(&root.section("etcd")),
            kubelet: kubelet(&root.section("kubelet")),
            pod_network: pod_network(&root.section("pod-network")),
            registries: Some(registries(&root.section("registries"))),
            outbound: outbound::outbound(&root.section("outbound")),
            sysctls: sysctls.into_iter().map(|(name, value)| (name, value.0)).collect(),
            modules: Some(modules(&root.section("modules"))),
            time: time(&root.section("time")),
        }
    }

    /// The manifest, if every section could be read.
    pub(crate) fn complete(self, findings: &Findings, hidden: Vec<SecretText>) -> Option<crate::Manifest> {
        if findings.has_errors() {
            return None;
        }
        Some(crate::Manifest {
            machine: self.machine?,
            install: self.install?,
            storage: self.storage,
            network: self.network?,
            cluster: self.cluster?,
            control_plane: self.control_plane?,
            etcd: self.etcd?,
            kubelet: self.kubelet?,
            pod_network: self.pod_network?,
            registries: self.registries?,
            outbound: self.outbound?,
            sysctls: self.sysctls,
            modules: self.modules?,
            time: self.time?,
            hidden,
        })
    }
}

fn flag(section: &Section<'_>, name: &str) -> Option<bool> {
    section.one::<Flag>(name).map(|flag| flag.0)
}

fn number(section: &Section<'_>, name: &str) -> Option<u32> {
    section.one::<Whole>(name).and_then(|whole| u32::try_from(whole.0).ok())
}

fn address(section: &Section<'_>, name: &str) -> Option<IpAddr> {
    section.one::<IpWord>(name).map(|word| word.0)
}

fn addresses(section: &Section<'_>, name: &str) -> Vec<IpAddr> {
    section.list::<IpWord>(name).into_iter().map(|word| word.0).collect()
}

fn flags<K: Word + Ord>(section: &Section<'_>, name: &str) -> BTreeMap<K, bool> {
    section.map::<K, Flag>(name).into_iter().map(|(key, flag)| (key, flag.0)).collect()
}

fn machine(section: &Section<'_>) -> Option<Machine> {
    let hostname = section.one("hostname");
    let role = section.one("role");
    let labels = section.map("labels");
    let taints = section.list("taints");
    let watchdog = section.one("watchdog");
    let shutdown_grace = section.one("shutdown-grace");
    let shutdown_grace_critical = section.one("shutdown-grace-critical");
    Some(Machine {
        hostname: hostname?,
        role: role?,
        labels,
        taints,
        watchdog: watchdog?,
        shutdown_grace: shutdown_grace?,
        shutdown_grace_critical: shutdown_grace_critical?,
    })
}

fn install(section: &Section<'_>) -> Option<Install> {
    let disk = section.one("disk");
    let state_size = section.one("state-size");
    let data_size = section.one("data-size");
    let wipe = flag(section, "wipe");
    let encryption = section.sections("encryption").iter().filter_map(encryption).collect();
    Some(Install { disk, wipe: wipe?, state_size: state_size?, data_size, encryption })
}

fn encryption(section: &Section<'_>) -> Option<Encryption> {
    let pcrs: Vec<Whole> = section.list("tpm-pcrs");
    let pcrs = pcrs.into_iter().filter_map(|whole| u32::try_from(whole.0).ok()).collect();
    let (volumes, passphrase) = (section.list("volumes"), section.secret("passphrase"));
    let network = section.sections("network").iter().filter_map(key_server).collect();
    Some(Encryption { volumes, tpm: flag(section, "tpm")?.then_some(pcrs), passphrase, network })
}

fn storage(section: &Section<'_>) -> Storage {
    Storage { volumes: section.sections("volumes").iter().filter_map(user_volume).collect() }
}

fn user_volume(section: &Section<'_>) -> Option<UserVolume> {
    let (name, disk, wipe) = (section.one("name"), section.one("disk"), flag(section, "wipe"));
    Some(UserVolume { name: name?, disk: disk?, wipe: wipe? })
}

fn key_server(section: &Section<'_>) -> Option<KeyServer> {
    let (url, thumbprints) = (section.one("url"), section.list("thumbprints"));
    Some(KeyServer { url: url?, thumbprints })
}

fn cluster(section: &Section<'_>) -> Option<Cluster> {
    let name = section.one("name");
    let endpoint = section.one("endpoint");
    let virtual_address = virtual_address(&section.section("virtual-address"));
    let pod_cidrs = section.list("pod-cidrs");
    let service_cidrs = section.list("service-cidrs");
    let dns_domain = section.one("dns-domain");
    let dns_address = address(section, "dns-address").or_else(|| Cluster::default_dns_address(&service_cidrs));
    let token = section.secret("token");
    let ca = section.one("ca").map(CaTrust::Certificates);
    let accepted = section.one("accepted-ca-hash");
    let hashes =
        section.one("ca-hash").map(|issuing| CaTrust::Hashes(std::iter::once(issuing).chain(accepted).collect()));
    Some(Cluster {
        name: name?,
        endpoint,
        virtual_address,
        pod_cidrs,
        // A range too small for cluster DNS is refused by the rules; until then any address does.
        dns_address: dns_address.or_else(|| service_cidrs.first().map(|range| range.net().addr()))?,
        service_cidrs,
        dns_domain: dns_domain?,
        token,
        trust: ca.or(hashes),
    })
}

fn virtual_address(section: &Section<'_>) -> Option<VirtualAddress> {
    let address = address(section, "address");
    let interface = section.one("interface");
    // What is out of range was found out by then.
    let byte = |name| number(section, name).and_then(|number| u8::try_from(number).ok());
    let (router_id, priority) = (byte("router-id"), byte("priority"));
    let preempt = flag(section, "preempt");
    let address = address?;
    let router_id = router_id.unwrap_or_else(|| VirtualAddress::default_router_id(address));
    Some(VirtualAddress { address, interface, router_id, priority: priority?, preempt: preempt? })
}

fn control_plane(section: &Section<'_>) -> ControlPlane {
    ControlPlane {
        extra_sans: section.list("extra-sans"),
        secret: section.secret("secret"),
        accepted_secret: section.secret("accepted-secret"),
        external: section.list("external"),
        features: flags(section, "features"),
        audit: audit(&section.section("audit")),
        encryption: section.secret("encryption"),
        authentication: section.one("authentication"),
        authorization: section.one("authorization"),
        files: section.sections("files").iter().filter_map(config_file).collect(),
    }
}

fn audit(section: &Section<'_>) -> Option<Audit> {
    let policy = section.one("policy");
    let log = audit_log(section);
    let webhook = section.secret("webhook");
    Some(Audit { policy: policy?, log, webhook })
}

fn audit_log(section: &Section<'_>) -> Option<AuditLog> {
    let path = section.one("log-path");
    let max_size = section.one("log-max-size");
    let max_files = number(section, "log-max-files");
    let max_age = section.one("log-max-age");
    let compress = flag(section, "log-compress");
    Some(AuditLog { path: path?, max_size: max_size?, max_files: max_files?, max_age, compress: compress? })
}

fn config_file(section: &Section<'_>) -> Option<ConfigFile> {
    let name = section.one("name");
    let content = section.secret("content");
    Some(ConfigFile { name: name?, content: content? })
}

fn etcd(section: &Section<'_>) -> Option<Etcd> {
    let members = section.sections("members").iter().filter_map(member).collect();
    let quota = section.one("quota");
    let heartbeat_interval = section.one("heartbeat-interval");
    let election_timeout = section.one("election-timeout");
    let snapshot_count = number(section, "snapshot-count");
    let snapshots = snapshots(&section.section("snapshots"));
    Some(Etcd {
        members,
        quota: quota?,
        heartbeat_interval: heartbeat_interval?,
        election_timeout: election_timeout?,
        snapshot_count: snapshot_count?,
        snapshots,
    })
}

fn snapshots(section: &Section<'_>) -> Option<EtcdSnapshots> {
    let interval = section.one("interval");
    let keep = number(section, "keep");
    let folder = section.one("folder");
    let store = section.section("store");
    let is_given = store.is_given();
    let store = snapshot_store(&store);
    if is_given && store.is_none() {
        return None;
    }
    Some(EtcdSnapshots { interval: interval?, keep: keep?, folder: folder?, store })
}

fn snapshot_store(section: &Section<'_>) -> Option<SnapshotStore> {
    let url = section.one("url");
    let endpoint = section.one("endpoint");
    let region = section.one("region");
    let bucket_in = section.one("bucket-in");
    let key = [section.one("access-key"), section.one("username")];
    let secret = [section.secret("secret-key"), section.secret("password")];
    let token = section.secret("bearer-token").map(StoreAccess::Token);
    let keep = number(section, "keep");
    let ca = section.one("ca");
    // That no more than one of them is given is a rule.
    let user = key.into_iter().flatten().next().zip(secret.into_iter().flatten().next());
    let access = user.map(|(name, secret)| StoreAccess::User(name, secret)).or(token).unwrap_or(StoreAccess::Nobody);
    Some(SnapshotStore { url: url?, endpoint, region: region?, bucket_in: bucket_in?, access, keep: keep?, ca })
}

fn member(section: &Section<'_>) -> Option<EtcdMember> {
    let name = section.one("name");
    let address = address(section, "address");
    Some(EtcdMember { name: name?, address: address? })
}

fn kubelet(section: &Section<'_>) -> Option<Kubelet> {
    let reserved = reserved(&section.section("reserved"));
    let eviction = eviction(&section.section("eviction"));
    let limits = [
        number(section, "max-pods"),
        number(section, "log-max-files"),
        number(section, "image-gc-high-percent"),
        number(section, "image-gc-low-percent"),
    ];
    let node_addresses = addresses(section, "node-addresses");
    let log_max_size = section.one("log-max-size");
    let features = flags(section, "features");
    let [max_pods, log_max_files, image_gc_high_percent, image_gc_low_percent] = limits;
    Some(Kubelet {
        max_pods: max_pods?,
        node_addresses,
        reserved: reserved?,
        eviction: eviction?,
        log_max_size: log_max_size?,
        log_max_files: log_max_files?,
        image_gc_high_percent: image_gc_high_percent?,
        image_gc_low_percent: image_gc_low_percent?,
        features,
    })
}

fn reserved(section: &Section<'_>) -> Option<Reserved> {
    let cpu = section.one("cpu");
    let memory = section.one("memory");
    let ephemeral_storage = section.one("ephemeral-storage");
    let pids = number(section, "pids");
    Some(Reserved { cpu: cpu?, memory: memory?, ephemeral_storage: ephemeral_storage?, pids: pids? })
}

fn eviction(section: &Section<'_>) -> Option<Eviction> {
    let memory_available = section.one("memory-available");
    let nodefs_available = section.one("nodefs-available");
    let nodefs_inodes_free = section.one("nodefs-inodes-free");
    let imagefs_available = section.one("imagefs-available");
    let imagefs_inodes_free = section.one("imagefs-inodes-free");
    let pid_available = section.one("pid-available");
    Some(Eviction {
        memory_available: memory_available?,
        nodefs_available: nodefs_available?,
        nodefs_inodes_free: nodefs_inodes_free?,
        imagefs_available: imagefs_available?,
        imagefs_inodes_free: imagefs_inodes_free?,
        pid_available: pid_available?,
    })
}

fn pod_network(section: &Section<'_>) -> Option<PodNetwork> {
    let mode = section.one("mode");
    let mtu = number(section, "mtu");
    Some(PodNetwork { mode: mode?, mtu })
}

fn registries(section: &Section<'_>) -> Registries {
    let mirrors = section.map_sections("mirrors");
    Registries { mirrors: mirrors.into_iter().filter_map(|(host, inner)| Some((host, mirror(&inner)?))).collect() }
}

fn mirror(section: &Section<'_>) -> Option<Mirror> {
    let endpoints = section.list("endpoints");
    let fallback = flag(section, "fallback");
    let ca = section.one("ca");
    let skip_verify = flag(section, "skip-verify");
    Some(Mirror { endpoints, fallback: fallback?, ca, skip_verify: skip_verify? })
}

fn modules(section: &Section<'_>) -> Modules {
    Modules { load: section.list("load"), parameters: section.map("parameters") }
}

fn time(section: &Section<'_>) -> Option<Time> {
    let sync = flag(section, "sync");
    let boot_timeout = section.one("boot-timeout");
    Some(Time { sync: sync?, boot_timeout: boot_timeout? })
}
