//! The partition table.
//!
//! There are two copies, at both ends of the disk, each with check sums. [`Table::write`] never has both of them broken:
//! the one at the end is written and kept before the one at the start is touched, so that a cut leaves the old table or
//! the new one ([`Table::read`] takes the copy at the end when the first is broken).

use std::collections::BTreeMap;
use std::io;

use crate::device::Device;
use crate::guid::Guid;

/// The only size of sectors that is supported.
pub const SECTOR_BYTES: u64 = 512;
const SECTOR: usize = 512;
const ENTRY: usize = 128;
const ENTRIES_BYTES: usize = ENTRY * ENTRY_COUNT as usize;
const ENTRY_COUNT: u32 = 128;
/// The same, as a header says it.
const ENTRY_SIZE: u32 = 128;
const ENTRIES_SECTORS: u64 = ENTRIES_BYTES as u64 / SECTOR_BYTES;
const HEADER_BYTES: usize = 92;
/// The same, as a header says it.
const HEADER_SIZE: u32 = 92;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const NAME_UNITS: usize = 36;
/// The first sector after the table at the start.
const FIRST_USABLE: u64 = 2 + ENTRIES_SECTORS;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: Guid,
    /// Its own identifier.
    pub id: Guid,
    /// Its first sector.
    pub first: u64,
    /// Its last sector.
    pub last: u64,
    /// Bits, those from 48 on with a meaning of the kind's own.
    pub attributes: u64,
    /// Its name, at most 36 characters.
    pub name: String,
}

impl Partition {
    /// How many sectors it has.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.last + 1 - self.first
    }

    /// Where it begins, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.first * SECTOR_BYTES
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sectors() * SECTOR_BYTES
    }
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's identifier.
    pub disk: Guid,
    /// The disk's size.
    pub sectors: u64,
    /// By number, from 1.
    pub partitions: BTreeMap<u32, Partition>,
}

