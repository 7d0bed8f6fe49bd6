//! Container images that are in the machine's image, so that it works without a registry.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd::{Archive, Client};
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::paths;

/// Where the kubelet's images are.
const NAMESPACE: &str = "k8s.io";
/// An import that broke off may be cleaned up after this.
const LEASE: Duration = Duration::from_secs(60 * 60);

/// The machine's own images. They are imported when the first pod needs them: on a master that is long after its boot,
/// which has more urgent work.
#[derive(Debug)]
pub(super) struct Images {
    imported: OnceCell<()>,
}

impl Images {
    pub(super) const fn new() -> Self {
        Self { imported: OnceCell::const_new() }
    }
}

impl kubelet::Prepare for Images {
    fn prepare(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(error) = self.imported.get_or_try_init(|| import(Path::new(paths::IMAGE_CACHE))).await {
                // The next pod tries again; this one may find its images in a registry.
                tracing::warn!(error = format!("{error:#}"), "importing the machine's own images");
            }
        })
    }
}

async fn import(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
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
