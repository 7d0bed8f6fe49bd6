//! The machine's disks, and what each holds.

use std::path::Path;

use disk::layout::{FRESH, volume_name};
use disk::{Device, Table};
use stdx::chain;
use sys::{BlockDevice, System};

use crate::booted::CLASS;
use crate::error::Error;
use crate::onto::{self, Contents};
use crate::wipe::{self, Found, Use};

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The disk.
    pub device: BlockDevice,
    /// What it holds.
    pub holds: Holds,
    /// Why it is out of the question, if it is: for people.
    pub(super) taken: Option<String>,
    /// What has it, or something on it.
    pub(super) uses: Vec<Use>,
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// The number of its partition.
        number: u32,
        /// Whether it has yet to be formatted.
        is_fresh: bool,
    },
    /// Something else, or nothing.
    Other(Contents),
    /// It cannot be read: for people.
    Unread(String),
}

/// Looks at all disks. `open` opens one for reading.
pub fn observe<D: Device>(system: &dyn System, open: &dyn Fn(&Path) -> Result<D, Error>) -> Vec<Seen> {
    let observed = wipe::observe(system);
    let disks = observed.devices.iter().filter(|found| !found.device.is_partition);
    disks
        .map(|found| {
            let device = &found.device;
            let parts: Vec<&Found> = observed
                .devices
                .iter()
                .filter(|it| it.device.name == device.name || (it.device.is_partition && it.device.disk == device.name))
                .collect();
            let is_own = observed.own.as_ref() == Some(&device.name);
            // What the machine lives on is none of this.
            let holds = if is_own {
                Holds::Other(Contents::Installed)
            } else {
                look(device, open).unwrap_or_else(Holds::Unread)
            };
            let used = parts.iter().find_map(|part| Some((&part.device.name, part.uses.first()?)));
            let used = used.map(|(name, by)| format!("{name} is in use: {by}"));
            let own = is_own.then(|| "the machine was started from it".to_owned());
            let taken = own.or(used).or_else(|| large_sectors(system, device));
            let uses = parts.iter().flat_map(|part| part.uses.clone()).collect();
            Seen { device: device.clone(), holds, taken, uses }
        })
        .collect()
}

fn look<D: Device>(disk: &BlockDevice, open: &dyn Fn(&Path) -> Result<D, Error>) -> Result<Holds, String> {
    let words = |error: Error| chain(&error).to_string();
    let mut device = open(&disk.path()).map_err(words)?;
    let volume = Table::read(&mut device).ok().and_then(|table| {
        table.partitions.iter().find_map(|(number, partition)| {
            let name = volume_name(partition)?.to_owned();
            Some(Holds::Volume { name, number: *number, is_fresh: partition.attributes & FRESH != 0 })
        })
    });
    match volume {
        Some(volume) => Ok(volume),
        None => onto::observe(&mut device, disk).map(Holds::Other).map_err(words),
    }
}

/// The kernel would not find a partition table where it is put.
fn large_sectors(system: &dyn System, device: &BlockDevice) -> Option<String> {
    let size = system.read(&Path::new(CLASS).join(&device.name).join("queue/logical_block_size")).ok()?;
    let size: u64 = String::from_utf8_lossy(&size).trim().parse().ok()?;
    let is_large = size != disk::SECTOR_BYTES;
    is_large.then(|| format!("it has sectors of {size} bytes, and only those of {} are supported", disk::SECTOR_BYTES))
}
