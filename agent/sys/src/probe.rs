//! What file system a block device holds, from its first bytes.

/// How many bytes from the start of a device [`probe_filesystem`] needs.
pub const PROBE_BYTES: usize = 36 * 1024;

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
        }
    }

    /// The kernel's modules without which it cannot be mounted, if no device asked for them: itself, and the letters that
    /// it is written in.
    #[must_use]
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 | Self::Erofs => &[],
            Self::Iso9660 => &["nls_utf8", "isofs"],
            Self::Vfat => &["nls_cp437", "nls_ascii", "vfat"],
        }
    }
}

/// One kind: where its mark is, where its label is.
struct Mark {
    kind: FilesystemKind,
    offset: usize,
    bytes: &'static [u8],
    label: (usize, usize),
}

const MARKS: [Mark; 5] = [
    Mark { kind: FilesystemKind::Ext4, offset: 1024 + 56, bytes: &[0x53, 0xef], label: (1024 + 120, 16) },
    Mark { kind: FilesystemKind::Erofs, offset: 1024, bytes: &[0xe2, 0xe1, 0xf5, 0xe0], label: (1024 + 64, 16) },
    Mark { kind: FilesystemKind::Iso9660, offset: 32768 + 1, bytes: b"CD001", label: (32768 + 40, 32) },
    Mark { kind: FilesystemKind::Vfat, offset: 82, bytes: b"FAT32", label: (71, 11) },
    Mark { kind: FilesystemKind::Vfat, offset: 54, bytes: b"FAT1", label: (43, 11) },
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
/// Of an entry in a folder.
const ENTRY_BYTES: usize = 32;
/// So much of the first folder is looked through: the label is one of its first entries.
pub(crate) const FOLDER_BYTES: usize = 4096;

impl Filesystem {
    /// Where a FAT keeps its first folder, counted from the start of the device, if the label has to be looked for there.
    ///
    /// Source: Microsoft's "FAT: General Overview of On-Disk Format", section "Boot Sector and BPB".
    pub(crate) fn first_folder(&self, head: &[u8]) -> Option<u64> {
        if self.kind != FilesystemKind::Vfat || !NO_LABEL.contains(&self.label.as_str()) {
            return None;
        }
        let short = |at: usize| Some(u64::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
        let long = |at: usize| Some(u64::from(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)));
        let (sector, cluster, tables) = (short(11)?, u64::from(*head.get(13)?), u64::from(*head.get(16)?));
        let (of_table, first) = match short(22)? {
            0 => (long(36)?, long(44)?.checked_sub(2)? * cluster),
            of_table => (of_table, 0),
        };
        Some((short(14)? + tables * of_table + first) * sector)
    }

    /// Takes the label from a FAT's first folder, if it has one there.
    pub(crate) fn take_label(&mut self, folder: &[u8]) {
        const IS_LABEL: u8 = 0x08;
        const IS_FOLDER: u8 = 0x10;
        const IS_LONG_NAME: u8 = 0x0f;
        const DELETED: u8 = 0xe5;
        let mut entries = folder.chunks_exact(ENTRY_BYTES).take_while(|entry| entry[0] != 0);
        let label = entries.find(|entry| {
            let kind = entry[11];
            entry[0] != DELETED && kind & (IS_LABEL | IS_FOLDER) == IS_LABEL && kind & IS_LONG_NAME != IS_LONG_NAME
        });
        if let Some(label) = label {
            String::from_utf8_lossy(&label[..11]).trim_end().clone_into(&mut self.label);
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn labels_are_read_from_their_places() {
        for mark in MARKS {
            let mut head = vec![0_u8; PROBE_BYTES];
            head[mark.offset..mark.offset + mark.bytes.len()].copy_from_slice(mark.bytes);
            head[mark.label.0..mark.label.0 + 8].copy_from_slice(b"KEELSON ");
            let found = probe_filesystem(&head).unwrap();
            assert_eq!((found.kind, found.label.as_str()), (mark.kind, "KEELSON"));
        }
        assert_eq!(probe_filesystem(&[0; PROBE_BYTES]), None);
        assert_eq!(probe_filesystem(&[]), None);
    }
}
