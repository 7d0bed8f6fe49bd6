//! What makes an optical medium of a disk: ISO 9660 in the gap before the first partition.
//!
//! ```text
//! 0        32 KiB            1 MiB                        ┌ firmware that sees a disk reads the partition table,
//! │ GPT …  │ ISO 9660 … gap  │ EFI system partition │ A …  ┤ and one that sees an optical medium the boot catalog;
//!          └ volume, boot catalog (El Torito) ─────┘       └ both find the same EFI system partition
//! ```
//!
//! The volume holds no files: what there is to read is in the partitions.

use std::io;

use crate::device::Device;

/// Optical media are read in sectors of this size.
pub const SECTOR_BYTES: u64 = 2048;
const SECTOR: usize = 2048;
/// The first sector of the volume descriptors; what is before belongs to whoever boots from disks.
const FIRST: u32 = 16;
const CATALOG: u32 = FIRST + 3;
const ROOT: u32 = FIRST + 4;
/// The table of paths, with little numbers first, and the other way around.
const PATHS: [u32; 2] = [FIRST + 5, FIRST + 6];
const SECTORS: usize = 7;
/// So many bytes at the start of a medium must be free of partitions.
pub const END_BYTES: u64 = (FIRST as u64 + SECTORS as u64) * SECTOR_BYTES;
/// A path table with nothing but the root.
const PATHS_BYTES: u32 = 10;
const RECORD_BYTES: u8 = 34;
/// No time: the same disk makes the same bytes.
const NO_DATE: &[u8; 16] = b"0000000000000000";

/// Writes it onto a whole disk whose EFI system partition begins at this byte.
///
/// # Errors
/// The device fails, or has places that cannot be told.
pub fn write(device: &mut dyn Device, label: &str, esp_start: u64) -> io::Result<()> {
    let sector_of = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).map_err(io::Error::other);
    let (total, esp) = (sector_of(device.bytes())?, sector_of(esp_start)?);
    if !esp_start.is_multiple_of(SECTOR_BYTES) || esp_start < END_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the first partition leaves no room for a volume"));
    }
    let mut bytes = Vec::with_capacity(SECTORS * SECTOR);
    for sector in [volume(label, total), boot_record(), terminator(), catalog(esp), root()] {
        push(&mut bytes, &sector);
    }
    for is_little in [true, false] {
        push(&mut bytes, &paths(is_little));
    }
    device.write_at(u64::from(FIRST) * SECTOR_BYTES, &bytes)?;
    device.sync()
}

fn push(bytes: &mut Vec<u8>, sector: &[u8]) {
    bytes.extend_from_slice(sector);
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
}

/// The start of a volume descriptor.
fn descriptor(kind: u8) -> Vec<u8> {
    [&[kind], b"CD001".as_slice(), &[1]].concat()
}

fn terminator() -> Vec<u8> {
    descriptor(255)
}

