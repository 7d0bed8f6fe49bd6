//! What lies on disk for a pod: its volumes and logs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::node::facts::{self, Disk};

/// Entries of a folder that are looked at; what has more is reported with what was seen so far.
const MAX_ENTRIES: u64 = 200_000;
const BLOCK: u64 = 512;

/// What a folder uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// One volume of a pod.
#[derive(Clone, Debug)]
pub(super) struct VolumeUse {
    pub(super) name: String,
    pub(super) used: Used,
    pub(super) disk: Disk,
    /// Whether it lies on the node's own disk.
    pub(super) is_local: bool,
}

/// Adds up a folder without leaving its file system. A folder that is gone uses nothing.
pub(super) fn used(folder: &Path) -> Used {
    let mut total = Used::default();
    let Ok(top) = fs::symlink_metadata(folder) else { return total };
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            total.bytes += meta.blocks() * BLOCK;
            total.inodes += 1;
            if total.inodes >= MAX_ENTRIES {
                return total;
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    total
}

/// The pod's volumes that are folders of its own.
pub(super) fn volumes(pod_dir: &Path) -> Vec<VolumeUse> {
    let node = fs::symlink_metadata(pod_dir).map(|meta| meta.dev()).ok();
    let kinds = children(&pod_dir.join("volumes"));
    kinds
        .iter()
        .flat_map(|kind| children(kind))
        .filter_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            let is_local = fs::symlink_metadata(&path).map(|meta| meta.dev()).ok() == node;
            Some(VolumeUse { name, used: used(&path), disk: facts::disk(&path), is_local })
        })
        .collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_added_up() {
        let pod = tempfile::tempdir().unwrap();
        let volume = pod.path().join("volumes/kubernetes.io~empty-dir/cache");
        fs::create_dir_all(volume.join("below")).unwrap();
        fs::write(volume.join("below/file"), vec![1; 8192]).unwrap();
        let found = volumes(pod.path());
        assert_eq!((found.len(), found[0].name.as_str(), found[0].is_local), (1, "cache", true));
        assert!(found[0].used.bytes >= 8192 && found[0].used.inodes == 2, "{:?}", found[0].used);
        assert_eq!(used(Path::new("/nowhere/at/all")), Used::default());
    }
}
