//! A disk becomes a volume. Every step may be the last one before a power cut; the next start goes on.

use std::path::{Path, PathBuf};

use disk::layout::{self, FRESH};
use disk::{Device, Table};
use sys::System;

use super::{Planned, Step};
use crate::booted::{CLASS, partition_name};
use crate::error::Error;
use crate::onto::{self, Contents};
use crate::rest::format_with;
use crate::wipe::{self, Wipeable};

/// The file system's label has no room for more.
const LABEL_BYTES: usize = 16;
/// Before it stands this: disks with some labels hold manifests, and pods write to this one.
const LABEL: &str = "vol-";
/// Nothing is kept back for the administrator: there is none but pods.
const OPTIONS: [&str; 2] = ["-m", "0"];

/// What it is done with.
pub struct Hands<'a, D> {
    /// The machine.
    pub system: &'a dyn System,
    /// Opens a disk that nobody else has.
    pub claim: &'a dyn Fn(&Path) -> Result<D, Error>,
    /// What makes identifiers.
    pub seed: &'a [u8],
}

/// Does it. Answers the partition, whose file system is whole then.
///
/// # Errors
/// The disk fails, is in use, or is not what it was.
pub fn apply<D: Device + Wipeable>(hands: &Hands<'_, D>, planned: &Planned) -> Result<PathBuf, Error> {
    let Planned { disk, number, name, step, .. } = planned;
    let partition = Path::new("/dev").join(partition_name(&disk.name, *number));
    match step {
        Step::Stay => {}
        Step::Mount => know(hands, planned)?,
        Step::Finish => {
            know(hands, planned)?;
            finish(hands, planned, &partition)?;
        }
        Step::Make(lost) => {
            let mut device = (hands.claim)(&disk.path())?;
            if lost.is_some() {
                let plan = wipe::plan(&wipe::observe(hands.system), &disk.name)?;
                wipe::apply(&plan, &mut device).map_err(|source| Error::Wiping { disk: disk.path(), source })?;
            } else if onto::observe(&mut device, disk)? != Contents::Blank {
                return Err(Error::Changed { disk: disk.path() });
            }
            layout::volume(hands.seed, device.bytes() / disk::SECTOR_BYTES, name)?.write(&mut device)?;
            // Nobody else may have the disk while the kernel looks for its partitions.
            drop(device);
            hands.system.read_partitions(&disk.path())?;
            finish(hands, planned, &partition)?;
        }
    }
    Ok(partition)
}

/// Lets the kernel know the partition: it does not look at the table's copy if the first is broken, as after a cut.
fn know<D: Device>(hands: &Hands<'_, D>, planned: &Planned) -> Result<(), Error> {
    let name = partition_name(&planned.disk.name, planned.number);
    if hands.system.exists(&Path::new(CLASS).join(name)) {
        return Ok(());
    }
    change(hands, &planned.disk.path(), |_| {})?;
    Ok(hands.system.read_partitions(&planned.disk.path())?)
}

/// Formats the partition, and takes off the mark that says that nobody did.
fn finish<D: Device>(hands: &Hands<'_, D>, planned: &Planned, partition: &Path) -> Result<(), Error> {
    let mut label = format!("{LABEL}{}", planned.name);
    label.truncate(LABEL_BYTES);
    format_with(hands.system, partition, &label, &OPTIONS)?;
    // What mkfs wrote must be kept before it is said to be there.
    hands.system.sync();
    let number = planned.number;
    change(hands, &planned.disk.path(), |table| {
        table.partitions.entry(number).and_modify(|partition| partition.attributes &= !FRESH);
    })
}

fn change<D: Device>(hands: &Hands<'_, D>, disk: &Path, change: impl FnOnce(&mut Table)) -> Result<(), Error> {
    let mut device = (hands.claim)(disk)?;
    let mut table = Table::read(&mut device)?;
    change(&mut table);
    Ok(table.write(&mut device)?)
}