/// A number both ways around, as most of them are written.
fn both(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both_half(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// Text to the end of its field.
fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take(length).collect();
    bytes.resize(length, b' ');
    bytes
}

fn volume(label: &str, sectors: u32) -> Vec<u8> {
    let mut out = descriptor(1);
    out.push(0);
    out.extend(padded("", 32));
    out.extend(padded(label, 32));
    out.extend([0; 8]);
    out.extend(both(sectors));
    out.extend([0; 32]);
    // The only volume of its set.
    out.extend(both_half(1));
    out.extend(both_half(1));
    out.extend(both_half(2048));
    out.extend(both(PATHS_BYTES));
    for (table, is_little) in [(PATHS[0], true), (0, true), (PATHS[1], false), (0, false)] {
        out.extend(if is_little { table.to_le_bytes() } else { table.to_be_bytes() });
    }
    out.extend(record(0));
    // Set, publisher, preparer, application; then the names of three files.
    out.extend(padded("", 4 * 128 + 3 * 37));
    for _ in 0..4 {
        out.extend(NO_DATE);
        out.push(0);
    }
    out.push(1);
    out
}

/// The root's record in itself: under its own name, or as what is above it.
fn record(name: u8) -> Vec<u8> {
    let mut out = vec![RECORD_BYTES, 0];
    out.extend(both(ROOT));
    out.extend(both(2048));
    out.extend([0; 7]);
    // A folder, not interleaved.
    out.extend([2, 0, 0]);
    out.extend(both_half(1));
    out.extend([1, name]);
    out
}

fn root() -> Vec<u8> {
    [record(0), record(1)].concat()
}

fn paths(is_little: bool) -> Vec<u8> {
    let (place, above) =
        if is_little { (ROOT.to_le_bytes(), 1_u16.to_le_bytes()) } else { (ROOT.to_be_bytes(), 1_u16.to_be_bytes()) };
    [[1, 0].as_slice(), &place, &above, &[0, 0]].concat()
}

/// Says that there is a boot catalog, and where.
fn boot_record() -> Vec<u8> {
    let mut out = descriptor(0);
    let mut system = b"EL TORITO SPECIFICATION".to_vec();
    system.resize(64, 0);
    out.extend(system);
    out.extend(CATALOG.to_le_bytes());
    out
}

/// One entry: for UEFI, the partition that begins at this sector. It is longer than its field can say, and 0 stands for
/// all up to the end.
fn catalog(esp: u32) -> Vec<u8> {
    const UEFI: u8 = 0xef;
    const BOOTABLE: u8 = 0x88;
    let mut validation = vec![1, UEFI, 0, 0];
    validation.resize(28, 0);
    // All sixteen halves, this one with them, come to nothing.
    let sum = validation.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let sum = sum.fold(0xaa55_u16, u16::wrapping_add);
    validation.extend(0_u16.wrapping_sub(sum).to_le_bytes());
    validation.extend([0x55, 0xaa]);
    let mut entry = vec![BOOTABLE, 0, 0, 0, 0, 0, 0, 0];
    entry.extend(esp.to_le_bytes());
    entry.resize(32, 0);
    [validation, entry].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Memory;

    const MIB: u64 = 1 << 20;

    fn written() -> Vec<u8> {
        let mut disk = Memory::new(4 << 20);
        write(&mut disk, "KEELSON", MIB).unwrap();
        disk.content()
    }

    fn sector(bytes: &[u8], number: u32) -> &[u8] {
        &bytes[number as usize * SECTOR..][..SECTOR]
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_reader_finds_the_boot_catalog_and_the_root() {
        let disk = written();
        let volume = sector(&disk, FIRST);
        assert_eq!((&volume[..7], word(volume, 80)), (b"\x01CD001\x01".as_slice(), 4 << 9));
        assert_eq!(&volume[40..47], b"KEELSON");
        // The root's record, with the root's place in it.
        assert_eq!((volume[156], word(volume, 158), volume[156 + 25]), (34, ROOT, 2));
        assert_eq!((word(volume, 132), word(volume, 140), volume[881]), (10, PATHS[0], 1));
        assert_eq!(u32::from_be_bytes(volume[148..152].try_into().unwrap()), PATHS[1]);
        let root = sector(&disk, ROOT);
        assert_eq!((root[0], root[33], root[34], root[67], root[68]), (34, 0, 34, 1, 0));
        assert_eq!((sector(&disk, PATHS[0])[0], word(sector(&disk, PATHS[0]), 2)), (1, ROOT));
        let boot = sector(&disk, FIRST + 1);
        assert_eq!((boot[0], &boot[7..30], word(boot, 71)), (0, b"EL TORITO SPECIFICATION".as_slice(), CATALOG));
        assert_eq!(sector(&disk, FIRST + 2)[0], 255);
    }

    #[test]
    fn the_catalog_leads_to_the_partition() {
        let disk = written();
        let catalog = sector(&disk, CATALOG);
        let halves = catalog[..32].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        assert_eq!(halves.fold(0_u16, u16::wrapping_add), 0);
        assert_eq!((catalog[1], catalog[32], u64::from(word(catalog, 40))), (0xef, 0x88, MIB / SECTOR_BYTES));
    }

    #[test]
    fn the_partition_table_and_the_partitions_stay_as_they_are() {
        let disk = written();
        let end = usize::try_from(END_BYTES).unwrap();
        assert!(disk[..32 << 10].iter().chain(&disk[end..]).all(|byte| *byte == 0));
        let mut small = Memory::new(1 << 20);
        assert!(write(&mut small, "X", END_BYTES - SECTOR_BYTES).is_err());
        assert!(write(&mut small, "X", END_BYTES + 512).is_err());
    }
}
