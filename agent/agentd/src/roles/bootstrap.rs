//! `keelson bootstrap`: certificates and the configuration of programs that are not ours, before those start.

mod registries;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use manifest::Manifest;

use super::control_plane::documents;
use crate::{node, paths};

const PUBLIC_MODE: u32 = 0o644;

pub(crate) fn run() -> Result<()> {
    crate::logs::Logs::default().start();
    let manifest = node::manifest_in_force()?;
    write_runtime(&manifest)?;
    if manifest.machine.role.has_control_plane() {
        let addresses = node::addresses(&manifest)?;
        make_certificates(&manifest, &addresses)?;
        documents::write(Path::new(paths::API_SERVER), &manifest)?;
    }
    Ok(())
}

fn make_certificates(manifest: &Manifest, addresses: &[IpAddr]) -> Result<()> {
    let dir = Path::new(paths::PKI);
    fs::create_dir_all(dir.join("etcd")).with_context(|| format!("making {}", dir.display()))?;
    let observed = pki::observe(dir).context("looking at the certificates")?;
    let desired = pki::Desired::master(&pki::MasterNames::new(manifest, addresses));
    let now = SystemTime::now();
    let plan = pki::plan(&observed, &desired, now).context("planning the certificates")?;
    for action in &plan.actions {
        tracing::info!(?action, "certificates");
    }
    pki::apply(dir, &plan, now, &mut pki::os_random).context("writing the certificates")
}

/// The runtime's configuration and its registries.
fn write_runtime(manifest: &Manifest) -> Result<()> {
    let in_container = init::Environment::observe(&sys::Linux) == init::Environment::Container;
    write(paths::CONTAINERD_CONFIG, &containerd(in_container))?;
    registries::write(Path::new(paths::REGISTRY_HOSTS), manifest)?;
    fs::create_dir_all(paths::CNI_CONFIG).context("making the folder of network configurations")
}

fn containerd(in_container: bool) -> String {
    format!(
        "version = 3\n\
         imports = [\"{drop_ins}\"]\n\
         root = \"/var/lib/containerd\"\n\
         state = \"/run/containerd\"\n\
         [grpc]\n\
         address = \"{socket}\"\n\
         [plugins.\"io.containerd.cri.v1.images\"]\n\
         pinned_images.sandbox = \"registry.k8s.io/pause:3.10.2\"\n\
         registry.config_path = \"{hosts}\"\n\
         max_concurrent_downloads = 4\n\
         [plugins.\"io.containerd.cri.v1.runtime\"]\n\
         cni.bin_dirs = [\"{plugins}\"]\n\
         cni.conf_dir = \"{cni}\"\n\
         cni.use_internal_loopback = true\n\
         restrict_oom_score_adj = {in_container}\n\
         device_ownership_from_security_context = true\n",
        drop_ins = paths::CONTAINERD_DROP_INS,
        socket = paths::CONTAINERD_SOCKET,
        hosts = paths::REGISTRY_HOSTS,
        plugins = paths::CNI_PLUGINS,
        cni = paths::CNI_CONFIG,
    )
}

fn write(path: &str, text: &str) -> Result<()> {
    pki::write_file(Path::new(path), text.as_bytes(), PUBLIC_MODE).with_context(|| format!("writing {path}"))
}
