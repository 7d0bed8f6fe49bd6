//! Just enough of bbolt's file format to make a snapshot the beginning of another cluster.
//!
//! A snapshot remembers who was a member and how far that cluster's log went; etcd would skip everything that a new
//! log brings up to there. Both are changed in place: numbers of fixed size are overwritten, and lists are emptied by
//! saying that their page has no entries. Keys, values and revisions stay as they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Error;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: u64 = 16;
/// Up to the checksum.
const META_BYTES: usize = 56;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const IS_BUCKET: u32 = 1;
const ELEMENT: u64 = 16;
const BUCKET_HEADER: u64 = 16;
/// Deeper than any tree that 64 bits can address.
const DEPTH: usize = 32;
/// What is forgotten: who was there, and the alarms of those.
const FORGOTTEN: [&str; 4] = ["members", "members_removed", "cluster", "alarm"];

/// Lets a database forget the cluster that it comes from.
///
/// # Errors
/// When it is no database of etcd's.
pub(crate) fn forget_cluster(file: &File) -> Result<(), Error> {
    let database = Database::open(file)?;
    for name in FORGOTTEN {
        if let Some(bucket) = database.find(database.root, name.as_bytes())? {
            database.empty(&bucket)?;
        }
    }
    let meta = database.find(database.root, b"meta")?.ok_or(Error::Database("it has no bucket `meta`"))?;
    let page = database.page_of(&meta)?;
    for name in ["consistent_index", "term"] {
        match database.find(page, name.as_bytes())? {
            Some(value) if value.bytes == 8 => database.write(value.offset, &[0; 8])?,
            Some(_) => return Err(Error::Database("a number in the bucket `meta` has another size")),
            // Databases of etcd before 3.5 have no term.
            None if name == "term" => {}
            None => return Err(Error::Database("it does not say how far its log went")),
        }
    }
    Ok(())
}

struct Database<'a> {
    file: &'a File,
    page_bytes: u64,
    /// Offset of the root bucket's page.
    root: u64,
}

/// Where the value of a key is.
struct Value {
    offset: u64,
    bytes: u64,
    is_bucket: bool,
}

impl<'a> Database<'a> {
    fn open(file: &'a File) -> Result<Self, Error> {
        let mut probe = Self { file, page_bytes: 0, root: 0 };
        // The second of the two is at the size of a page, which the first one says, or which is the usual one.
        let first = probe.meta(0);
        let page_bytes = first.as_ref().map_or(4096, |meta| meta.page_bytes);
        let newest = [first, probe.meta(page_bytes)].into_iter().flatten().max_by_key(|meta| meta.transaction);
        let newest = newest.ok_or(Error::Database("neither of its two headers is good"))?;
        probe.page_bytes = newest.page_bytes;
        probe.root = newest.root.checked_mul(newest.page_bytes).ok_or(Error::Database("its root is nowhere"))?;
        Ok(probe)
    }

    fn meta(&self, page: u64) -> Option<Meta> {
        let mut bytes = [0; META_BYTES + 8];
        self.file.read_exact_at(&mut bytes, page + PAGE_HEADER).ok()?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let is_good = u32_at(0) == MAGIC && u32_at(4) == VERSION && u64_at(META_BYTES) == fnv(&bytes[..META_BYTES]);
        let page_bytes = u64::from(u32_at(8));
        let is_sane = page_bytes.is_power_of_two() && (1024..=1 << 20).contains(&page_bytes);
        (is_good && is_sane).then(|| Meta { page_bytes, root: u64_at(16), transaction: u64_at(48) })
    }

    /// Finds a key below the page at an offset.
    fn find(&self, mut page: u64, key: &[u8]) -> Result<Option<Value>, Error> {
        for _ in 0..DEPTH {
            let (flags, count) = self.header(page)?;
            match flags {
                LEAF => return self.find_in_leaf(page, count, key),
                BRANCH => {
                    let mut below = None;
                    for index in 0..count {
                        let element = page + PAGE_HEADER + index * ELEMENT;
                        let (position, length) = (self.u32_at(element)?, self.u32_at(element + 4)?);
                        if index > 0 && self.bytes_at(element + position, length)?.as_slice() > key {
                            break;
                        }
                        below = Some(self.u64_at(element + 8)?);
                    }
                    let below = below.ok_or(Error::Database("a branch without children"))?;
                    page = below.checked_mul(self.page_bytes).ok_or(Error::Database("a page is nowhere"))?;
                }
                _ => return Err(Error::Database("a page is neither branch nor leaf")),
            }
        }
        Err(Error::Database("its tree is too deep"))
    }

    fn find_in_leaf(&self, page: u64, count: u64, key: &[u8]) -> Result<Option<Value>, Error> {
        for index in 0..count {
            let element = page + PAGE_HEADER + index * ELEMENT;
            let (flags, position) = (self.u32_at(element)?, self.u32_at(element + 4)?);
            let (key_bytes, bytes) = (self.u32_at(element + 8)?, self.u32_at(element + 12)?);
            if key_bytes == key.len() as u64 && self.bytes_at(element + position, key_bytes)? == key {
                let is_bucket = flags & u64::from(IS_BUCKET) != 0;
                return Ok(Some(Value { offset: element + position + key_bytes, bytes, is_bucket }));
            }
        }
        Ok(None)
    }

    /// The offset of a bucket's first page, which small buckets have within them.
    fn page_of(&self, bucket: &Value) -> Result<u64, Error> {
        if !bucket.is_bucket || bucket.bytes < BUCKET_HEADER {
            return Err(Error::Database("a bucket is none"));
        }
        match self.u64_at(bucket.offset)? {
            0 => Ok(bucket.offset + BUCKET_HEADER),
            page => page.checked_mul(self.page_bytes).ok_or(Error::Database("a bucket is nowhere")),
        }
    }

    /// Says that a bucket has no entries.
    fn empty(&self, bucket: &Value) -> Result<(), Error> {
        let page = self.page_of(bucket)?;
        self.header(page)?;
        let mut nothing = [0; 4];
        nothing[..2].copy_from_slice(&LEAF.to_le_bytes());
        self.write(page + 8, &nothing)
    }

    /// What kind of page, and of how many elements.
    fn header(&self, page: u64) -> Result<(u16, u64), Error> {
        let bytes = self.bytes_at(page + 8, 4)?;
        let flags = u16::from_le_bytes([bytes[0], bytes[1]]);
        Ok((flags, u64::from(u16::from_le_bytes([bytes[2], bytes[3]]))))
    }

    fn u32_at(&self, offset: u64) -> Result<u64, Error> {
        let bytes = self.bytes_at(offset, 4)?;
        Ok(u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default())))
    }

    fn u64_at(&self, offset: u64) -> Result<u64, Error> {
        let bytes = self.bytes_at(offset, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn bytes_at(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        /// No key that is looked for, and none beside it, is longer.
        const MOST: u64 = 64 << 10;
        if length > MOST {
            return Err(Error::Database("a key is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Database("it is cut short")),
            Err(source) => Err(Error::File { step: "read", path: "the database".into(), source }),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).map_err(Error::file("change", "the database"))
    }
}

struct Meta {
    page_bytes: u64,
    root: u64,
    transaction: u64,
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_no_database_is_refused() {
        for content in [Vec::new(), vec![0; 100], vec![0xff; 64 << 10]] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            assert!(matches!(forget_cluster(&file), Err(Error::Database(_))));
        }
    }

    #[test]
    fn the_checksum_is_fnv() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
