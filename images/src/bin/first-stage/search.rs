//! Finding the root.
//!
//! Where a boot loader has started the kernel from a slot of a disk, the root must be in that slot of that disk; where
//! from an optical medium, on one of those. Where the kernel was started directly, the root may be on any disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::disk::{Slot, Table};
use anyhow::{Context, Result, bail, ensure};
use install::FileDevice;

use crate::SECTOR_BYTES;
use crate::drivers::Drivers;
use crate::origin::Origin;

/// Disks appear while we run; a machine whose disk has not come by then needs a person.
const ROOT_DEADLINE: Duration = Duration::from_secs(60);
/// Looked for again after this time even if no disk was seen to appear.
const RESCAN: Duration = Duration::from_secs(1);
/// The name of the device that is a slot of an optical medium: the kernel looks for no partitions there.
const MEDIUM: &str = "keelson-medium";
/// What the kernel calls optical drives.
const OPTICAL: &str = "sr";

/// erofs: where its superblock is, what it begins with, and where in it the identifier is.
const SUPERBLOCK: u64 = 1024;
const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const IDENTIFIER: std::ops::Range<usize> = 48..64;

/// The device that holds the root, as soon as it is there.
pub(crate) fn wait_for_root(wanted: &[u8; 16], origin: &Origin, drivers: &mut Drivers) -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        let found = match origin {
            Origin::Unknown => anywhere(wanted)?,
            Origin::Disk { partition, slot, .. } => in_slot(wanted, partition, *slot)?,
            Origin::Optical { slot } => on_optical(wanted, *slot)?,
        };
        if let Some(device) = found {
            return Ok(device);
        }
        if start.elapsed() > ROOT_DEADLINE {
            let disks = disks()?;
            let told = if disks.is_empty() { "none".to_owned() } else { disks.join(", ") };
            bail!("no disk holds it; disks here: {told}");
        }
        drivers.wait(RESCAN);
    }
}

fn anywhere(wanted: &[u8; 16]) -> Result<Option<PathBuf>> {
    let devices = disks()?.into_iter().map(|name| Path::new("/dev").join(name));
    Ok(devices.into_iter().find(|device| identifier(device, 0).is_some_and(|found| found == wanted)))
}

/// The partition of the slot, on the disk that the loader was on.
fn in_slot(wanted: &[u8; 16], loader: &str, slot: Slot) -> Result<Option<PathBuf>> {
    let Some((name, table)) = disk_of(loader)? else { return Ok(None) };
    let Some((number, _)) = table.named(slot.partition()) else {
        bail!("the disk {name} has no partition {}", slot.partition());
    };
    let between = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    let device = PathBuf::from(format!("/dev/{name}{between}{number}"));
    if !device.exists() {
        return Ok(None);
    }
    let is_wanted = identifier(&device, 0).is_some_and(|found| found == wanted);
    ensure!(is_wanted, "{} does not hold the root that this kernel is for", device.display());
    Ok(Some(device))
}

/// The disk with a partition of this identifier.
pub(crate) fn disk_with(partition: &str) -> Result<Option<PathBuf>> {
    Ok(disk_of(partition)?.map(|(name, _)| Path::new("/dev").join(name)))
}

fn disk_of(partition: &str) -> Result<Option<(String, Table)>> {
    let has_it = |table: &Table| table.partitions.values().any(|it| it.id.to_string() == partition);
    Ok(disks()?.into_iter().find_map(|name| table(&name).filter(has_it).map(|table| (name, table))))
}

/// The slot of an optical medium, as a device of its own.
fn on_optical(wanted: &[u8; 16], slot: Slot) -> Result<Option<PathBuf>> {
    for name in disks()?.into_iter().filter(|name| name.starts_with(OPTICAL)) {
        let device = Path::new("/dev").join(&name);
        let Some(table) = table(&name) else { continue };
        let Some((_, partition)) = table.named(slot.partition()) else { continue };
        if identifier(&device, partition.start()).is_none_or(|found| found != wanted) {
            continue;
        }
        let mapping = sys::Mapping {
            name: MEDIUM,
            sectors: partition.bytes() / SECTOR_BYTES,
            kind: "linear",
            parameters: &format!("{} {}", device.display(), partition.start() / SECTOR_BYTES),
        };
        return sys::map_read_only(&mapping).map(Some).with_context(|| format!("reach slot {slot} of {name}"));
    }
    Ok(None)
}

fn table(name: &str) -> Option<Table> {
    let mut device = FileDevice::open_read_only(&Path::new("/dev").join(name)).ok()?;
    Table::read(&mut device).ok()
}

/// The identifier of the file system that begins there.
fn identifier(device: &Path, start: u64) -> Option<Vec<u8>> {
    let mut block = [0; IDENTIFIER.end];
    File::open(device).ok()?.read_exact_at(&mut block, start + SUPERBLOCK).ok()?;
    block.starts_with(&MAGIC).then(|| block[IDENTIFIER].to_vec())
}

/// Disks and partitions that the kernel knows.
fn disks() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/partitions").context("list the disks")?;
    Ok(table.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect())
}
