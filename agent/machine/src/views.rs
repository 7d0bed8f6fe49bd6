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
use machine_api::{
    Boots, CertificateList, ConnectionList, ContainerList, ControlGroupList, DiskList, ExtensionList, FirewallRuleList,
    ImageList, ImageStatus, InterfaceList, KeyList, KeyStatus, MachineStatus, MountList, PodList, ProcessList,
    RouteList, TimeStatus, View,
};
use serde::Serialize;
use stdx::chain;
use sys::{Linux, System};

use crate::api::Server;

pub(crate) use network::routes;

/// Nobody reads more lines, and a machine that has more must not run out of memory over them.
const ROWS: usize = 10_000;

/// Something to look at.
pub(crate) trait Look: Sized {
    /// How it is now; in words why that cannot be had.
    fn look(server: &Server) -> impl Future<Output = Result<Self, String>> + Send;
}

impl Look for MachineStatus {
    async fn look(server: &Server) -> Result<Self, String> {
        crate::status::read(&server.run)
    }
}

impl Look for Boots {
    async fn look(server: &Server) -> Result<Self, String> {
        boots(server)
    }
}

impl Look for TimeStatus {
    async fn look(server: &Server) -> Result<Self, String> {
        Ok(server.time())
    }
}

impl Look for ImageList {
    async fn look(server: &Server) -> Result<Self, String> {
        images(&server.containerd).await.map(Self::from)
    }
}

impl Look for PodList {
    async fn look(server: &Server) -> Result<Self, String> {
        pods::pods(&server.containerd).await.map(Self::from)
    }
}

impl Look for ContainerList {
    async fn look(server: &Server) -> Result<Self, String> {
        pods::containers(&server.containerd).await.map(Self::from)
    }
}

impl Look for InterfaceList {
    async fn look(_server: &Server) -> Result<Self, String> {
        network::interfaces().await.map(Self::from)
    }
}

impl Look for FirewallRuleList {
    async fn look(server: &Server) -> Result<Self, String> {
        firewall::rules(server.firewall.as_ref()).await.map(Self::from)
    }
}

impl Look for RouteList {
    async fn look(_server: &Server) -> Result<Self, String> {
        network::routes().await.map(Self::from)
    }
}

impl Look for ProcessList {
    async fn look(server: &Server) -> Result<Self, String> {
        let secrets = server.secrets.clone();
        blocking(move || Ok(processes::observe(&Linux, &secrets))).await
    }
}

impl Look for ControlGroupList {
    async fn look(_server: &Server) -> Result<Self, String> {
        blocking(|| cgroups::observe(&Linux)).await
    }
}

impl Look for DiskList {
    async fn look(_server: &Server) -> Result<Self, String> {
        blocking(|| Ok(disks::disks(&Linux))).await
    }
}

impl Look for MountList {
    async fn look(_server: &Server) -> Result<Self, String> {
        blocking(|| disks::mounts(&Linux)).await
    }
}

impl Look for ConnectionList {
    async fn look(_server: &Server) -> Result<Self, String> {
        blocking(|| network::connections(&Linux)).await
    }
}

impl Look for CertificateList {
    async fn look(server: &Server) -> Result<Self, String> {
        let pki = server.pki.clone();
        blocking(move || Ok(certificates::observe(&Linux, &pki))).await
    }
}

impl Look for ExtensionList {
    async fn look(server: &Server) -> Result<Self, String> {
        crate::api::extension::list(server).map(Self::from)
    }
}

impl Look for KeyList {
    async fn look(server: &Server) -> Result<Self, String> {
        let source = crate::status::read(&server.run)?.manifest_source.unwrap_or_default();
        let set = manifest::origins(&source, &crate::api::manifest_in_force(&server.run)?);
        let row = |origin: manifest::Origin| KeyStatus { key: origin.key, value: origin.value, origin: origin.from };
        Ok(set.into_iter().map(row).collect::<Vec<_>>().into())
    }
}

/// A view as JSON, for a file.
pub(crate) async fn json(server: &Server, view: View) -> Result<Vec<u8>, String> {
    match view {
        View::Services => json_of::<MachineStatus>(server).await,
        View::Boots => json_of::<Boots>(server).await,
        View::Time => json_of::<TimeStatus>(server).await,
        View::Images => json_of::<ImageList>(server).await,
        View::Pods => json_of::<PodList>(server).await,
        View::Containers => json_of::<ContainerList>(server).await,
        View::Interfaces => json_of::<InterfaceList>(server).await,
        View::Firewall => json_of::<FirewallRuleList>(server).await,
        View::Routes => json_of::<RouteList>(server).await,
        View::Processes => json_of::<ProcessList>(server).await,
        View::ControlGroups => json_of::<ControlGroupList>(server).await,
        View::Disks => json_of::<DiskList>(server).await,
        View::Mounts => json_of::<MountList>(server).await,
        View::Connections => json_of::<ConnectionList>(server).await,
        View::Certificates => json_of::<CertificateList>(server).await,
        View::Manifest => json_of::<KeyList>(server).await,
        View::Extensions => json_of::<ExtensionList>(server).await,
    }
}

async fn json_of<L: Look + Serialize>(server: &Server) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&L::look(server).await?).map_err(|error| error.to_string())
}

async fn blocking<T, L, F>(work: F) -> Result<L, String>
where
    T: Send + 'static,
    L: From<Vec<T>>,
    F: FnOnce() -> Result<Vec<T>, String> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map(L::from)
}

fn boots(server: &Server) -> Result<Boots, String> {
    let text = match Linux.read(&server.boots) {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Ok(Boots::default()),
        Err(error) => return Err(chain(&error).to_string()),
    };
    let mut boots: Boots = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let status = crate::status::read(&server.run)?;
    let running = boots.boots.last_mut().filter(|boot| boot.boot_id == status.boot_id);
    // One that is not ready was written down at its beginning only.
    if let Some(boot) = running.filter(|boot| boot.ready_seconds.is_none()) {
        boot.follow(&status, boot.base_seconds);
    }
    Ok(boots)
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
