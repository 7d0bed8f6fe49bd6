//! `keelson kubelet`: the kubelet alone, with upstream's flags and configuration file.

mod access;
mod config;
mod fields;
mod flags;
mod labels;
mod serving;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kubelet::{Config, ServerConfig};
use lifecycle::Tasks;

use crate::flags::{Given, Surface, Words};
use crate::settings::Settings;
use crate::{host, process};
use access::Access;
use config::{KubeletConfiguration, parse_taint};

const SURFACE: Surface = Surface {
    role: "kubelet",
    about: "The kubelet alone, with upstream's flags and its KubeletConfiguration file.",
    tables: &[flags::FLAGS],
};
/// What the parts beside the kubelet get to end.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) fn run(words: Words) -> Result<()> {
    let Some(given) = SURFACE.read(words)? else { return Ok(()) };
    let plan = Plan::new(given)?;
    process::run(process::FOR_A_MACHINE, |shutdown| async move {
        plan.given.tell();
        host::set_oom_score(plan.settings.oom_score_adj);
        let tasks = Tasks::new();
        let Some(access) = Access::get(&plan, &tasks, &shutdown).await? else { return Ok(()) };
        let config = plan.with_server(&access)?;
        let ended = kubelet::run(config, access.client, shutdown.clone()).await;
        shutdown.trigger();
        tasks.drain(DRAIN).await;
        ended.context("running the kubelet")
    })
}

/// Everything that flags and file say.
struct Plan {
    given: Given,
    settings: KubeletConfiguration,
    kubelet: Config,
}

impl Plan {
    fn new(mut given: Given) -> Result<Self> {
        let (settings, without_effect) = settings(&given)?.typed::<KubeletConfiguration>(&fields::SCHEMA)?;
        given.add_without_effect(without_effect);
        check_host(&settings)?;
        let kubelet = kubelet(&given, &settings)?;
        // What is wrong with the server's settings should be told before anything is done.
        settings.listen()?;
        Ok(Self { given, settings, kubelet })
    }

    fn with_server(&self, access: &Access) -> Result<Config> {
        let mut config = self.kubelet.clone();
        if let Some(listen) = self.settings.listen()? {
            config.server = Some(ServerConfig {
                listen: listen.server,
                certificate: access.serving.clone(),
                client_ca_pem: self.settings.client_ca()?.map(access::fixed),
                healthz: listen.healthz,
            });
        }
        Ok(config)
    }

    fn cert_dir(&self) -> PathBuf {
        self.given.path("cert-dir").unwrap_or_else(|| PathBuf::from("/var/lib/kubelet/pki"))
    }
}

/// The file, then the files beside it, then the flags: what comes later counts.
fn settings(given: &Given) -> Result<Settings> {
    let mut settings = Settings::default();
    if let Some(path) = given.get("config") {
        settings.merge(Settings::read(&fields::SCHEMA, Path::new(path))?);
    }
    if let Some(folder) = given.get("config-dir") {
        for path in drop_ins(Path::new(folder))? {
            settings.merge(Settings::read(&fields::SCHEMA, &path)?);
        }
    }
    for (path, value) in &given.fields {
        settings.set(path, value.clone());
    }
    Ok(settings)
}

/// Files that end in `.conf`, by name.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.with_context(|| format!("reading {}", folder.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}

fn kubelet(given: &Given, settings: &KubeletConfiguration) -> Result<Config> {
    let mut kubelet = settings.kubelet(&node_name(given)?, node_ips(given)?)?;
    if let Some(root) = given.path("root-dir") {
        kubelet.root_dir = root;
    }
    kubelet.labels = labels::parse(&given.all("node-labels"))?;
    let taints: Result<Vec<_>> = given.all("register-with-taints").into_iter().map(parse_taint).collect();
    kubelet.taints.extend(taints.context("--register-with-taints")?);
    match given.get("cloud-provider") {
        None | Some("") => {}
        // The Node waits for its cloud; upstream's cloud controllers take this taint away.
        Some("external") => {
            kubelet.taints.push(parse_taint("node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule")?)
        }
        Some(other) => bail!("--cloud-provider={other} is not supported: clouds are `external` or none"),
    }
    Ok(kubelet)
}

fn node_name(given: &Given) -> Result<String> {
    let name = match given.get("hostname-override").filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => host::name()?,
    };
    Ok(name.trim().to_lowercase())
}

fn node_ips(given: &Given) -> Result<Vec<IpAddr>> {
    let given: Result<Vec<IpAddr>> = given
        .all("node-ip")
        .into_iter()
        .map(|text| text.trim().parse().with_context(|| format!("--node-ip: {text:?} is no address")))
        .collect();
    let mut ips = given?;
    ensure!(ips.len() <= 2, "--node-ip takes one address of each family");
    match ips.as_slice() {
        [] => ips.push(host::address().context("finding the node's address; --node-ip gives it")?),
        [ip] if ip.is_unspecified() => ips = vec![host::address_of(ip.is_ipv4()).context("--node-ip")?],
        _ if ips.iter().any(IpAddr::is_unspecified) => bail!("--node-ip: of two addresses none can be unspecified"),
        _ => {}
    }
    Ok(ips)
}

/// What upstream wants to know of the machine before it starts.
fn check_host(settings: &KubeletConfiguration) -> Result<()> {
    if settings.fail_swap_on && host::has_swap() {
        bail!("the machine swaps, which pods' memory limits do not cover; switch swap off or set failSwapOn: false");
    }
    if settings.fail_cgroup_v1 && host::has_cgroup_v1() {
        bail!("the machine has cgroups v1; boot it with v2 or set failCgroupV1: false");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
