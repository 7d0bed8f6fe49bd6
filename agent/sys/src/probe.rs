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

#[cfg(test)]
mod tests {
    use super::*;

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
