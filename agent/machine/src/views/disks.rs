//! Disks, and what is mounted.

use std::path::Path;

use machine_api::{Disk, MountStatus};
use stdx::chain;
use sys::{BlockDevice, System};

use super::{ROWS, text};

/// File systems that answer at once how full they are; one of a server that is gone never does.
const LOCAL: [&str; 8] = ["btrfs", "erofs", "ext4", "iso9660", "overlay", "tmpfs", "vfat", "xfs"];

pub(super) fn disks(system: &dyn System) -> Vec<Disk> {
    let own = install::Booted::observe(system).map(|booted| booted.disk);
    sys::block_devices(system).into_iter().map(|device| disk(&device, own.as_deref())).collect()
}

fn disk(device: &BlockDevice, own: Option<&str>) -> Disk {
    Disk {
        name: device.name.clone(),
        kind: if device.is_partition { "part" } else { "disk" }.to_owned(),
        bytes: device.bytes,
        model: device.model.clone(),
        serial: device.serial.clone(),
        label: device.partition_label.clone(),
        filesystem: device.filesystem.as_ref().map(|found| found.kind.name().to_owned()).unwrap_or_default(),
        is_read_only: device.is_read_only,
        is_own: own.is_some_and(|own| device.name.starts_with(own)),
    }
}

pub(super) fn mounts(system: &dyn System) -> Result<Vec<MountStatus>, String> {
    let table = text(system, "/proc/self/mounts");
    let mut mounts: Vec<MountStatus> = table.lines().filter_map(parse_mount).take(ROWS).collect();
    for mount in mounts.iter_mut().filter(|mount| LOCAL.contains(&mount.filesystem.as_str())) {
        // What cannot be asked is shown without.
        let space = sys::space(Path::new(&mount.target)).map_err(|error| chain(&error).to_string()).ok();
        if let Some(space) = space {
            mount.bytes = Some(space.bytes);
            mount.free_bytes = Some(space.free_bytes);
            mount.free_inodes = Some(space.free_inodes);
        }
    }
    Ok(mounts)
}

fn parse_mount(line: &str) -> Option<MountStatus> {
    let mut words = line.split(' ').map(plain);
    Some(MountStatus {
        source: words.next()?,
        target: words.next()?,
        filesystem: words.next()?,
        options: words.next()?,
        ..MountStatus::default()
    })
}

/// What it says, of bytes that are no UTF-8 as near as can be.
fn plain(word: &str) -> String {
    sys::mounted_path(word.as_bytes()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read() {
        let mount = parse_mount("/dev/vda4 /var/my\\040data ext4 rw,relatime 0 0").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/dev/vda4", "/var/my data"));
        assert_eq!((mount.filesystem.as_str(), mount.options.as_str()), ("ext4", "rw,relatime"));
        assert_eq!(parse_mount("none /x"), None);
        assert_eq!(plain("/caf\\303\\251"), "/café");
    }
}