/// Why a disk has no usable table.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The device fails.
    #[error("{step} the partition table")]
    Device {
        /// "read" or "write".
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is none.
    #[error("the disk has no partition table (GPT)")]
    None,
    /// It is for other sectors.
    #[error("the disk has sectors of 4096 bytes, and only those of 512 bytes are supported")]
    LargeSectors,
    /// Both copies are damaged.
    #[error("the partition table is damaged, and so is its copy at the end of the disk: {0}")]
    Damaged(&'static str),
    /// The disk is too small to hold it.
    #[error("a disk of {0} sectors has no room for a partition table")]
    TooSmall(u64),
}

impl Table {
    /// A table without partitions.
    #[must_use]
    pub fn new(disk: Guid, sectors: u64) -> Self {
        Self { disk, sectors, partitions: BTreeMap::new() }
    }

    /// The last sector that a partition may have.
    #[must_use]
    pub fn last_usable(&self) -> u64 {
        self.sectors.saturating_sub(2 + ENTRIES_SECTORS)
    }

    /// The partition of this name, with its number.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(u32, &Partition)> {
        self.partitions.iter().find(|(_, partition)| partition.name == name).map(|(number, it)| (*number, it))
    }

    /// Reads the table, from its copy if it must. [`Table::sectors`] is the size of the device, whatever the table says.
    ///
    /// # Errors
    /// There is no valid one.
    pub fn read(device: &mut dyn Device) -> Result<Self, GptError> {
        let sectors = device.bytes() / SECTOR_BYTES;
        if sectors <= FIRST_USABLE + ENTRIES_SECTORS + 1 {
            return Err(GptError::TooSmall(sectors));
        }
        let first = match read_copy(device, 1) {
            Err(Broken::Invalid(reason)) => reason,
            Err(Broken::Device(source)) => return Err(GptError::Device { step: "read", source }),
            Ok(table) => return Ok(table),
        };
        match read_copy(device, sectors - 1) {
            Ok(table) => Ok(table),
            Err(Broken::Device(source)) => Err(GptError::Device { step: "read", source }),
            Err(Broken::Invalid(ABSENT)) if first == ABSENT => {
                let mut sector = [0; 8];
                let large = device.read_at(4096, &mut sector).is_ok() && &sector == SIGNATURE;
                Err(if large { GptError::LargeSectors } else { GptError::None })
            }
            Err(Broken::Invalid(_)) => Err(GptError::Damaged(first)),
        }
    }

    /// Writes both copies, in an order that can be cut at any place.
    ///
    /// # Errors
    /// The device fails or is too small.
    pub fn write(&self, device: &mut dyn Device) -> Result<(), GptError> {
        if self.sectors <= FIRST_USABLE + ENTRIES_SECTORS + 1 {
            return Err(GptError::TooSmall(self.sectors));
        }
        self.write_copies(device).map_err(|source| GptError::Device { step: "write", source })
    }

    fn write_copies(&self, device: &mut dyn Device) -> io::Result<()> {
        let entries = self.entries();
        let end = self.sectors - 1;
        // As one: entries without their header would be unknown data on a disk that was blank.
        let second = [entries.as_slice(), &self.header(&entries, end)].concat();
        device.write_at((end - ENTRIES_SECTORS) * SECTOR_BYTES, &second)?;
        device.sync()?;
        device.write_at(0, &self.protective())?;
        device.write_at(2 * SECTOR_BYTES, &entries)?;
        device.write_at(SECTOR_BYTES, &self.header(&entries, 1))?;
        device.sync()
    }

    fn entries(&self) -> Vec<u8> {
        let mut bytes = vec![0; ENTRIES_BYTES];
        for (number, partition) in &self.partitions {
            let Some(entry) = (*number as usize).checked_sub(1).and_then(|at| bytes.chunks_exact_mut(ENTRY).nth(at))
            else {
                continue;
            };
            entry[..16].copy_from_slice(&partition.kind.0);
            entry[16..32].copy_from_slice(&partition.id.0);
            entry[32..40].copy_from_slice(&partition.first.to_le_bytes());
            entry[40..48].copy_from_slice(&partition.last.to_le_bytes());
            entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
            for (place, unit) in entry[56..].chunks_exact_mut(2).zip(partition.name.encode_utf16().take(NAME_UNITS)) {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header(&self, entries: &[u8], own: u64) -> Vec<u8> {
        let end = self.sectors - 1;
        let (other, entries_at) = if own == 1 { (end, 2) } else { (1, end - ENTRIES_SECTORS) };
        let mut header = Vec::with_capacity(SECTOR);
        header.extend_from_slice(SIGNATURE);
        for word in [REVISION, HEADER_SIZE, 0, 0] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        for word in [own, other, FIRST_USABLE, self.last_usable()] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header.extend_from_slice(&self.disk.0);
        header.extend_from_slice(&entries_at.to_le_bytes());
        for word in [ENTRY_COUNT, ENTRY_SIZE, crc32(entries)] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header.resize(SECTOR, 0);
        header
    }

    /// The old kind of table, which tells programs that know no other that the disk is in use.
    fn protective(&self) -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        crate::bios::put(&mut sector);
        let length = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        sector[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        sector[454..458].copy_from_slice(&1_u32.to_le_bytes());
        sector[458..462].copy_from_slice(&length.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }
}

enum Broken {
    Device(io::Error),
    Invalid(&'static str),
}

const ABSENT: &str = "its header has no signature";

fn read_copy(device: &mut dyn Device, at: u64) -> Result<Table, Broken> {
    let mut header = vec![0; SECTOR];
    device.read_at(at * SECTOR_BYTES, &mut header).map_err(Broken::Device)?;
    if &header[..8] != SIGNATURE {
        return Err(Broken::Invalid(ABSENT));
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let (sum, entries_sum) = (word(16), word(88));
    if (word(12), word(80), word(84)) != (HEADER_SIZE, ENTRY_COUNT, ENTRY_SIZE) {
        return Err(Broken::Invalid("its sizes are unusual"));
    }
    let (own, entries_at) = (long(24), long(72));
    let mut disk = [0; 16];
    disk.copy_from_slice(&header[56..72]);
    header[16..20].fill(0);
    if crc32(&header[..HEADER_BYTES]) != sum || own != at {
        return Err(Broken::Invalid("its header's check sum is wrong"));
    }
    let sectors = device.bytes() / SECTOR_BYTES;
    if entries_at >= sectors - ENTRIES_SECTORS {
        return Err(Broken::Invalid("its entries are beyond the disk"));
    }
    let mut entries = vec![0; ENTRIES_BYTES];
    device.read_at(entries_at * SECTOR_BYTES, &mut entries).map_err(Broken::Device)?;
    if crc32(&entries) != entries_sum {
        return Err(Broken::Invalid("its entries' check sum is wrong"));
    }
    let partitions = (1..).zip(entries.chunks_exact(ENTRY)).filter_map(|(number, entry)| Some((number, parse(entry)?)));
    let table = Table { disk: Guid(disk), sectors, partitions: partitions.collect() };
    if table.partitions.values().any(|it| it.first < FIRST_USABLE || it.last < it.first || it.last >= sectors) {
        return Err(Broken::Invalid("a partition is beyond the disk"));
    }
    Ok(table)
}

fn parse(entry: &[u8]) -> Option<Partition> {
    let guid = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&entry[at..at + 16]);
        Guid(bytes)
    };
    let long = |at: usize| entry[at..at + 8].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let kind = guid(0);
    if kind.is_zero() {
        return None;
    }
    let units = entry[56..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let name = String::from_utf16_lossy(&units);
    Some(Partition { kind, id: guid(16), first: long(32), last: long(40), attributes: long(48), name })
}

/// The check sum of Ethernet, zip and partition tables.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
    !bytes.iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Memory;

    const SECTORS: usize = 4096;

    fn table(name: &str) -> Table {
        let mut table = Table::new(Guid::derive(name.as_bytes(), "disk"), SECTORS as u64);
        let (kind, id) = (Guid::derive(b"k", "kind"), Guid::derive(b"i", "id"));
        let partition = Partition { kind, id, first: 2048, last: 3000, attributes: 1 << 56, name: name.to_owned() };
        table.partitions.insert(2, partition);
        table
    }

    #[test]
    fn the_check_sum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_is_written_is_read_from_either_copy() {
        let mut disk = Memory::new(SECTORS * SECTOR);
        assert!(matches!(Table::read(&mut disk), Err(GptError::None)));
        table("one").write(&mut disk).unwrap();
        assert_eq!(Table::read(&mut disk).unwrap(), table("one"));
        let mut first_lost = disk.clone();
        first_lost.write_at(600, b"damage").unwrap();
        assert_eq!(Table::read(&mut first_lost).unwrap(), table("one"));
        first_lost.write_at((SECTORS as u64 - 1) * SECTOR_BYTES + 60, b"damage").unwrap();
        assert!(matches!(Table::read(&mut first_lost), Err(GptError::Damaged(_))));
        let mut last_lost = disk;
        last_lost.write_at((SECTORS as u64 - 1) * SECTOR_BYTES, b"damage").unwrap();
        assert_eq!(Table::read(&mut last_lost).unwrap(), table("one"));
    }

    #[test]
    fn a_cut_leaves_the_old_table_or_the_new_one() {
        let mut disk = Memory::new(SECTORS * SECTOR);
        table("old").write(&mut disk).unwrap();
        let mut whole = disk.clone();
        table("new").write(&mut whole).unwrap();
        let count = whole.writes() - disk.writes();
        for kept in 0..count {
            let mut cut = disk.clone();
            cut.cut_after(kept);
            table("new").write(&mut cut).unwrap_err();
            let found = Table::read(&mut cut).unwrap();
            assert!(found == table("old") || found == table("new"), "after {kept} writes: {found:?}");
        }
    }

    #[test]
    fn a_table_for_large_sectors_is_named() {
        let mut disk = Memory::new(SECTORS * SECTOR);
        disk.write_at(4096, SIGNATURE).unwrap();
        assert!(matches!(Table::read(&mut disk), Err(GptError::LargeSectors)));
    }
}
