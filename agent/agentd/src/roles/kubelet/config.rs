//! From upstream's configuration to ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::core::v1::Taint;
use api::quantity::Amount;
use kubelet::{CgroupDriver, Config, ImageCollection, Pressure};
use serde::Deserialize;

/// Part of a lease's life after which it is renewed, as upstream.
const RENEW_PART: u32 = 4;

/// The fields that are read, with upstream's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct KubeletConfiguration {
    enable_server: bool,
    static_pod_path: String,
    pod_logs_dir: PathBuf,
    address: IpAddr,
    port: u16,
    pub(super) tls_cert_file: PathBuf,
    pub(super) tls_private_key_file: PathBuf,
    pub(super) rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub(super) server_tls_bootstrap: bool,
    authentication: Authentication,
    healthz_port: u16,
    healthz_bind_address: IpAddr,
    pub(super) oom_score_adj: i32,
    cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<IpAddr>,
    node_status_update_frequency: String,
    node_status_report_frequency: String,
    node_lease_duration_seconds: u32,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: String,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: u8,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: u8,
    cgroup_root: String,
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: bool,
    cgroup_driver: String,
    max_pods: u32,
    resolv_conf: PathBuf,
    eviction_hard: Option<BTreeMap<String, String>>,
    merge_default_eviction_settings: bool,
    pub(super) fail_swap_on: bool,
    #[serde(rename = "failCgroupV1")]
    pub(super) fail_cgroup_v1: bool,
    container_log_max_size: String,
    container_log_max_files: u32,
    system_reserved: BTreeMap<String, String>,
    kube_reserved: BTreeMap<String, String>,
    #[serde(rename = "providerID")]
    provider_id: String,
    crash_loop_back_off: CrashLoopBackOff,
    register_with_taints: Vec<TaintField>,
    register_node: bool,
    container_runtime_endpoint: String,
    image_service_endpoint: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Authentication {
    x509: X509,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CrashLoopBackOff {
    max_container_restart_period: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct TaintField {
    key: String,
    #[serde(default)]
    value: String,
    effect: String,
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            enable_server: true,
            static_pod_path: String::new(),
            pod_logs_dir: "/var/log/pods".into(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 10250,
            tls_cert_file: PathBuf::new(),
            tls_private_key_file: PathBuf::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            authentication: Authentication::default(),
            healthz_port: 10248,
            healthz_bind_address: Ipv4Addr::LOCALHOST.into(),
            oom_score_adj: -999,
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            node_status_update_frequency: "10s".to_owned(),
            node_status_report_frequency: "5m0s".to_owned(),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: "2m0s".to_owned(),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            cgroup_driver: "cgroupfs".to_owned(),
            max_pods: 110,
            resolv_conf: "/etc/resolv.conf".into(),
            eviction_hard: None,
            merge_default_eviction_settings: false,
            fail_swap_on: true,
            fail_cgroup_v1: true,
            container_log_max_size: "10Mi".to_owned(),
            container_log_max_files: 5,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            provider_id: String::new(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            register_with_taints: Vec::new(),
            register_node: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            image_service_endpoint: String::new(),
        }
    }
}

/// Where the server listens, if one is wished.
pub(super) struct Listen {
    pub(super) server: SocketAddr,
    pub(super) healthz: Option<SocketAddr>,
}

impl KubeletConfiguration {
    /// Everything but the server.
    pub(super) fn kubelet(&self, node_name: &str, node_ips: Vec<IpAddr>) -> Result<Config> {
        let mut config = Config::new(node_name, node_ips, self.socket()?);
        config.pod_logs_dir.clone_from(&self.pod_logs_dir);
        config.cluster_dns = self.cluster_dns.iter().map(ToString::to_string).collect();
        config.cluster_domain.clone_from(&self.cluster_domain);
        config.resolv_conf.clone_from(&self.resolv_conf);
        config.static_pod_dir = Some(&self.static_pod_path).filter(|path| !path.is_empty()).map(PathBuf::from);
        config.max_pods = self.max_pods;
        config.taints = self.register_with_taints.iter().map(TaintField::taint).collect::<Result<_>>()?;
        config.provider_id.clone_from(&self.provider_id);
        config.register_node = self.register_node;
        config.cgroup_driver = self.cgroup_driver()?;
        if !self.cgroup_root.is_empty() {
            config.cgroup_root.clone_from(&self.cgroup_root);
        }
        config.cgroups_per_qos = self.cgroups_per_qos;
        config.reserved.amounts = sum(&self.system_reserved, &self.kube_reserved)?;
        config.pressure = self.pressure()?;
        config.image_collection = self.image_collection()?;
        config.log_max_bytes = bytes("containerLogMaxSize", &self.container_log_max_size)?;
        config.log_max_files = self.container_log_max_files;
        config.lease_duration = Duration::from_secs(self.node_lease_duration_seconds.into());
        config.lease_renew = config.lease_duration / RENEW_PART;
        config.status_interval = duration("nodeStatusUpdateFrequency", &self.node_status_update_frequency)?;
        config.status_report = duration("nodeStatusReportFrequency", &self.node_status_report_frequency)?;
        if let Some(longest) = &self.crash_loop_back_off.max_container_restart_period {
            config.max_crash_backoff = duration("crashLoopBackOff.maxContainerRestartPeriod", longest)?;
        }
        Ok(config)
    }

    pub(super) fn listen(&self) -> Result<Option<Listen>> {
        if !self.enable_server {
            return Ok(None);
        }
        let healthz = (self.healthz_port != 0).then(|| SocketAddr::new(self.healthz_bind_address, self.healthz_port));
        if let Some(address) = healthz.filter(|address| !address.ip().is_loopback()) {
            bail!("healthzBindAddress: {} is not supported: only the machine itself is answered", address.ip());
        }
        Ok(Some(Listen { server: SocketAddr::new(self.address, self.port), healthz }))
    }

    /// Certificates that sign client certificates.
    pub(super) fn client_ca(&self) -> Result<Option<Vec<u8>>> {
        let path = &self.authentication.x509.client_ca_file;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        std::fs::read(path).map(Some).with_context(|| format!("reading {}", path.display()))
    }

    fn socket(&self) -> Result<PathBuf> {
        let endpoint = &self.container_runtime_endpoint;
        let image = &self.image_service_endpoint;
        ensure!(
            image.is_empty() || image == endpoint,
            "imageServiceEndpoint: {image} is not supported: images come from the runtime at {endpoint}"
        );
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        ensure!(
            path.starts_with('/'),
            "containerRuntimeEndpoint: {endpoint:?} is no socket such as unix:///run/containerd/containerd.sock"
        );
        Ok(path.into())
    }

    fn cgroup_driver(&self) -> Result<CgroupDriver> {
        match self.cgroup_driver.as_str() {
            "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
            "systemd" => Ok(CgroupDriver::Systemd),
            other => bail!("cgroupDriver: {other:?} is neither cgroupfs nor systemd"),
        }
    }

    fn image_collection(&self) -> Result<ImageCollection> {
        let (high_percent, low_percent) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        ensure!(
            low_percent < high_percent && high_percent <= 100,
            "imageGCLowThresholdPercent must be below imageGCHighThresholdPercent, and both within 0 and 100"
        );
        let min_age = duration("imageMinimumGCAge", &self.image_minimum_gc_age)?;
        Ok(ImageCollection { high_percent, low_percent, min_age })
    }

    fn pressure(&self) -> Result<Pressure> {
        let Some(thresholds) = &self.eviction_hard else { return Ok(Pressure::default()) };
        let mut pressure = match self.merge_default_eviction_settings {
            true => Pressure::default(),
            false => Pressure { memory_bytes: 0, stall_percent: 0, disk_bytes: 0, disk_percent: 0 },
        };
        let disk_is_given = thresholds.keys().any(|signal| signal.ends_with("fs.available"));
        if disk_is_given {
            (pressure.disk_bytes, pressure.disk_percent) = (0, 0);
        }
        for (signal, text) in thresholds {
            let field = format!("evictionHard: {signal}");
            match (signal.as_str(), percent(text)) {
                ("memory.available", None) => pressure.memory_bytes = bytes(&field, text)?,
                ("memory.available", Some(_)) => bail!("{field}: write it in bytes, not in percent"),
                // The kubelet's folder, images and containers lie on one disk: the stricter threshold counts.
                ("nodefs.available" | "imagefs.available" | "containerfs.available", Some(percent)) => {
                    pressure.disk_percent = pressure.disk_percent.max(percent);
                }
                ("nodefs.available" | "imagefs.available" | "containerfs.available", None) => {
                    pressure.disk_bytes = pressure.disk_bytes.max(bytes(&field, text)?);
                }
                ("nodefs.inodesFree" | "imagefs.inodesFree" | "containerfs.inodesFree" | "pid.available", _) => {
                    tracing::warn!("{field} changes nothing: only memory and bytes of disk are watched");
                }
                _ => bail!("{field} is no signal"),
            }
        }
        Ok(pressure)
    }
}

impl TaintField {
    fn taint(&self) -> Result<Taint> {
        taint(&self.key, &self.value, &self.effect)
    }
}

fn taint(key: &str, value: &str, effect: &str) -> Result<Taint> {
    ensure!(!key.is_empty(), "a taint has no key");
    ensure!(
        matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"),
        "the taint {key} has the effect {effect:?}; there are NoSchedule, PreferNoSchedule and NoExecute"
    );
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned(), ..Taint::default() })
}

