//! `keelson import-images`: container images that are in the machine's image, so that it works without a registry.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd::{Archive, Client};

use crate::{paths, process};

/// Where the kubelet's images are.
const NAMESPACE: &str = "k8s.io";
/// An import that broke off may be cleaned up after this.
const LEASE: Duration = Duration::from_secs(60 * 60);

pub(crate) fn run() -> Result<()> {
    process::start_logs();
    let folder = Path::new(paths::IMAGE_CACHE);
    if !folder.exists() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(import(folder))
}

async fn import(folder: &Path) -> Result<()> {
    let client = Client::new(Path::new(paths::CONTAINERD_SOCKET), NAMESPACE);
    let lease_end = (jiff::Timestamp::now() + LEASE).to_string();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let importing = || format!("importing {}", path.display());
        let archive = Archive::open(&path).with_context(importing)?;
        let images = client.import(&archive, &lease_end).await.with_context(importing)?;
        tracing::info!(file = %path.display(), new = images.join(" "), "imported");
    }
    Ok(())
}
