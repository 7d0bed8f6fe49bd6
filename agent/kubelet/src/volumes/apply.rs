//! Volumes on disk: making, owning, taking away.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use sys::{Mount, MountFlags, System, UnmountFlags};

use super::payload::Payload;
use super::writer::write_payload;
use super::{HostPathCheck, VolumeKind, VolumePlan};

/// Why a volume could not be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("{step} {path}")]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("hostPath type check failed: {0} is not {1}")]
    HostPath(PathBuf, &'static str),
    #[error(transparent)]
    Mount(#[from] sys::Error),
    #[error("{0} volumes are not supported by this node")]
    Unsupported(&'static str),
    #[error("{0} is still mounted")]
    StillMounted(PathBuf),
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Io { step, path: path.to_owned(), source }
}

/// Makes a volume's folder (and mount). Idempotent.
pub(crate) fn apply_volume(system: &dyn System, plan: &VolumePlan, fs_group: Option<u32>) -> Result<(), VolumeError> {
    match &plan.kind {
        VolumeKind::EmptyDir { in_memory, limit_bytes } => {
            let is_new = !plan.path.exists();
            make_dir(&plan.path, 0o777)?;
            if *in_memory {
                mount_tmpfs(system, &plan.path, 0o777, *limit_bytes)?;
            }
            if is_new && let Some(group) = fs_group {
                own_by_group(&plan.path, group, Access::ReadWrite).map_err(io_error("give to fsGroup", &plan.path))?;
            }
            Ok(())
        }
        VolumeKind::Files { in_memory } => {
            make_dir(&plan.path, 0o777)?;
            if *in_memory {
                mount_tmpfs(system, &plan.path, 0o777, None)?;
            }
            Ok(())
        }
        VolumeKind::HostPath { path, check } => apply_host_path(path, *check),
        VolumeKind::Image { .. } => Ok(()),
        VolumeKind::Unsupported { what } => Err(VolumeError::Unsupported(what)),
    }
}

/// Puts content into a volume made of files.
pub(crate) fn apply_payload(
    dir: &Path,
    payload: &Payload,
    stamp: &str,
    fs_group: Option<u32>,
) -> Result<bool, VolumeError> {
    let own = |fresh: &Path| match fs_group {
        Some(group) => own_by_group(fresh, group, Access::ReadOnly),
        None => Ok(()),
    };
    let changed = write_payload(dir, payload, stamp, &own).map_err(io_error("write the files of", dir))?;
    if changed && let Some(group) = fs_group {
        own_one(dir, group, Access::ReadOnly).map_err(io_error("give to fsGroup", dir))?;
    }
    Ok(changed)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(io_error("make folder", parent))?;
    fs::create_dir(path).map_err(io_error("make folder", path))?;
    // Not by mkdir's mode, which the process's mask would cut.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("set the mode of", path))
}

fn mount_tmpfs(system: &dyn System, path: &Path, mode: u32, limit: Option<i64>) -> Result<(), VolumeError> {
    if is_mounted(path) {
        return Ok(());
    }
    let size = limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let mount = Mount {
        source: "tmpfs".to_owned(),
        target: path.to_owned(),
        kind: "tmpfs".to_owned(),
        flags: MountFlags::NONE,
        options: format!("mode={mode:o}{size}"),
    };
    Ok(system.mount(&mount)?)
}

/// Whether something is mounted exactly there.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|m| m.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn apply_host_path(path: &Path, check: HostPathCheck) -> Result<(), VolumeError> {
    let kind = fs::metadata(path).map(|m| m.file_type()).ok();
    let require = |is_met: bool, what| if is_met { Ok(()) } else { Err(VolumeError::HostPath(path.to_owned(), what)) };
    match check {
        HostPathCheck::None => Ok(()),
        HostPathCheck::DirectoryOrCreate if kind.is_none() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io_error("make folder", path))
        }
        HostPathCheck::FileOrCreate if kind.is_none() => {
            let made = fs::OpenOptions::new().create_new(true).write(true).open(path).map(drop);
            made.map_err(io_error("make file", path))
        }
        HostPathCheck::DirectoryOrCreate | HostPathCheck::Directory => {
            require(kind.is_some_and(|k| k.is_dir()), "a directory")
        }
        HostPathCheck::FileOrCreate | HostPathCheck::File => require(kind.is_some_and(|k| k.is_file()), "a file"),
        HostPathCheck::Socket => require(kind.is_some_and(|k| k.is_socket()), "a socket"),
        HostPathCheck::CharDevice => require(kind.is_some_and(|k| k.is_char_device()), "a character device"),
        HostPathCheck::BlockDevice => require(kind.is_some_and(|k| k.is_block_device()), "a block device"),
    }
}

#[derive(Clone, Copy)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// Gives a tree to a group, which then can read it (and write it).
fn own_by_group(path: &Path, group: u32, access: Access) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            own_by_group(&entry?.path(), group, access)?;
        }
    }
    own_one(path, group, access)
}

fn own_one(path: &Path, group: u32, access: Access) -> io::Result<()> {
    const SET_GROUP_ID: u32 = 0o2000;
    lchown(path, None, Some(group))?;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.permissions().mode() & 0o7777;
    mode |= match access {
        Access::ReadOnly => 0o440,
        Access::ReadWrite => 0o660,
    };
    if metadata.is_dir() {
        mode |= SET_GROUP_ID | 0o110;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Takes away everything that the node kept for a pod. Mounts go first, the deepest before the others; if one stays,
/// nothing is deleted, for it may lead to somebody else's files.
pub(crate) fn remove_pod_dir(system: &dyn System, dir: &Path) -> Result<(), VolumeError> {
    if !dir.exists() {
        return Ok(());
    }
    for target in mounts_below(dir).iter().rev() {
        system.unmount(target, UnmountFlags::Plain).or_else(|_busy| system.unmount(target, UnmountFlags::Lazy))?;
    }
    if let Some(left) = mounts_below(dir).pop() {
        return Err(VolumeError::StillMounted(left));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error("remove", dir)),
    }
}

/// Mount points at or below `dir`, parents first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let words = table.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    let targets = words.map(sys::mounted_path);
    let mut below: Vec<PathBuf> = targets.filter(|target| target.starts_with(dir)).collect();
    below.sort_by_key(|path| path.components().count());
    below
}
