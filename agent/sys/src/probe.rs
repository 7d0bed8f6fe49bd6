//! What file system a block device holds, from its first bytes.

/// How many bytes from the start of a device are looked at: what [`probe_filesystem`] needs, and the places at 64 KiB where
/// file systems begin that leave the start alone (btrfs, reiserfs), so that their disks are not taken for blank.
pub const PROBE_BYTES: usize = 68 * 1024;

/// A file system by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Which one.
    pub kind: FilesystemKind,
    /// Its label; may be empty.
    pub label: String,
}

/// File systems that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemKind {
    /// ext2, ext3 or ext4.
    Ext4,
    /// The read-only file system of the image.
    Erofs,
    /// A CD image.
    Iso9660,
    /// FAT in any width.
    Vfat,
    /// What large sticks are sold with.
    Exfat,
}

impl FilesystemKind {
    /// The name mount(2) takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
            Self::Iso9660 => "iso9660",
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
        }
    }
}

/// One kind: where its mark is, where its label is.
struct Mark {
    kind: FilesystemKind,
    offset: usize,
    bytes: &'static [u8],
    /// Its first byte, and how many there are; none where it stands among the files.
    label: (usize, usize),
}

const MARKS: [Mark; 6] = [
    Mark { kind: FilesystemKind::Ext4, offset: 1024 + 56, bytes: &[0x53, 0xef], label: (1024 + 120, 16) },
    Mark { kind: FilesystemKind::Erofs, offset: 1024, bytes: &[0xe2, 0xe1, 0xf5, 0xe0], label: (1024 + 64, 16) },
    Mark { kind: FilesystemKind::Iso9660, offset: 32768 + 1, bytes: b"CD001", label: (32768 + 40, 32) },
    Mark { kind: FilesystemKind::Vfat, offset: 82, bytes: b"FAT32", label: (71, 11) },
    Mark { kind: FilesystemKind::Vfat, offset: 54, bytes: b"FAT1", label: (43, 11) },
    Mark { kind: FilesystemKind::Exfat, offset: 3, bytes: b"EXFAT   ", label: (0, 0) },
];

/// The file system that starts with these bytes, if it is a known one.
#[must_use]
pub fn probe_filesystem(head: &[u8]) -> Option<Filesystem> {
    let mark = MARKS.iter().find(|mark| head.get(mark.offset..mark.offset + mark.bytes.len()) == Some(mark.bytes))?;
    let label = head.get(mark.label.0..mark.label.0 + mark.label.1).unwrap_or_default();
    let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Filesystem { kind: mark.kind, label: String::from_utf8_lossy(label).trim_end().to_owned() })
}

/// What FAT says where nobody gave it a label, or whoever did wrote it among the files only, as Windows does.
const NO_LABEL: [&str; 2] = ["", "NO NAME"];
/// Of an entry in a folder of either kind.
const ENTRY_BYTES: usize = 32;
/// So much of the first folder is looked through: the label is one of its first entries.
pub(crate) const FOLDER_BYTES: usize = 4096;

impl Filesystem {
    /// Where its first folder is, counted from the start of the device, if the label has to be looked for there.
    ///
    /// Source: Microsoft's "FAT: General Overview of On-Disk Format", section "Boot Sector and BPB", and its "exFAT file
    /// system specification", section 3.1.
    pub(crate) fn first_folder(&self, head: &[u8]) -> Option<u64> {
        let short = |at: usize| Some(u64::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
        let long = |at: usize| Some(u64::from(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)));
        let byte = |at: usize| head.get(at).copied().map(u64::from);
        match self.kind {
            FilesystemKind::Vfat if NO_LABEL.contains(&self.label.as_str()) => {
                let (of_table, clusters) = match short(22)? {
                    0 => (long(36)?, long(44)?.checked_sub(2)?),
                    of_table => (of_table, 0),
                };
                Some((short(14)? + byte(16)? * of_table + clusters * byte(13)?) * short(11)?)
            }
            FilesystemKind::Exfat => {
                let clusters = long(96)?.checked_sub(2)?;
                let sector = 1_u64.checked_shl(u32::try_from(byte(108)?).ok()?)?;
                let cluster = 1_u64.checked_shl(u32::try_from(byte(109)?).ok()?)?;
                clusters.checked_mul(cluster)?.checked_add(long(88)?)?.checked_mul(sector)
            }
            _ => None,
        }
    }

    /// Takes the label from the first folder, if it has one there.
    pub(crate) fn take_label(&mut self, folder: &[u8]) {
        let mut entries = folder.chunks_exact(ENTRY_BYTES).take_while(|entry| entry[0] != 0);
        let label = match self.kind {
            FilesystemKind::Exfat => entries.find_map(exfat_label),
            _ => entries.find_map(fat_label),
        };
        self.label = label.unwrap_or_else(|| std::mem::take(&mut self.label));
    }
}

