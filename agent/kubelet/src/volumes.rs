//! A pod's volumes: what they are, what is in them, and putting that on disk.
//!
//! [`plan_volumes`] and [`payload`](payload::payload) are pure; [`apply`] touches the disk. A volume made of files is
//! written beside the old one and swapped in by renaming one link, so that a container sees all of it or nothing.

use std::path::{Path, PathBuf};

use api::core::v1::Volume;

use crate::pod::PodView;
use crate::resources::whole;

pub(crate) mod apply;
pub(crate) mod payload;
pub(crate) mod subpath;
pub(crate) mod writer;

/// What has to be found at a hostPath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostPathCheck {
    None,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// How a volume comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeKind {
    /// A folder of the pod's own, on disk or in memory.
    EmptyDir { in_memory: bool, limit_bytes: Option<i64> },
    /// A path of the node.
    HostPath { path: PathBuf, check: HostPathCheck },
    /// Files with content from the API; `in_memory` for secrets.
    Files { in_memory: bool },
    /// The content of an image, mounted by the runtime.
    Image { reference: String, pull_policy: String },
    /// Nothing this node can make.
    Unsupported { what: &'static str },
}

/// One volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumePlan {
    pub(crate) name: String,
    /// Where it lies on the node; empty for images.
    pub(crate) path: PathBuf,
    pub(crate) kind: VolumeKind,
}

/// Folder of everything that the node keeps for a pod.
pub(crate) fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// The pod's volumes, in the spec's order.
pub(crate) fn plan_volumes(view: &PodView, root: &Path) -> Vec<VolumePlan> {
    let base = pod_dir(root, view.uid()).join("volumes");
    view.spec().volumes.iter().map(|volume| plan_volume(volume, &base)).collect()
}

fn plan_volume(volume: &Volume, base: &Path) -> VolumePlan {
    let source = &volume.volume_source;
    let own = |plugin: &str| base.join(format!("kubernetes.io~{plugin}")).join(&volume.name);
    let (path, kind) = if let Some(host) = &source.host_path {
        let path = PathBuf::from(&host.path);
        (path.clone(), VolumeKind::HostPath { path, check: host_path_check(host.r#type.as_deref()) })
    } else if let Some(empty) = &source.empty_dir {
        let limit_bytes = empty.size_limit.as_ref().map(whole).filter(|limit| *limit > 0);
        (own("empty-dir"), VolumeKind::EmptyDir { in_memory: empty.medium == "Memory", limit_bytes })
    } else if source.config_map.is_some() {
        (own("configmap"), VolumeKind::Files { in_memory: false })
    } else if source.secret.is_some() {
        (own("secret"), VolumeKind::Files { in_memory: true })
    } else if source.downward_api.is_some() {
        (own("downward-api"), VolumeKind::Files { in_memory: true })
    } else if source.projected.is_some() {
        (own("projected"), VolumeKind::Files { in_memory: true })
    } else if let Some(image) = &source.image {
        let (reference, pull_policy) = (image.reference.clone(), image.pull_policy.clone());
        (PathBuf::new(), VolumeKind::Image { reference, pull_policy })
    } else {
        (PathBuf::new(), VolumeKind::Unsupported { what: unsupported_name(volume) })
    };
    VolumePlan { name: volume.name.clone(), path, kind }
}

fn host_path_check(kind: Option<&str>) -> HostPathCheck {
    match kind {
        Some("DirectoryOrCreate") => HostPathCheck::DirectoryOrCreate,
        Some("Directory") => HostPathCheck::Directory,
        Some("FileOrCreate") => HostPathCheck::FileOrCreate,
        Some("File") => HostPathCheck::File,
        Some("Socket") => HostPathCheck::Socket,
        Some("CharDevice") => HostPathCheck::CharDevice,
        Some("BlockDevice") => HostPathCheck::BlockDevice,
        _ => HostPathCheck::None,
    }
}

fn unsupported_name(volume: &Volume) -> &'static str {
    let source = &volume.volume_source;
    match () {
        () if source.persistent_volume_claim.is_some() => "persistentVolumeClaim",
        () if source.ephemeral.is_some() => "ephemeral",
        () if source.csi.is_some() => "csi",
        () if source.nfs.is_some() => "nfs",
        () if source.iscsi.is_some() => "iscsi",
        () => "of this type",
    }
}

/// Config maps and secrets that the pod's volumes are made of.
pub(crate) fn references(view: &PodView) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for volume in &view.spec().volumes {
        let source = &volume.volume_source;
        maps.extend(source.config_map.iter().map(|c| c.local_object_reference.name.clone()));
        secrets.extend(source.secret.iter().map(|s| s.secret_name.clone()));
        for part in source.projected.iter().flat_map(|p| &p.sources) {
            maps.extend(part.config_map.iter().map(|c| c.local_object_reference.name.clone()));
            secrets.extend(part.secret.iter().map(|s| s.local_object_reference.name.clone()));
        }
    }
    (maps, secrets)
}