/// Reads `key=value:effect`, `key:effect`.
pub(super) fn parse_taint(text: &str) -> Result<Taint> {
    let (name, effect) =
        text.rsplit_once(':').with_context(|| format!("{text:?} is no taint such as key=value:NoSchedule"))?;
    let (key, value) = name.split_once('=').unwrap_or((name, ""));
    taint(key, value, effect)
}

fn percent(text: &str) -> Option<u8> {
    let number: f64 = text.strip_suffix('%')?.parse().ok()?;
    (0..=100).rev().find(|whole| f64::from(*whole) <= number)
}

fn bytes(field: &str, text: &str) -> Result<u64> {
    let amount = Amount::parse(text).with_context(|| format!("{field}: {text:?}"))?;
    u64::try_from(amount.value()).with_context(|| format!("{field}: {text} is negative"))
}

fn duration(field: &str, text: &str) -> Result<Duration> {
    crate::roles::apiserver::duration(text).map_err(|error| anyhow::anyhow!("{field}: {error}"))
}

fn sum(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut total: BTreeMap<String, Amount> = BTreeMap::new();
    for (name, text) in one.iter().chain(other) {
        ensure!(
            matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid"),
            "systemReserved, kubeReserved: {name} is none of cpu, memory, ephemeral-storage and pid"
        );
        let amount = Amount::parse(text).with_context(|| format!("reserved {name}: {text:?}"))?;
        total.entry(name.clone()).and_modify(|known| *known = known.plus(&amount)).or_insert(amount);
    }
    Ok(total.into_iter().map(|(name, amount)| (name, amount.canonical())).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fields::SCHEMA;
    use super::*;
    use crate::settings::Settings;

    fn kubelet(text: &str) -> Result<Config> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let settings = Settings::parse(&SCHEMA, &format!("{head}{text}"))?;
        let (typed, _) = settings.typed::<KubeletConfiguration>(&SCHEMA)?;
        typed.listen()?;
        typed.kubelet("n1", vec![Ipv4Addr::LOCALHOST.into()])
    }

    #[test]
    fn an_empty_file_gives_upstream_s_defaults() {
        let (found, ours) = (kubelet("").unwrap(), Config::new("n1", Vec::new(), PathBuf::new()));
        assert_eq!(found.pressure, ours.pressure);
        assert_eq!(found.image_collection, ours.image_collection);
        assert_eq!((found.lease_renew, found.lease_duration), (ours.lease_renew, ours.lease_duration));
        assert_eq!((found.log_max_bytes, found.log_max_files), (ours.log_max_bytes, ours.log_max_files));
        assert_eq!(found.cri_socket, PathBuf::from("/run/containerd/containerd.sock"));
    }

    #[test]
    fn fields_become_settings() {
        let found = kubelet(
            "clusterDNS: [10.96.0.10]\nmaxPods: 7\nsystemReserved: {cpu: 100m}\nkubeReserved: {cpu: 150m, memory: 1Gi}\n\
             evictionHard: {memory.available: 200Mi, nodefs.available: 1Gi, imagefs.available: 15%}\n\
             crashLoopBackOff: {maxContainerRestartPeriod: 20s}\nregisterWithTaints: [{key: a, effect: NoExecute}]\n",
        )
        .unwrap();
        assert_eq!(found.cluster_dns, ["10.96.0.10"]);
        assert_eq!(found.reserved.amounts["cpu"], "250m");
        let pressure = Pressure { memory_bytes: 200 << 20, stall_percent: 0, disk_bytes: 1 << 30, disk_percent: 15 };
        assert_eq!(found.pressure, pressure);
        assert_eq!(found.max_crash_backoff, Duration::from_secs(20));
        assert_eq!(found.taints, [parse_taint("a:NoExecute").unwrap()]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for text in [
            "evictionHard: {disk: 1Gi}",
            "cgroupDriver: other",
            "containerRuntimeEndpoint: tcp://1.2.3.4:5",
            "healthzBindAddress: 0.0.0.0",
            "featureGates: {MemoryQoS: true}",
            "cpuManagerPolicy: static",
            "maxPods: many",
            "systemReserved: {gpu: 1}",
        ] {
            assert!(kubelet(text).is_err(), "{text}");
        }
        assert!(parse_taint("a=b:Never").is_err());
    }
}
