//! The database file: one row per record that can still be read, and where history begins.

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::history::Record;
use crate::model::Revision;
use crate::{Error, Result};

const RECORDS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("records");
const MARKS: TableDefinition<'_, &str, i64> = TableDefinition::new("marks");
const COMPACTED: &str = "compacted";

/// Pages are read once at start, so a big page cache would only hold memory.
const CACHE_BYTES: usize = 4 << 20;

/// The file of a store.
pub(super) struct Journal(Database);

/// What a file held.
pub(super) struct Loaded {
    pub(super) compacted: Revision,
    pub(super) records: Vec<Record>,
}

impl Journal {
    /// Opens or makes a file and reads it.
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded)> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(at("open"))?;
        let journal = Self(database);
        journal.write(|_, _| Ok(()))?;
        let loaded = journal.load()?;
        Ok((journal, loaded))
    }

    fn load(&self) -> Result<Loaded> {
        let transaction = self.0.begin_read().map_err(at("begin"))?;
        let marks = transaction.open_table(MARKS).map_err(at("open table"))?;
        let mark = |name| Ok::<_, Error>(marks.get(name).map_err(at("read"))?.map(|value| value.value()));
        let mut loaded = Loaded { compacted: mark(COMPACTED)?.unwrap_or(0), records: Vec::new() };
        let rows = transaction.open_table(RECORDS).map_err(at("open table"))?;
        for row in rows.iter().map_err(at("read"))? {
            let (revision, row) = row.map_err(at("read"))?;
            let revision = revision.value();
            loaded.records.push(decode(revision, row.value()).ok_or(Error::BrokenRow { revision })?);
        }
        Ok(loaded)
    }

    /// Makes records durable, all or none.
    pub(super) fn append(&self, records: &[Record]) -> Result<()> {
        self.write(|rows, _| {
            for record in records {
                rows.insert(record.mod_revision, &encode(record)[..])?;
            }
            Ok(())
        })
    }

    /// Makes a compaction durable.
    pub(super) fn compact(&self, compacted: Revision, removed: &[Revision]) -> Result<()> {
        self.write(|rows, marks| {
            for revision in removed {
                rows.remove(revision)?;
            }
            marks.insert(COMPACTED, compacted)?;
            Ok(())
        })
    }

    fn write(
        &self,
        change: impl FnOnce(
            &mut redb::Table<'_, i64, &'static [u8]>,
            &mut redb::Table<'_, &'static str, i64>,
        ) -> std::result::Result<(), redb::StorageError>,
    ) -> Result<()> {
        let transaction = self.0.begin_write().map_err(at("begin"))?;
        {
            let mut rows = transaction.open_table(RECORDS).map_err(at("open table"))?;
            let mut marks = transaction.open_table(MARKS).map_err(at("open table"))?;
            change(&mut rows, &mut marks).map_err(at("write"))?;
        }
        transaction.commit().map_err(at("commit"))
    }
}

fn at<E: Into<redb::Error>>(step: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Database { step, source: Box::new(error.into()) }
}

const TOMBSTONE: u8 = 0;
const LIVE: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 4;

fn encode(record: &Record) -> BytesMut {
    let value = record.value.as_deref().unwrap_or_default();
    let mut row = BytesMut::with_capacity(HEAD_BYTES + record.key.len() + value.len());
    row.put_u8(if record.value.is_some() { LIVE } else { TOMBSTONE });
    row.put_i64(record.create_revision);
    row.put_i64(record.version);
    row.put_u64(record.expires_at.unwrap_or(0));
    // Keys are limited to the size of a request long before this.
    row.put_u32(u32::try_from(record.key.len()).unwrap_or(u32::MAX));
    row.put_slice(&record.key);
    row.put_slice(value);
    row
}

fn decode(revision: Revision, mut row: &[u8]) -> Option<Record> {
    if row.len() < HEAD_BYTES {
        return None;
    }
    let live = match row.get_u8() {
        LIVE => true,
        TOMBSTONE => false,
        _ => return None,
    };
    let create_revision = row.get_i64();
    let version = row.get_i64();
    let expires_at = Some(row.get_u64()).filter(|&at| at > 0);
    let key_len = usize::try_from(row.get_u32()).ok()?;
    let (key, value) = row.split_at_checked(key_len)?;
    Some(Record {
        key: Bytes::copy_from_slice(key),
        value: live.then(|| Bytes::copy_from_slice(value)),
        create_revision,
        mod_revision: revision,
        version,
        expires_at,
    })
}
