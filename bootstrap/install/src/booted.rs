//! Which slot of which disk runs.

use std::path::{Path, PathBuf};

use disk::{Slot, Table};
use sys::System;

use crate::error::Error;
use crate::file::{FileDevice, Purpose};
use crate::own::OwnDisk;

pub(crate) const CLASS: &str = "/sys/class/block";

/// What runs, on a machine that was started from a slot of a disk of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// The disk's name, such as `nvme0n1`.
    pub disk: String,
    /// The slot.
    pub slot: Slot,
    /// Its version, as its kernel was told.
    pub version: String,
    /// Whether nothing can be written to the disk, as to an optical medium.
    pub is_read_only: bool,
}

impl Booted {
    /// Finds out from where the root was mounted. `None` on a machine whose root came in another way.
    #[must_use]
    pub fn observe(system: &dyn System) -> Option<Self> {
        let (disk, partition) = root_device(system)?;
        let mut device = FileDevice::open_read_only(&Path::new("/dev").join(&disk)).ok()?;
        let table = Table::read(&mut device).ok()?;
        let is_it = |slot: &Slot| {
            let found = table.named(slot.partition());
            found.is_some_and(|(number, _)| partition.as_ref().is_none_or(|it| *it == partition_name(&disk, number)))
        };
        // The kernel knows no partitions of an optical medium, which has the first slot only.
        let slot = [Slot::A, Slot::B].into_iter().find(is_it)?;
        let is_protected =
            || system.read(&Path::new(CLASS).join(&disk).join("ro")).is_ok_and(|it| it.starts_with(b"1"));
        let is_read_only = partition.is_none() || is_protected();
        Some(Self { disk, slot, version: version(system), is_read_only })
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

    /// Opens the disk, for reading alone where nothing can be written.
    ///
    /// # Errors
    /// It cannot be opened, or has no valid partition table.
    pub fn open(&self) -> Result<OwnDisk<FileDevice>, Error> {
        self.open_for(if self.is_read_only { Purpose::Look } else { Purpose::Write })
    }

    /// The same for this alone.
    pub(crate) fn open_for(&self, purpose: Purpose) -> Result<OwnDisk<FileDevice>, Error> {
        OwnDisk::open(purpose.open(&self.device())?)
    }
}

/// The names of the disk and, if it has any for the kernel, of the partition that the root is on.
fn root_device(system: &dyn System) -> Option<(String, Option<String>)> {
    let table = system.read(Path::new("/proc/self/mounts")).ok()?;
    let table = String::from_utf8_lossy(&table).into_owned();
    let source = table.lines().rev().find_map(|line| {
        let mut words = line.split(' ');
        let (source, target) = (words.next()?, words.next()?);
        (target == "/").then(|| source.strip_prefix("/dev/")).flatten()
    })?;
    let name = below(system, source);
    let folder = Path::new(CLASS).join(&name);
    if system.read(&folder.join("partition")).is_err() {
        return Some((name, None));
    }
    let place = system.read_link(&folder).ok()?;
    let disk = place.parent()?.file_name()?.to_str()?.to_owned();
    Some((disk, Some(name)))
}

/// What a device is made of in the end: the one that checks the root is made of a partition, or of a part of a medium.
fn below(system: &dyn System, name: &str) -> String {
    const DEPTH: usize = 4;
    let mut name = name.to_owned();
    for _ in 0..DEPTH {
        let made_of = system.list(&Path::new(CLASS).join(&name).join("slaves")).unwrap_or_default();
        let Some(next) = made_of.into_iter().next() else { break };
        name = next;
    }
    name
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
        assert_eq!(root_device(&system), None);
        system.file("/proc/self/mounts", "/dev/nvme0n1p2 / erofs ro 0 0\nproc /proc proc rw 0 0\n");
        system.file("/sys/class/block/nvme0n1p2/partition", "2\n");
        system.link("/sys/class/block/nvme0n1p2", "../../devices/pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p2");
        let expected = Some(("nvme0n1".to_owned(), Some("nvme0n1p2".to_owned())));
        assert_eq!(root_device(&system), expected);
        system.file("/proc/self/mounts", "/dev/dm-0 / erofs ro 0 0\n");
        system.file("/sys/class/block/dm-0/slaves/nvme0n1p2", "");
        assert_eq!(root_device(&system), expected);
        system.file("/proc/cmdline", "quiet keelson.version=0.1.0+ab panic=1\n");
        assert_eq!(version(&system), "0.1.0+ab");
        assert_eq!((partition_name("sda", 3), partition_name("nvme0n1", 3)), ("sda3".into(), "nvme0n1p3".into()));
    }

    #[test]
    fn an_optical_medium_is_a_disk_without_partitions() {
        let system = FakeSystem::new();
        system.file("/proc/self/mounts", "/dev/dm-1 / erofs ro 0 0\n");
        system.file("/sys/class/block/dm-1/slaves/dm-0", "");
        system.file("/sys/class/block/dm-0/slaves/sr0", "");
        assert_eq!(root_device(&system), Some(("sr0".to_owned(), None)));
    }
}
