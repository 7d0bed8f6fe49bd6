//! `keelson import-images`: container images that are in the machine's image, so that it works without a registry.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, process};

/// The runtime's own tool, in the runtime's namespace for Kubernetes.
const IMPORT: [&str; 6] = ["/usr/bin/ctr", "--address", paths::CONTAINERD_SOCKET, "--namespace", "k8s.io", "images"];

pub(crate) fn run() -> Result<()> {
    process::start_logs();
    let folder = Path::new(paths::IMAGE_CACHE);
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let output = Command::new(IMPORT[0]).args(&IMPORT[1..]).arg("import").arg(&path).output();
        let output = output.context("starting ctr")?;
        if !output.status.success() {
            bail!("importing {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        tracing::info!(file = %path.display(), "imported");
    }
    Ok(())
}
