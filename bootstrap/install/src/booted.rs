//! Which slot of which disk runs.

use std::path::{Path, PathBuf};

use disk::{Slot, Table};
use sys::System;

use crate::error::Error;
use crate::file::FileDevice;
use crate::own::OwnDisk;

/// What runs, on a machine that was started from a slot of a disk of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The disk's name, such as `nvme0n1`.
    pub disk: String,
    /// The slot.
    pub slot: Slot,
    /// Its version, as its kernel was told.
    pub version: String,
}

impl Booted {
    /// Finds out from where the root was mounted. `None` on a machine whose root came in another way.
    #[must_use]
    pub fn observe(system: &dyn System) -> Option<Self> {
        let (disk, name) = root_partition(system)?;
        let mut device = FileDevice::open_read_only(&Path::new("/dev").join(&disk)).ok()?;
        let table = Table::read(&mut device).ok()?;
        let slots = [Slot::A, Slot::B].into_iter();
        let slot = slots.into_iter().find(|slot| {
            table.named(slot.partition()).is_some_and(|(number, _)| partition_name(&disk, number) == name)
        })?;
        Some(Self { disk, slot, version: version(system) })
    }

    /// The disk's device.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }

    /// The device of one of the disk's partitions.
    #[must_use]
    pub fn partition(&self, number: u32) -> PathBuf {
        Path::new("/dev").join(partition_name(&self.disk, number))
    }

    /// Opens the disk.
    ///
    /// # Errors
    /// It cannot be opened, or has no valid partition table.
    pub fn open(&self) -> Result<OwnDisk<FileDevice>, Error> {
        let path = self.device();
        let device = FileDevice::open(&path).map_err(|source| Error::Open { path, source })?;
        OwnDisk::open(device)
    }
}

/// The names of the disk and of the partition that the root is on.
fn root_partition(system: &dyn System) -> Option<(String, String)> {
    let table = system.read(Path::new("/proc/self/mounts")).ok()?;
    let table = String::from_utf8_lossy(&table).into_owned();
    let source = table.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let (source, target) = (words.next()?, words.next()?);
        (target == "/").then(|| source.strip_prefix("/dev/")).flatten()
    })?;
    let folder = Path::new("/sys/class/block").join(source);
    system.read(&folder.join("partition")).ok()?;
    let place = system.read_link(&folder).ok()?;
    let disk = place.parent()?.file_name()?.to_str()?.to_owned();
    Some((disk, source.to_owned()))
}

/// What the kernel calls a partition.
pub(crate) fn partition_name(disk: &str, number: u32) -> String {
    let between = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{between}{number}")
}

fn version(system: &dyn System) -> String {
    let line = system.read(Path::new("/proc/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let version = line.split_whitespace().find_map(|word| word.strip_prefix("keelson.version="));
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn the_root_s_partition_and_its_disk_are_found() {
        let system = FakeSystem::new();
        assert_eq!(root_partition(&system), None);
        system.file("/proc/self/mounts", "/dev/nvme0n1p2 / erofs ro 0 0\nproc /proc proc rw 0 0\n");
        assert_eq!(root_partition(&system), None);
        system.file("/sys/class/block/nvme0n1p2/partition", "2\n");
        system.link("/sys/class/block/nvme0n1p2", "../../devices/pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p2");
        assert_eq!(root_partition(&system), Some(("nvme0n1".to_owned(), "nvme0n1p2".to_owned())));
        system.file("/proc/cmdline", "quiet keelson.version=0.1.0+ab panic=1\n");
        assert_eq!(version(&system), "0.1.0+ab");
        assert_eq!((partition_name("sda", 3), partition_name("nvme0n1", 3)), ("sda3".into(), "nvme0n1p3".into()));
    }
}
