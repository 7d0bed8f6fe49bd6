//! The rest of a flashed disk: slot B, STATE and DATA in what is free, on the first boot, or on the next one if that was
//! cut short.
//!
//! A partition is marked as fresh from when it is in the table until it is formatted. Only fresh ones are formatted:
//! once mounted, a file system is never made anew, whatever is wrong with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::layout::{self, DATA_NAME, FRESH, STATE_NAME, Sizes};
use disk::{Device, Table};
use luks::{Given, Key, Opened, Sealer, Wanted};
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

/// What encrypted partitions are made with and opened by.
pub struct Keys<'a> {
    /// What a partition of this name is to be made with; `None` if it is not to be encrypted. Of DATA also STATE is told,
    /// which may hold what decides.
    pub wanted: &'a dyn Fn(&str, Option<&Volume>) -> Option<Wanted>,
    /// What people and servers gave.
    pub given: Given<'a>,
    /// The TPM.
    pub sealer: &'a dyn Sealer,
    /// A folder in memory.
    pub scratch: &'a Path,
}

/// STATE or DATA, ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The partition.
    pub partition: PathBuf,
    /// How it was opened, if it is encrypted.
    pub opened: Option<Opened>,
}

impl Volume {
    /// What is mounted.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.opened.as_ref().map_or(&self.partition, |opened| &opened.device)
    }
}

/// Where STATE and DATA are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volumes {
    /// STATE.
    pub state: Volume,
    /// DATA.
    pub data: Volume,
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
    (plan, keys): (&RestPlan, &Keys<'_>),
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
    let (state, data) = plan.volumes;
    if plan.format.iter().any(|(number, _)| *number == state) {
        // Not one of them and then, once its keys have come, the other: what is open cannot be made again.
        for wanted in plan.format.iter().filter_map(|(_, label)| Some((*label, (keys.wanted)(label, None)?))) {
            wanted.1.check().map_err(|source| Error::Luks { label: wanted.0, source })?;
        }
    }
    let ready = |number: u32, label: &'static str, state: Option<&Volume>| {
        let is_fresh = plan.format.iter().any(|(fresh, _)| *fresh == number);
        let partition = booted.partition(number);
        if is_fresh { make(system, partition, (label, state), keys) } else { open(system, partition, label, keys) }
    };
    let state = ready(state, STATE_NAME, None)?;
    let data = ready(data, DATA_NAME, Some(&state))?;
    if !plan.format.is_empty() {
        let mut table = disk.table().clone();
        for (number, _) in &plan.format {
            table.partitions.entry(*number).and_modify(|partition| partition.attributes &= !FRESH);
        }
        // What mkfs wrote must be kept before it is said to be there.
        system.sync();
        disk.write_table(table)?;
    }
    Ok(Volumes { state, data })
}

