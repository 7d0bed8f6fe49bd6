//! Which partitions a disk gets, and where.
//!
//! An image to flash has the first two, the second no larger than its content. [`plan`] adds what is missing and lets
//! slot A grow, on the first boot or after a first boot that was cut short. It never moves a partition, and never touches
//! one that is none of ours.

use crate::entry::Slot;
use crate::gpt::{Partition, SECTOR_BYTES, Table};
use crate::guid::Guid;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Partitions begin at multiples of this.
const ALIGNMENT: u64 = MIB / SECTOR_BYTES;
/// Room for three kernel images that grow for years.
pub const ESP_BYTES: u64 = 256 * MIB;
/// Room for a root several times as large as today's.
pub const SLOT_BYTES: u64 = GIB;
/// Less is of no use for images and pods.
pub const LEAST_DATA_BYTES: u64 = GIB;
/// Less is of no use for a volume.
const LEAST_VOLUME_BYTES: u64 = 16 * MIB;

/// The number of the EFI system partition.
pub const ESP: u32 = 1;
/// The name of the EFI system partition.
pub const ESP_NAME: &str = "KEELSON-ESP";
/// The name of the partition with manifest, keys and etcd.
pub const STATE_NAME: &str = "KEELSON-STATE";
/// The name of the partition with images, pods and logs.
pub const DATA_NAME: &str = "KEELSON-DATA";

/// What stands before a volume's name in the name of its partition. It is on a disk of its own, and no installation takes
/// that for one of ours.
const VOLUME_PREFIX: &str = "keelson-volume-";

/// Nothing on the partition is worth anything yet: it was made and not yet formatted.
pub const FRESH: u64 = 1 << 56;
/// On the EFI system partition: the disk was installed to, and is no medium to install from.
pub const INSTALLED: u64 = 1 << 57;

const ESP_KIND: Guid = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
const SLOT_KIND: Guid = Guid::new(0x7d4c_52b1, 0x1b0e, 0x4f4e, [0x9c, 0x2a, 0x6b, 0x65, 0x65, 0x6c, 0x73, 0x01]);
const STATE_KIND: Guid = Guid::new(0x7d4c_52b1, 0x1b0e, 0x4f4e, [0x9c, 0x2a, 0x6b, 0x65, 0x65, 0x6c, 0x73, 0x02]);
const DATA_KIND: Guid = Guid::new(0x7d4c_52b1, 0x1b0e, 0x4f4e, [0x9c, 0x2a, 0x6b, 0x65, 0x65, 0x6c, 0x73, 0x03]);
const VOLUME_KIND: Guid = Guid::new(0x7d4c_52b1, 0x1b0e, 0x4f4e, [0x9c, 0x2a, 0x6b, 0x65, 0x65, 0x6c, 0x73, 0x04]);

/// How large partitions are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The EFI system partition, where it is made.
    pub esp: u64,
    /// Each slot.
    pub slot: u64,
    /// STATE.
    pub state: u64,
    /// DATA; `None` is the rest of the disk.
    pub data: Option<u64>,
}

/// Why a disk cannot be laid out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The disk is none of ours.
    #[error("the disk has no partition {0}")]
    Missing(&'static str),
    /// Some partition has no room.
    #[error(
        "no room for {name}: it needs {} MiB, and {} MiB are left on the disk of {} MiB{}",
        needed >> 20, left >> 20, disk >> 20,
        other.as_ref().map(|other| format!(" before the partition {other:?}")).unwrap_or_default()
    )]
    NoRoom {
        /// Which.
        name: &'static str,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        left: u64,
        /// Bytes of the disk.
        disk: u64,
        /// What lies behind the room.
        other: Option<String>,
    },
}

/// The table of an image with a root of so many bytes, as small as can be. `seed` makes its identifiers.
#[must_use]
pub fn image(seed: &[u8], root_bytes: u64) -> Table {
    with_esp(seed, ESP_BYTES, root_bytes)
}

fn with_esp(seed: &[u8], esp_bytes: u64, root_bytes: u64) -> Table {
    let root = root_bytes.next_multiple_of(MIB).div_ceil(SECTOR_BYTES);
    let esp = esp_bytes.div_ceil(SECTOR_BYTES);
    let first = ALIGNMENT + esp;
    // The copy of the table at the end takes less than one unit.
    let mut table = Table::new(Guid::derive(seed, "disk"), first + root + ALIGNMENT);
    table.partitions.insert(ESP, part(seed, ESP_KIND, ESP_NAME, (ALIGNMENT, esp)));
    table.partitions.insert(2, part(seed, SLOT_KIND, Slot::A.partition(), (first, root)));
    table
}

