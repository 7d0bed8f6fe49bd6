//! `subPath`: a part of a volume, bound elsewhere without ever following a link out of the volume.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};
use sys::{Mount, MountFlags, System};

/// Why a sub path cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubPathError {
    #[error("subPath {0:?} must be a relative path without '..'")]
    Leaves(String),
    #[error("{step} {path}")]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Mount(#[from] sys::Error),
}

/// Binds `sub` of `volume` to `target` (a path of the pod's own) and returns `target`. A part that does not exist is
/// made as a folder.
pub(crate) fn bind_sub_path(
    system: &dyn System,
    volume: &Path,
    sub: &str,
    target: &Path,
) -> Result<PathBuf, SubPathError> {
    let relative = Path::new(sub);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(SubPathError::Leaves(sub.to_owned()));
    }
    let failed = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |errno: nix::Error| SubPathError::Io { step, path, source: errno.into() }
    };
    let base = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed("open the volume", volume))?;
    let found = match open_beneath(&base, relative) {
        Err(nix::Error::ENOENT) => {
            make_beneath(&base, relative).map_err(failed("make the subPath", &volume.join(sub)))?;
            open_beneath(&base, relative)
        }
        other => other,
    };
    let found = found.map_err(failed("open the subPath", &volume.join(sub)))?;
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    let is_dir = fs::metadata(&source).is_ok_and(|m| m.is_dir());
    make_target(target, is_dir).map_err(|source| SubPathError::Io {
        step: "make the mount point",
        path: target.to_owned(),
        source,
    })?;
    let mount = Mount {
        source,
        target: target.to_owned(),
        flags: MountFlags::BIND | MountFlags::RECURSIVE,
        ..Mount::default()
    };
    system.mount(&mount)?;
    Ok(target.to_owned())
}

fn open_beneath(base: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(base, path, how)
}

fn make_beneath(base: &OwnedFd, path: &Path) -> nix::Result<()> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        let parent = open_beneath(base, &so_far)?;
        so_far.push(part);
        let made = mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o750));
        match made {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error),
        }
    }
    // The mask of this process must not decide what containers may do.
    let last = open_beneath(base, path)?;
    let through = format!("/proc/self/fd/{}", last.as_raw_fd());
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o750);
    fs::set_permissions(through, mode).map_err(|_refused| nix::Error::EPERM)
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir { fs::create_dir_all(target) } else { File::create(target).map(drop) }
}