/// Makes a partition, encrypted if it is to be, and a file system in it.
fn make(
    system: &dyn System,
    partition: PathBuf,
    (label, state): (&'static str, Option<&Volume>),
    keys: &Keys<'_>,
) -> Result<Volume, Error> {
    let volume = match (keys.wanted)(label, state) {
        None => Volume { partition, opened: None },
        Some(wanted) => {
            let plain = luks::Volume { system, device: &partition, scratch: keys.scratch };
            luks::make(plain, label, &wanted, keys.sealer).map_err(|source| Error::Luks { label, source })?;
            // By a key that it was made with, so that one that does not open it is found out while nothing is in it.
            let given: Vec<Key> = wanted.passphrase.into_iter().collect();
            let given = Given { keys: &given, fetched: &wanted.fetched };
            open(system, partition, label, &Keys { given, ..*keys })?
        }
    };
    format(system, volume.device(), label)?;
    Ok(volume)
}

fn open(system: &dyn System, partition: PathBuf, label: &'static str, keys: &Keys<'_>) -> Result<Volume, Error> {
    let failed = |source| Error::Luks { label, source };
    let volume = luks::Volume { system, device: &partition, scratch: keys.scratch };
    let Some(header) = volume.header().map_err(failed)? else { return Ok(Volume { partition, opened: None }) };
    let opened = luks::open(volume, &label.to_lowercase(), &header, keys.given, keys.sealer).map_err(failed)?;
    Ok(Volume { partition, opened: Some(opened) })
}

/// Marks partitions as fresh, so that the next start formats them. Of one that is encrypted all keys are destroyed, so
/// that nobody reads what it held.
///
/// # Errors
/// There is no such partition, or the disk fails.
pub fn forget<D: Device>(disk: &mut OwnDisk<D>, names: &[&str]) -> Result<(), Error> {
    let mut table = disk.table().clone();
    for name in names {
        let found = table.partitions.values_mut().find(|partition| partition.name == *name);
        found.ok_or_else(|| Error::Missing(format!("partition {name}")))?.attributes |= FRESH;
    }
    disk.write_table(table)?;
    names.iter().try_for_each(|name| destroy_keys(disk, name))
}

fn destroy_keys<D: Device>(disk: &mut OwnDisk<D>, name: &str) -> Result<(), Error> {
    let zeros = vec![0; 1 << 20];
    let failed = |source| Error::Keys { name: name.to_owned(), source };
    let mut window = disk.volume(name)?;
    let mut head = [0; 8];
    window.read_at(0, &mut head).map_err(failed)?;
    if !luks::is_encrypted(&head) {
        return Ok(());
    }
    let end = luks::HEADER_BYTES.min(window.bytes());
    for place in (0..end).step_by(zeros.len()) {
        let count = usize::try_from(end - place).map_or(zeros.len(), |left| left.min(zeros.len()));
        window.write_at(place, &zeros[..count]).map_err(failed)?;
    }
    window.sync().map_err(failed)
}

/// Makes a file system.
///
/// # Errors
/// The program is not there, has no end, or says why not.
pub fn format(system: &dyn System, device: &Path, label: &str) -> Result<(), Error> {
    format_with(system, device, label, &[])
}

/// The same with further options.
pub(crate) fn format_with(system: &dyn System, device: &Path, label: &str, further: &[&str]) -> Result<(), Error> {
    let device = device.to_string_lossy();
    // Tables are initialised in the background by the kernel, so that the first boot need not wait for them.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let argv = ["/usr/sbin/mkfs.ext4", "-q", "-F", "-L", label, "-E", options];
    let argv: Vec<&str> = argv.iter().chain(further).copied().chain([&*device]).collect();
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
        first_boot_with(device, None)
    }

    /// A TPM that keeps nothing secret.
    struct Open;

    impl Sealer for Open {
        fn seal(&self, key: &[u8], pcrs: tpm::Pcrs) -> Result<tpm::Sealed, tpm::Error> {
            Ok(tpm::Sealed { public: vec![1], private: key.to_vec(), pcrs })
        }
        fn unseal(&self, sealed: &tpm::Sealed) -> Result<Vec<u8>, tpm::Error> {
            Ok(sealed.private.clone())
        }
    }

    fn first_boot_with(device: &mut Memory, wanted: Option<Wanted>) -> Result<Vec<Call>, Error> {
        let system = FakeSystem::new();
        for number in [4, 5] {
            let head: &[u8] = if wanted.is_some() { b"LUKS\xba\xbe\x00\x02" } else { &[0; 8] };
            system.file(format!("/dev/nvme0n1p{number}"), head);
        }
        let token = r#"{"type":"keelson-tpm","keyslots":["2"],"keelson-pcrs":[7],"keelson-private":"AA=="}"#;
        system.answer("luksDump", format!(r#"{{"keyslots":{{"2":{{}}}},"tokens":{{"2":{token}}}}}"#));
        for number in [1, 2] {
            system.file(format!("/sys/class/block/nvme0n1p{number}/partition"), "x");
        }
        let mut disk = OwnDisk::open(device)?;
        let plan = plan(disk.table(), &SIZES, b"own")?;
        let keys =
            Keys { wanted: &|_, _| wanted.clone(), given: Given::default(), sealer: &Open, scratch: Path::new("/run") };
        let volumes = apply(&system, &booted(), &mut disk, (&plan, &keys))?;
        assert_eq!(volumes.state.partition, Path::new("/dev/nvme0n1p4"));
        let inside = if wanted.is_some() { "/dev/mapper/keelson-data" } else { "/dev/nvme0n1p5" };
        assert_eq!(volumes.data.device(), Path::new(inside));
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
    fn an_encrypted_partition_gets_its_file_system_once_it_was_opened() {
        let mut device = flashed();
        let wanted = Wanted { tpm: Some(vec![7]), ..Wanted::default() };
        let calls = first_boot_with(&mut device, Some(wanted.clone())).unwrap();
        let words = |call: &Call| match call {
            Call::Run(argv) if argv[0].ends_with("mkfs.ext4") => argv.last().cloned(),
            Call::Run(argv) => argv.get(1).cloned(),
            _ => None,
        };
        let steps: Vec<String> = calls.iter().filter_map(words).collect();
        let made = ["luksFormat", "token", "luksDump", "open", "/dev/mapper/keelson-state"];
        assert_eq!(steps[..5], made);
        assert_eq!(formatted(&first_boot_with(&mut device, Some(wanted.clone())).unwrap()), 0);
        // One that cannot be made is not used without encryption.
        forget(&mut OwnDisk::open(&mut device).unwrap(), &[STATE_NAME]).unwrap();
        let unknown = Wanted { has_passphrase: true, ..wanted.clone() };
        let refused = first_boot_with(&mut device, Some(unknown)).unwrap_err().to_string();
        assert!(refused.starts_with("KEELSON-STATE"), "{refused}");
        assert_eq!(formatted(&first_boot_with(&mut device, Some(wanted)).unwrap()), 1);
    }

    #[test]
    fn a_reset_destroys_the_keys_whenever_the_power_goes() {
        let mut device = flashed();
        first_boot(&mut device).unwrap();
        let (start, bytes) = {
            let table = Table::read(&mut device).unwrap();
            let (_, partition) = table.named(STATE_NAME).unwrap();
            (partition.start(), partition.bytes())
        };
        device.write_at(start, b"LUKS\xba\xbe\x00\x02 and keys").unwrap();
        let before = device.writes();
        let mut whole = device.clone();
        forget(&mut OwnDisk::open(&mut whole).unwrap(), &[STATE_NAME]).unwrap();
        let mut header = vec![1; usize::try_from(bytes.min(luks::HEADER_BYTES)).unwrap()];
        whole.read_at(start, &mut header).unwrap();
        assert!(header.iter().all(|byte| *byte == 0));
        for kept in 0..whole.writes() - before {
            let mut cut = device.clone();
            cut.cut_after(kept);
            forget(&mut OwnDisk::open(&mut cut).unwrap(), &[STATE_NAME]).unwrap_err();
            cut.restore_power();
            // Either nothing happened yet, or the next start makes it anew.
            let is_fresh = Table::read(&mut cut).unwrap().named(STATE_NAME).unwrap().1.attributes & FRESH != 0;
            cut.read_at(start, &mut header[..8]).unwrap();
            assert!(is_fresh || luks::is_encrypted(&header[..8]), "after {kept} writes");
        }
    }

    #[test]
    fn a_first_boot_cut_anywhere_is_finished_by_the_next() {
        cut_anywhere(None);
        cut_anywhere(Some(Wanted { tpm: Some(vec![7]), ..Wanted::default() }));
    }

    fn cut_anywhere(wanted: Option<Wanted>) {
        let first_boot = |device: &mut Memory| first_boot_with(device, wanted.clone());
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