/// The table of an empty disk that is installed to, all in one.
///
/// # Errors
/// The disk is too small.
pub fn installed(seed: &[u8], sectors: u64, sizes: &Sizes) -> Result<Table, LayoutError> {
    let mut table = with_esp(seed, sizes.esp, sizes.slot);
    table.sectors = sectors;
    table.partitions.entry(ESP).and_modify(|esp| esp.attributes |= INSTALLED);
    plan(&table, sizes, seed)
}

/// The table of a disk that is a volume of this name for pods, yet to be formatted.
///
/// # Errors
/// The disk is too small.
pub fn volume(seed: &[u8], sectors: u64, name: &str) -> Result<Table, LayoutError> {
    let mut table = Table::new(Guid::derive(seed, "disk"), sectors);
    let rest = (table.last_usable() + 1).saturating_sub(ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    let place = (ALIGNMENT, rest.max(LEAST_VOLUME_BYTES / SECTOR_BYTES));
    check_room(&table, "a volume", place)?;
    let partition = part(seed, VOLUME_KIND, &format!("{VOLUME_PREFIX}{name}"), place);
    table.partitions.insert(1, Partition { attributes: FRESH, ..partition });
    Ok(table)
}

/// The volume that a partition is, if it is one.
#[must_use]
pub fn volume_name(partition: &Partition) -> Option<&str> {
    partition.name.strip_prefix(VOLUME_PREFIX).filter(|_| partition.kind == VOLUME_KIND)
}

fn part(seed: &[u8], kind: Guid, name: &str, (first, sectors): (u64, u64)) -> Partition {
    Partition {
        kind,
        id: Guid::derive(seed, name),
        first,
        last: first + sectors - 1,
        attributes: 0,
        name: name.to_owned(),
    }
}

/// The table with all that is missing. The same table if nothing is.
///
/// The first time, what came from an image gets identifiers made from `seed`, for other disks may be copies of the same
/// image.
///
/// # Errors
/// The disk is none of ours, or has no room.
pub fn plan(found: &Table, sizes: &Sizes, seed: &[u8]) -> Result<Table, LayoutError> {
    let mut table = found.clone();
    found.named(ESP_NAME).ok_or(LayoutError::Missing(ESP_NAME))?;
    let (number, slot_a) = found.named(Slot::A.partition()).ok_or(LayoutError::Missing(Slot::A.partition()))?;
    let mut end = slot_a.last + 1;
    if found.named(Slot::B.partition()).is_none() {
        table.disk = Guid::derive(seed, "disk");
        table.partitions.values_mut().for_each(|partition| partition.id = Guid::derive(seed, &partition.name));
    }
    if slot_a.bytes() < sizes.slot {
        let (first, sectors) = (slot_a.first, sizes.slot.div_ceil(SECTOR_BYTES));
        check_room(&table, Slot::A.partition(), (first, sectors))?;
        end = first + sectors;
        table.partitions.entry(number).and_modify(|it| it.last = end - 1);
    }
    let rows = [
        (SLOT_KIND, Slot::B.partition(), Some(sizes.slot), 0),
        (STATE_KIND, STATE_NAME, Some(sizes.state), FRESH),
        (DATA_KIND, DATA_NAME, sizes.data, FRESH),
    ];
    for (number, (kind, name, bytes, attributes)) in (number + 1..).zip(rows) {
        if let Some((_, present)) = found.named(name) {
            end = present.last + 1;
            continue;
        }
        let first = end.next_multiple_of(ALIGNMENT);
        let rest = (table.last_usable() + 1).saturating_sub(first) / ALIGNMENT * ALIGNMENT;
        let least = LEAST_DATA_BYTES / SECTOR_BYTES;
        let sectors = bytes.map_or(rest.max(least), |bytes| bytes.div_ceil(SECTOR_BYTES));
        check_room(&table, name, (first, sectors))?;
        let partition = Partition { attributes, ..part(seed, kind, name, (first, sectors)) };
        let free = (number..).find(|number| !table.partitions.contains_key(number)).unwrap_or(number);
        table.partitions.insert(free, partition);
        end = first + sectors;
    }
    Ok(table)
}

/// Whether a partition may have these sectors.
fn check_room(table: &Table, name: &'static str, (first, sectors): (u64, u64)) -> Result<(), LayoutError> {
    let others = table.partitions.values().filter(|it| it.name != name && it.last >= first);
    let next = others.min_by_key(|it| it.first);
    let end = next.map_or(table.last_usable() + 1, |it| it.first);
    let left = end.saturating_sub(first);
    if left >= sectors {
        return Ok(());
    }
    let bytes = |sectors: u64| sectors * SECTOR_BYTES;
    let other = next.map(|it| it.name.clone());
    Err(LayoutError::NoRoom { name, needed: bytes(sectors), left: bytes(left), disk: bytes(table.sectors), other })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { esp: ESP_BYTES, slot: GIB, state: 2 * GIB, data: None };

    fn flashed(disk: u64) -> Table {
        Table { sectors: disk / SECTOR_BYTES, ..image(b"seed", 150 * MIB + 5) }
    }

    fn names(table: &Table) -> Vec<(u32, &str, u64)> {
        table.partitions.iter().map(|(number, it)| (*number, it.name.as_str(), it.bytes() / MIB)).collect()
    }

    #[test]
    fn a_first_boot_makes_the_rest_once() {
        let table = plan(&flashed(20 * GIB), &SIZES, b"own").unwrap();
        let expected = [
            (1, ESP_NAME, 256),
            (2, "KEELSON-A", 1024),
            (3, "KEELSON-B", 1024),
            (4, STATE_NAME, 2048),
            (5, DATA_NAME, 16126),
        ];
        assert_eq!(names(&table), expected);
        assert!(table.partitions[&5].last <= table.last_usable());
        assert_eq!(plan(&table, &SIZES, b"later").unwrap(), table);
        assert_ne!(plan(&flashed(20 * GIB), &SIZES, b"other").unwrap().partitions[&1].id, table.partitions[&1].id);
        assert_eq!(table.partitions[&4].attributes, FRESH);
        assert_eq!(installed(b"own", table.sectors, &SIZES).unwrap().partitions.len(), 5);
    }

    #[test]
    fn nothing_that_is_there_is_moved() {
        let mut table = plan(&flashed(20 * GIB), &SIZES, b"own").unwrap();
        table.partitions.remove(&5);
        let state = table.partitions[&4].clone();
        table.partitions.entry(4).and_modify(|it| it.attributes = 0);
        let again = plan(&table, &Sizes { slot: 2 * GIB, ..SIZES }, b"own");
        assert!(matches!(again, Err(LayoutError::NoRoom { name: "KEELSON-A", .. })), "{again:?}");
        let again = plan(&table, &SIZES, b"own").unwrap();
        assert_eq!((again.partitions[&4].first, again.partitions[&4].attributes), (state.first, 0));
        assert_eq!(again.partitions[&5].attributes, FRESH);
    }

    #[test]
    fn a_volume_has_its_disk_for_itself() {
        let table = volume(b"own", 10 * GIB / SECTOR_BYTES, "longhorn").unwrap();
        assert_eq!(names(&table), [(1, "keelson-volume-longhorn", 10238)]);
        let partition = &table.partitions[&1];
        assert!(partition.last <= table.last_usable() && partition.first.is_multiple_of(ALIGNMENT));
        assert_eq!((volume_name(partition), partition.attributes), (Some("longhorn"), FRESH));
        // Somebody else's partition of this name is none.
        let foreign = Partition { kind: DATA_KIND, ..partition.clone() };
        assert_eq!(volume_name(&foreign), None);
        let refused = volume(b"own", 16 * MIB / SECTOR_BYTES, "longhorn").unwrap_err().to_string();
        assert!(refused.starts_with("no room for a volume: it needs 16 MiB, and 14 MiB are left"), "{refused}");
        // The longest name that a manifest may have.
        let name = "x".repeat(20);
        let table = volume(b"own", GIB / SECTOR_BYTES, &name).unwrap();
        let mut device = crate::Memory::new(usize::try_from(GIB).unwrap());
        table.write(&mut device).unwrap();
        assert_eq!(volume_name(&Table::read(&mut device).unwrap().partitions[&1]), Some(name.as_str()));
    }

    #[test]
    fn a_disk_without_room_is_told_exactly() {
        let error = plan(&flashed(3 * GIB), &SIZES, b"own").unwrap_err();
        let text = "no room for KEELSON-STATE: it needs 2048 MiB, and 766 MiB are left on the disk of 3072 MiB";
        assert_eq!(error.to_string(), text);
        let mut foreign = flashed(20 * GIB);
        let photos = part(b"x", Guid::derive(b"x", "y"), "photos", (2_000_000, 2048));
        foreign.partitions.insert(7, photos);
        let text = plan(&foreign, &SIZES, b"own").unwrap_err().to_string();
        assert!(text.ends_with("before the partition \"photos\""), "{text}");
        assert_eq!(plan(&Table::new(Guid::default(), 9), &SIZES, b"own").unwrap_err(), LayoutError::Missing(ESP_NAME));
    }
}
