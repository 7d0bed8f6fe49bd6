//! What a machine shows of itself: read from the kernel when somebody asks, never kept.

mod certificates;
mod cgroups;
mod disks;
mod firewall;
mod network;
mod pods;
mod processes;

use std::path::Path;

use cri::Runtime;
use machine_api::{Boots, ImageStatus, View};
use serde::Serialize;
use stdx::chain;
use sys::{Linux, System};

use crate::api::Server;

pub(crate) use network::routes;

/// Nobody reads more lines, and a machine that has more must not run out of memory over them.
const ROWS: usize = 10_000;

/// Answers a look as JSON; in words why it cannot be had.
pub(crate) async fn look(server: &Server, view: View) -> Result<Vec<u8>, String> {
    let secrets = server.secrets.clone();
    let pki = server.pki.clone();
    match view {
        View::Services => json(&crate::status::read(&server.run)?),
        View::Boots => boots(server),
        View::Time => json(&server.time()),
        View::Images => json(&images(&server.containerd).await?),
        View::Pods => json(&pods::pods(&server.containerd).await?),
        View::Containers => json(&pods::containers(&server.containerd).await?),
        View::Interfaces => json(&network::interfaces().await?),
        View::Firewall => json(&firewall::rules(server.firewall.as_ref()).await?),
        View::Routes => json(&network::routes().await?),
        View::Processes => blocking(move || Ok(processes::observe(&Linux, &secrets))).await,
        View::ControlGroups => blocking(|| cgroups::observe(&Linux)).await,
        View::Disks => blocking(|| Ok(disks::disks(&Linux))).await,
        View::Mounts => blocking(|| disks::mounts(&Linux)).await,
        View::Connections => blocking(|| network::connections(&Linux)).await,
        View::Certificates => blocking(move || Ok(certificates::observe(&Linux, &pki))).await,
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

async fn blocking<T, F>(work: F) -> Result<Vec<u8>, String>
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T, String> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    json(&done?)
}

fn boots(server: &Server) -> Result<Vec<u8>, String> {
    let text = match Linux.read(&server.boots) {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return json(&Boots::default()),
        Err(error) => return Err(chain(&error).to_string()),
    };
    let mut boots: Boots = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let status = crate::status::read(&server.run)?;
    let running = boots.boots.last_mut().filter(|boot| boot.boot_id == status.boot_id);
    // One that is not ready was written down at its beginning only.
    if let Some(boot) = running.filter(|boot| boot.ready_seconds.is_none()) {
        boot.follow(&status, boot.base_seconds);
    }
    json(&boots)
}

async fn images(socket: &Path) -> Result<Vec<ImageStatus>, String> {
    let failed = |error: cri::Error| format!("the container runtime does not answer: {}", chain(&error));
    let images = cri::Client::new(socket).map_err(failed)?.list_images().await.map_err(failed)?;
    let mut images: Vec<ImageStatus> = images
        .into_iter()
        .take(ROWS)
        .map(|image| ImageStatus {
            id: image.id,
            names: image.repo_tags.into_iter().chain(image.repo_digests).collect(),
            bytes: image.size,
            is_pinned: image.pinned,
        })
        .collect();
    images.sort_by(|a, b| a.names.cmp(&b.names));
    Ok(images)
}

/// A file of the kernel's as text; empty if it is not there.
pub(crate) fn text(system: &dyn System, path: impl AsRef<Path>) -> String {
    let bytes = system.read(path.as_ref()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Numbers of all processes.
fn pids(system: &dyn System) -> Vec<u32> {
    let mut pids: Vec<u32> =
        system.list(Path::new("/proc")).unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}
