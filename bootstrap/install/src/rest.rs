//! The rest of a flashed disk: slot B, STATE and DATA in what is free, on the first boot, or on the next one if that was
//! cut short.
//!
//! A partition is marked as fresh from when it is in the table until it is formatted. Only fresh ones are formatted:
//! once mounted, a file system is never made anew, whatever is wrong with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::layout::{self, DATA_NAME, FRESH, STATE_NAME, Sizes};
use disk::{Device, Table};
use sys::System;

use crate::booted::Booted;
use crate::error::Error;
use crate::own::OwnDisk;

/// Formatting writes little, whatever the size.
const FORMAT_DEADLINE: Duration = Duration::from_secs(120);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestPlan {
    /// The table to write; `None` if nothing is missing.
    pub table: Option<Table>,
    /// Partitions to format, with their labels.
    pub format: Vec<(u32, &'static str)>,
    /// The partitions of STATE and DATA.
    pub volumes: (u32, u32),
}

/// Where STATE and DATA are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volumes {
    /// STATE's device.
    pub state: PathBuf,
    /// DATA's device.
    pub data: PathBuf,
}

/// Decides from the table that is there. `seed` makes the disk's identifiers, the first time.
///
/// # Errors
/// There is no room.
pub fn plan(found: &Table, sizes: &Sizes, seed: &[u8]) -> Result<RestPlan, Error> {
    let table = layout::plan(found, sizes, seed)?;
    let number = |name: &str| table.named(name).ok_or_else(|| Error::Missing(format!("partition {name}")));
    let ((state, state_part), (data, data_part)) = (number(STATE_NAME)?, number(DATA_NAME)?);
    let format = [(state, state_part, STATE_NAME), (data, data_part, DATA_NAME)];
    let format = format.iter().filter(|(_, part, _)| part.attributes & FRESH != 0);
    let format = format.map(|(number, _, label)| (*number, *label)).collect();
    let table = (table != *found).then_some(table);
    Ok(RestPlan { table, format, volumes: (state, data) })
}

/// Does it. Every step may be the last one before a power cut; the next start goes on.
///
/// # Errors
/// The disk fails, or the kernel refuses.
pub fn apply<D: Device>(
    system: &dyn System,
    booted: &Booted,
    disk: &mut OwnDisk<D>,
    plan: &RestPlan,
) -> Result<Volumes, Error> {
    if let Some(table) = &plan.table {
        disk.write_table(table.clone())?;
    }
    for (number, partition) in &disk.table().partitions {
        let name = booted.partition(*number);
        let known = Path::new("/sys/class/block").join(name.file_name().unwrap_or_default());
        if !system.exists(&known) {
            system.add_partition(&booted.device(), *number, (partition.start(), partition.bytes()))?;
        }
    }
    for (number, label) in &plan.format {
        format(system, &booted.partition(*number), label)?;
    }
    if !plan.format.is_empty() {
        let mut table = disk.table().clone();
        for (number, _) in &plan.format {
            table.partitions.entry(*number).and_modify(|partition| partition.attributes &= !FRESH);
        }
        // What mkfs wrote must be kept before it is said to be there.
        system.sync();
        disk.write_table(table)?;
    }
    let (state, data) = plan.volumes;
    Ok(Volumes { state: booted.partition(state), data: booted.partition(data) })
}

/// Marks partitions as fresh, so that the next start formats them.
///
/// # Errors
/// There is no such partition, or the disk fails.
pub fn forget<D: Device>(disk: &mut OwnDisk<D>, names: &[&str]) -> Result<(), Error> {
    let mut table = disk.table().clone();
    for name in names {
        let found = table.partitions.values_mut().find(|partition| partition.name == *name);
        found.ok_or_else(|| Error::Missing(format!("partition {name}")))?.attributes |= FRESH;
    }
    disk.write_table(table)
}

