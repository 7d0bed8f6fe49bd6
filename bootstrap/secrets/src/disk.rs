//! The disk that a manifest may come from, and files beside it.

use std::path::Path;

use sys::{BlockDevice, Mount, MountFlags, System, UnmountFlags};

/// Where it is while it is looked into.
pub const DISK: &str = "/run/keelson-config";

/// Looks into the file system of such a disk, at [`DISK`].
///
/// # Errors
/// It has none, or one that cannot be mounted.
pub fn on_disk<T>(system: &dyn System, device: &BlockDevice, look: impl FnOnce() -> T) -> Result<T, String> {
    let Some(filesystem) = &device.filesystem else {
        return Err(format!("the disk {} has no file system that is known", device.name));
    };
    let mount = Mount {
        source: device.path().to_string_lossy().into_owned(),
        target: DISK.into(),
        kind: filesystem.kind.name().to_owned(),
        flags: MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        options: String::new(),
    };
    let mounted = system.make_dir(&mount.target, 0o700).and_then(|()| system.mount(&mount));
    let seen = mounted.map(|()| look()).map_err(|error| stdx::chain(&error).to_string());
    // It only matters to be able to take the disk out; a refusal changes nothing about what was seen.
    system.unmount(Path::new(DISK), UnmountFlags::Lazy).ok();
    seen
}