fn fat_label(entry: &[u8]) -> Option<String> {
    const IS_LABEL: u8 = 0x08;
    const IS_FOLDER: u8 = 0x10;
    const IS_LONG_NAME: u8 = 0x0f;
    const DELETED: u8 = 0xe5;
    let kind = entry[11];
    let is_it = kind & (IS_LABEL | IS_FOLDER) == IS_LABEL && kind & IS_LONG_NAME != IS_LONG_NAME;
    (is_it && entry[0] != DELETED).then(|| String::from_utf8_lossy(&entry[..11]).trim_end().to_owned())
}

fn exfat_label(entry: &[u8]) -> Option<String> {
    const IS_LABEL: u8 = 0x83;
    let letters = entry[2..].chunks_exact(2).take(usize::from(entry[1]));
    let letters: Vec<u16> = letters.map(|letter| u16::from_le_bytes([letter[0], letter[1]])).collect();
    (entry[0] == IS_LABEL).then(|| String::from_utf16_lossy(&letters))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_may_stand_among_the_files_only() {
        let fat = |label: &str| Filesystem { kind: FilesystemKind::Vfat, label: label.to_owned() };
        let mut head = vec![0; 512];
        // Sectors of 512 bytes, 8 of them in a cluster, 32 before two tables of 100, the first folder in cluster 2.
        for (at, byte) in [(12, 2), (13, 8), (14, 32), (16, 2), (36, 100), (44, 2)] {
            head[at] = byte;
        }
        assert_eq!(fat("NO NAME").first_folder(&head), Some((32 + 200) * 512));
        head[44] = 3;
        assert_eq!(fat("").first_folder(&head), Some((32 + 200 + 8) * 512));
        head[22] = 50;
        assert_eq!(fat("NO NAME").first_folder(&head), Some((32 + 100) * 512));
        assert_eq!(fat("A").first_folder(&head), None);
        assert_eq!(fat("").first_folder(&[]), None);
        let entry = |name: &[u8; 11], kind: u8| [&name[..], &[kind], &[0; 20]].concat();
        let label = |entries: &[Vec<u8>]| {
            let mut found = fat("NO NAME");
            found.take_label(&entries.concat());
            found.label
        };
        let (long, old) = (entry(b"Am.a.n.i.f.", 0x0f), entry(b"\xe5OLD       ", 0x08));
        let ours = entry(b"KEELSON-CFG", 0x08);
        assert_eq!(label(&[long, old, entry(b"FOLDER     ", 0x10), ours.clone()]), "KEELSON-CFG");
        assert_eq!(label(&[entry(&[0; 11], 0), ours]), "NO NAME");
    }

    #[test]
    fn exfat_has_its_label_among_the_files() {
        let mut found = Filesystem { kind: FilesystemKind::Exfat, label: String::new() };
        let mut head = vec![0; 512];
        // Sectors of 512 bytes, 8 of them in a cluster, clusters from sector 64, the first folder in cluster 4.
        for (at, byte) in [(88, 64), (96, 4), (108, 9), (109, 3)] {
            head[at] = byte;
        }
        assert_eq!(found.first_folder(&head), Some((64 + 2 * 8) * 512));
        head[108] = 255;
        assert_eq!(found.first_folder(&head), None);
        let entry = |kind: u8, count: u8| {
            let letters: Vec<u8> = "KEELSON-CFG".encode_utf16().flat_map(u16::to_le_bytes).collect();
            [&[kind, count], &letters[..], &[0; 8]].concat()
        };
        found.take_label(&[entry(0x81, 2), entry(0x83, 11)].concat());
        assert_eq!(found.label, "KEELSON-CFG");
        found.take_label(&[0; 64]);
        assert_eq!(found.label, "KEELSON-CFG");
        found.take_label(&entry(0x83, 255));
        assert!(found.label.starts_with("KEELSON-CFG\0"));
    }

    #[test]
    fn labels_are_read_from_their_places() {
        for mark in MARKS {
            let mut head = vec![0_u8; PROBE_BYTES];
            head[mark.offset..mark.offset + mark.bytes.len()].copy_from_slice(mark.bytes);
            let label = if mark.label.1 == 0 { "" } else { "KEELSON" };
            head[mark.label.0..mark.label.0 + label.len()].copy_from_slice(label.as_bytes());
            let found = probe_filesystem(&head).unwrap();
            assert_eq!((found.kind, found.label.as_str()), (mark.kind, label));
        }
        assert_eq!(probe_filesystem(&[0; PROBE_BYTES]), None);
        assert_eq!(probe_filesystem(&[]), None);
    }

    proptest! {
        #[test]
        fn no_disk_makes_it_panic(head in prop::collection::vec(any::<u8>(), 0..600), folder in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [FilesystemKind::Vfat, FilesystemKind::Exfat] {
                let mut found = Filesystem { kind, label: String::new() };
                found.first_folder(&head);
                found.take_label(&folder);
            }
            prop_assert!(probe_filesystem(&head).is_none_or(|found| found.label.len() <= 3 * 32));
        }
    }
}