fn format(system: &dyn System, device: &Path, label: &str) -> Result<(), Error> {
    let device = device.to_string_lossy();
    // Tables are initialised in the background by the kernel, so that the first boot need not wait for them.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let argv = ["/usr/sbin/mkfs.ext4", "-q", "-F", "-L", label, "-E", options, &device];
    let (ended, output) = system.run(&argv, FORMAT_DEADLINE)?;
    if ended.is_success() {
        return Ok(());
    }
    Err(Error::Format { device: device.into_owned(), output: output.trim().replace('\n', "; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::{Memory, Slot};
    use sys::{Call, FakeSystem};

    const SIZES: Sizes = Sizes { esp: layout::ESP_BYTES, slot: 1 << 20, state: 1 << 20, data: Some(1 << 20) };

    fn booted() -> Booted {
        Booted { disk: "nvme0n1".to_owned(), slot: Slot::A, version: "1".to_owned(), is_read_only: false }
    }

    /// A flashed disk with room for the rest, without what is in its partitions.
    fn flashed() -> Memory {
        let mut table = layout::image(b"seed", 1 << 20);
        table.sectors += 16384;
        let mut device = Memory::new(usize::try_from(table.sectors * 512).unwrap());
        table.write(&mut device).unwrap();
        device
    }

    fn first_boot(device: &mut Memory) -> Result<Vec<Call>, Error> {
        let system = FakeSystem::new();
        for number in [1, 2] {
            system.file(format!("/sys/class/block/nvme0n1p{number}/partition"), "x");
        }
        let mut disk = OwnDisk::open(device)?;
        let plan = plan(disk.table(), &SIZES, b"own")?;
        let volumes = apply(&system, &booted(), &mut disk, &plan)?;
        assert_eq!(volumes.state, Path::new("/dev/nvme0n1p4"));
        Ok(system.calls())
    }

    fn formatted(calls: &[Call]) -> usize {
        calls.iter().filter(|call| matches!(call, Call::Run(argv) if argv[0].contains("mkfs"))).count()
    }

    #[test]
    fn a_first_boot_adds_and_formats_and_the_second_does_not() {
        let mut device = flashed();
        let calls = first_boot(&mut device).unwrap();
        let added = calls.iter().filter(|call| matches!(call, Call::AddPartition(..))).count();
        assert_eq!((added, formatted(&calls)), (3, 2));
        assert_eq!(formatted(&first_boot(&mut device).unwrap()), 0);
    }

    #[test]
    fn what_is_forgotten_is_formatted_once_by_the_next_start() {
        let mut device = flashed();
        first_boot(&mut device).unwrap();
        forget(&mut OwnDisk::open(&mut device).unwrap(), &[STATE_NAME]).unwrap();
        let calls = first_boot(&mut device).unwrap();
        assert_eq!(formatted(&calls), 1);
        assert!(calls.iter().any(|call| matches!(call, Call::Run(argv) if argv.contains(&STATE_NAME.to_owned()))));
        assert_eq!(formatted(&first_boot(&mut device).unwrap()), 0);
        assert!(forget(&mut OwnDisk::open(&mut device).unwrap(), &["NOTHING"]).is_err());
    }

    #[test]
    fn a_first_boot_cut_anywhere_is_finished_by_the_next() {
        let mut whole = flashed();
        let before = whole.writes();
        first_boot(&mut whole).unwrap();
        let writes = whole.writes() - before;
        let wanted = Table::read(&mut whole).unwrap();
        drop(whole);
        let start = flashed();
        for kept in 0..writes {
            let mut device = start.clone();
            device.cut_after(kept);
            first_boot(&mut device).unwrap_err();
            device.restore_power();
            // A file system may be whole by now, and is made again only while its partition is marked as fresh.
            first_boot(&mut device).unwrap();
            assert_eq!(Table::read(&mut device).unwrap(), wanted, "after {kept} writes");
            assert_eq!(formatted(&first_boot(&mut device).unwrap()), 0);
        }
    }
}
