//! Installing to another disk what a machine was started from.
//!
//! A disk counts as installed once it has a boot entry, which is the last thing that is written. Before, the firmware
//! finds nothing to start there and takes the medium again, and the installation begins anew. That a disk cannot be started
//! is not enough for that, as one that was in use may have broken: what an installation made and nobody used yet is marked
//! as fresh.

use disk::layout::{self, DATA_NAME, ESP_NAME, FRESH, STATE_NAME, Sizes};
use disk::{Device, ENTRIES, Entry, Esp, GptError, Slot, Table, Window};
use sys::BlockDevice;

use crate::error::Error;
use crate::own::{OwnDisk, path};

/// The manifest on an EFI system partition.
pub const MANIFEST: &str = "keelson/manifest.toml";
/// What a disk needs to be started from, beside its boot entries.
const LOADER_FILES: [&str; 2] = ["EFI/BOOT/BOOTX64.EFI", "loader/loader.conf"];
const COPY_BYTES: usize = 1 << 20;
/// So much of both ends of a disk has to be empty for it to be taken for blank: file systems, arrays and volumes that are
/// not known here begin or end there.
const END_BYTES: usize = 1 << 20;

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing that could be found.
    Blank,
    /// Ours, and whole.
    Installed,
    /// Ours, and an installation that was cut short.
    Unfinished,
    /// Something else, for people.
    Other(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OntoPlan {
    /// All is there.
    Nothing,
    /// Write everything, beginning with this table.
    Write(Table),
}

/// Looks at a disk.
///
/// # Errors
/// It fails.
pub fn observe<D: Device>(device: &mut D, facts: &BlockDevice) -> Result<Contents, Error> {
    let table = match Table::read(device) {
        Ok(table) => table,
        Err(GptError::None | GptError::TooSmall(_)) if facts.is_blank && has_blank_ends(device)? => {
            return Ok(Contents::Blank);
        }
        Err(error @ GptError::Device { .. }) => return Err(error.into()),
        Err(GptError::None) => {
            let what = facts.filesystem.as_ref().map(|found| format!("a file system ({})", found.kind.name()));
            return Ok(Contents::Other(what.unwrap_or_else(|| "unknown data".to_owned())));
        }
        Err(error) => return Ok(Contents::Other(error.to_string())),
    };
    let names: Vec<&str> = table.partitions.values().map(|partition| partition.name.as_str()).collect();
    let is_ours = |name: &str| name.starts_with("KEELSON-");
    if names.is_empty() || !names.iter().all(|name| is_ours(name)) {
        return Ok(Contents::Other(format!("the partitions {names:?}")));
    }
    let esp = table.named(ESP_NAME).map(|(_, esp)| (esp.start(), esp.bytes()));
    // One that cannot be read was being made, or is broken: the partitions tell which.
    let has_entry = esp.is_some_and(|(start, bytes)| {
        Esp::open(Window::new(device, start, bytes)).entries().is_ok_and(|entries| !entries.is_empty())
    });
    let is_used = [STATE_NAME, DATA_NAME].iter().filter_map(|name| table.named(name));
    let is_used = is_used.map(|(_, partition)| partition).any(|partition| partition.attributes & FRESH == 0);
    Ok(match (has_entry, is_used) {
        (true, _) => Contents::Installed,
        (false, false) => Contents::Unfinished,
        (false, true) => Contents::Other("STATE and DATA of a machine that cannot be started".to_owned()),
    })
}

fn has_blank_ends<D: Device>(device: &mut D) -> Result<bool, Error> {
    let bytes = device.bytes();
    let length = usize::try_from(bytes).map_or(END_BYTES, |bytes| bytes.min(END_BYTES));
    let mut end = vec![0; length];
    for place in [0, bytes - length as u64] {
        device.read_at(place, &mut end).map_err(|source| GptError::Device { step: "read", source })?;
        if end.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Decides. `seed` makes the disk's identifiers; `may_wipe` lets foreign data go.
///
/// # Errors
/// The disk is too small, or holds something that must not be lost.
pub fn plan(
    contents: &Contents,
    facts: &BlockDevice,
    (sizes, seed): (&Sizes, &[u8]),
    may_wipe: bool,
) -> Result<OntoPlan, Error> {
    match contents {
        Contents::Installed => return Ok(OntoPlan::Nothing),
        Contents::Other(what) if !may_wipe => {
            return Err(Error::Occupied { disk: facts.path(), what: what.clone() });
        }
        Contents::Blank | Contents::Unfinished | Contents::Other(_) => {}
    }
    Ok(OntoPlan::Write(layout::installed(seed, facts.bytes / disk::SECTOR_BYTES, sizes)?))
}

/// Does it: from the slot `running` of `source`, with this manifest.
///
/// # Errors
/// A disk fails.
pub fn apply<S: Device, T: Device>(
    (source, running): (&mut OwnDisk<S>, Slot),
    target: &mut T,
    table: &Table,
    manifest: &[u8],
) -> Result<(), Error> {
    table.write(target)?;
    let window = |name: &str| {
        let found = table.named(name).map(|(_, partition)| (partition.start(), partition.bytes()));
        found.ok_or_else(|| Error::Missing(format!("partition {name}")))
    };
    let (start, bytes) = window(ESP_NAME)?;
    let id = table.disk.0;
    let mut esp =
        Esp::format(Window::new(&mut *target, start, bytes), u32::from_le_bytes([id[0], id[1], id[2], id[3]]))?;
    for name in LOADER_FILES {
        let content = source.esp()?.read(name)?.ok_or_else(|| Error::Missing(format!("file {name}")))?;
        esp.put(name, &content)?;
    }
    esp.put(MANIFEST, manifest)?;
    let (slot_start, slot_bytes) = window(Slot::A.partition())?;
    copy_root(source, running, &mut Window::new(&mut *target, slot_start, slot_bytes))?;
    let (own, _) = source.entries(running)?;
    let kernel = source.esp()?.read(&path(&own))?.ok_or_else(|| Error::Missing(format!("boot entry {own}")))?;
    let entry = Entry { generation: 1, slot: Slot::A, tries: None };
    Esp::open(Window::new(&mut *target, start, bytes)).put(&format!("{ENTRIES}/{entry}"), &kernel).map_err(Error::from)
}

fn copy_root<S: Device, T: Device>(source: &mut OwnDisk<S>, running: Slot, target: &mut T) -> Result<(), Error> {
    let failed = |source| Error::Slot { slot: Slot::A, source };
    let mut root = source.slot(running)?;
    // What follows the root in its slot is of no use.
    let bytes = root.bytes().min(target.bytes());
    let mut buffer = vec![0; COPY_BYTES];
    let mut place = 0;
    while place < bytes {
        let count = usize::try_from(bytes - place).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        root.read_at(place, &mut buffer[..count]).map_err(failed)?;
        target.write_at(place, &buffer[..count]).map_err(failed)?;
        place += count as u64;
    }
    target.sync().map_err(failed)
}
