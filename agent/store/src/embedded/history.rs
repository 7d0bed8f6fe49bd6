//! The keys and their versions since the last compaction; pure.
//!
//! Every write has a revision of its own, so the log of revisions is a queue of keys without gaps, and an event is
//! made when somebody asks for it: from the version at that revision and the one before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::model::{Event, EventKind, KeyValue, RangeRequest, RangeResult, Revision, WriteResult};
use crate::{Error, Result};

/// What a version costs beside its key and value.
const VERSION_OVERHEAD_BYTES: usize = 64;

/// One write, as it is applied and as it lies in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Bytes,
    /// `None` is a deletion.
    pub(super) value: Option<Bytes>,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) version: i64,
    /// When the key goes away, in milliseconds since the Unix epoch.
    pub(super) expires_at: Option<u64>,
}

struct Version {
    value: Option<Bytes>,
    create_revision: Revision,
    mod_revision: Revision,
    version: i64,
}

impl Version {
    fn size(&self) -> usize {
        VERSION_OVERHEAD_BYTES + self.value.as_ref().map_or(0, Bytes::len)
    }

    fn kv(&self, key: &Bytes) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        })
    }
}

/// All that can be read.
pub(super) struct History {
    revision: Revision,
    /// The oldest revision that can be read; 0 before the first compaction.
    compacted: Revision,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// The key written at `log_start`, `log_start + 1`, and so on up to `revision`.
    log: VecDeque<Bytes>,
    log_start: Revision,
    superseded_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_start: 2,
            superseded_bytes: 0,
        }
    }
}

impl History {
    /// A history that begins at `compacted`: what was left of earlier revisions, then every later record.
    pub(super) fn restore(compacted: Revision, records: Vec<Record>) -> Result<Self> {
        let mut history = Self { compacted, log_start: compacted.max(2), ..Self::default() };
        history.revision = history.log_start - 1;
        for record in records {
            if record.mod_revision < history.log_start {
                history.insert(record);
            } else if record.mod_revision == history.revision + 1 {
                history.apply(record);
            } else {
                return Err(Error::BrokenRow { revision: record.mod_revision });
            }
        }
        Ok(history)
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn superseded_bytes(&self) -> usize {
        self.superseded_bytes
    }

    /// The revision in the middle of what is logged, to compact at when history takes too much memory.
    pub(super) fn middle(&self) -> Option<Revision> {
        let half = Revision::try_from(self.log.len().div_ceil(2)).ok()?;
        (half > 0).then(|| (self.log_start + half).min(self.revision)).filter(|&at| at > self.compacted)
    }

    pub(super) fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Option<KeyValue>> {
        let at = self.readable(revision)?;
        Ok(self.keys.get_key_value(key).and_then(|(key, versions)| version_at(versions, at)?.kv(key)))
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResult> {
        let at = self.readable(request.revision)?;
        let mut result = RangeResult { revision: self.revision, ..RangeResult::default() };
        if !request.end.is_empty() && request.end <= request.start {
            return Ok(result);
        }
        let end = if request.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&request.end[..]) };
        for (key, versions) in self.keys.range::<[u8], _>((Bound::Included(&request.start[..]), end)) {
            let Some(version) = version_at(versions, at) else { continue };
            let Some(mut kv) = version.kv(key) else { continue };
            result.count += 1;
            if request.count_only {
                continue;
            }
            if request.limit > 0 && result.kvs.len() >= request.limit {
                result.more = true;
                continue;
            }
            if request.keys_only {
                kv.value = Bytes::new();
            }
            result.kvs.push(kv);
        }
        Ok(result)
    }

    /// Events from `from` on, as far as `max_events` and `max_bytes` allow (but at least one revision), and the
    /// revision they reach.
    pub(super) fn events(&self, prefix: &[u8], from: Revision, limit: EventLimit) -> Result<(Vec<Event>, Revision)> {
        if from < self.compacted {
            return Err(Error::Compacted { at: Some(self.compacted) });
        }
        let mut events = Vec::new();
        let mut bytes = 0;
        let skip = usize::try_from(from - self.log_start).unwrap_or(0);
        let mut revision = self.log_start.saturating_add(Revision::try_from(skip).unwrap_or(0));
        for key in self.log.iter().skip(skip) {
            if key.starts_with(prefix)
                && let Some(event) = self.event(key, revision)
            {
                bytes += event.kv.value.len();
                events.push(event);
            }
            revision += 1;
            if events.len() >= limit.events || bytes >= limit.bytes {
                return Ok((events, revision - 1));
            }
        }
        Ok((events, self.revision))
    }

    fn event(&self, key: &Bytes, revision: Revision) -> Option<Event> {
        let versions = self.keys.get(key)?;
        let index = versions.binary_search_by_key(&revision, |version| version.mod_revision).ok()?;
        let previous = index.checked_sub(1).and_then(|before| versions.get(before)?.kv(key));
        // What lies before the compacted revision cannot be read any more, not even from here.
        let previous = previous.filter(|_| revision > self.compacted);
        let version = versions.get(index)?;
        let (kind, kv) = match version.kv(key) {
            Some(kv) => (EventKind::Put, kv),
            None => (EventKind::Delete, tombstone(key, revision)),
        };
        Some(Event { kind, kv, previous })
    }

    /// Takes over a record whose revision is the next one.
    pub(super) fn apply(&mut self, record: Record) {
        debug_assert_eq!(record.mod_revision, self.revision + 1);
        self.revision = record.mod_revision;
        self.log.push_back(record.key.clone());
        self.insert(record);
    }

    fn insert(&mut self, record: Record) {
        let versions = self.keys.entry(record.key).or_default();
        self.superseded_bytes += versions.last().map_or(0, Version::size);
        versions.push(Version {
            value: record.value,
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            version: record.version,
        });
        // A history mostly has one version per key: do not keep room for four.
        if versions.len() == 1 {
            versions.shrink_to_fit();
        }
    }

    /// The revisions whose records a compaction at `at` makes superfluous.
    pub(super) fn plan_compaction(&self, at: Revision) -> Result<Vec<Revision>> {
        if at <= self.compacted {
            return Err(Error::Compacted { at: Some(self.compacted) });
        }
        if at > self.revision {
            return Err(Error::FutureRevision);
        }
        let mut removed = Vec::new();
        for (_, versions) in self.touched_until(at) {
            removed.extend(superfluous(versions, at).iter().map(|version| version.mod_revision));
        }
        removed.sort_unstable();
        Ok(removed)
    }

    /// Forgets what [`Self::plan_compaction`] named.
    pub(super) fn compact(&mut self, at: Revision) {
        let touched: Vec<Bytes> = self.touched_until(at).map(|(key, _)| key.clone()).collect();
        for key in touched {
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            let gone = superfluous(versions, at).len();
            let was_last = gone == versions.len();
            let freed: usize = versions.drain(..gone).map(|version| version.size()).sum();
            self.superseded_bytes = self.superseded_bytes.saturating_sub(freed);
            if was_last {
                self.keys.remove(&key);
            }
        }
        while self.log_start < at && self.log.pop_front().is_some() {
            self.log_start += 1;
        }
        self.compacted = at;
    }

    fn touched_until(&self, at: Revision) -> impl Iterator<Item = (&Bytes, &Vec<Version>)> {
        let until = usize::try_from(at - self.log_start + 1).unwrap_or(0).min(self.log.len());
        let keys: std::collections::BTreeSet<&Bytes> = self.log.range(..until).collect();
        keys.into_iter().filter_map(|key| self.keys.get_key_value(key))
    }

    fn readable(&self, revision: Option<Revision>) -> Result<Revision> {
        match revision {
            None | Some(0) => Ok(self.revision),
            Some(at) if at > self.revision => Err(Error::FutureRevision),
            Some(at) if at < self.compacted => Err(Error::Compacted { at: Some(self.compacted) }),
            Some(at) => Ok(at),
        }
    }
}

/// How much a watcher takes at once.
#[derive(Clone, Copy)]
pub(super) struct EventLimit {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

fn version_at(versions: &[Version], at: Revision) -> Option<&Version> {
    let after = versions.partition_point(|version| version.mod_revision <= at);
    versions.get(after.checked_sub(1)?)
}

/// The versions that nobody can read once history begins at `at`. The one written at `at` itself stays, even a
/// deletion: a watch may begin there.
fn superfluous(versions: &[Version], at: Revision) -> &[Version] {
    let until = versions.partition_point(|version| version.mod_revision <= at);
    match until.checked_sub(1).and_then(|last| versions.get(last)) {
        Some(last) if last.value.is_none() && last.mod_revision < at => &versions[..until],
        Some(_) => &versions[..until - 1],
        None => &[],
    }
}

fn tombstone(key: &Bytes, revision: Revision) -> KeyValue {
    KeyValue { key: key.clone(), value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0 }
}

/// Writes that are decided but not yet durable, on top of a history that does not move meanwhile.
#[derive(Default)]
pub(super) struct Batch {
    /// The newest state of the keys in this batch.
    overlay: HashMap<Bytes, Option<KeyValue>>,
    records: Vec<Record>,
}

/// A guarded write.
pub(super) struct Write {
    pub(super) key: Bytes,
    /// `None` deletes.
    pub(super) value: Option<Bytes>,
    pub(super) expected: Revision,
    pub(super) expires_at: Option<u64>,
}

impl Batch {
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// Decides a write.
    pub(super) fn plan(&mut self, history: &History, write: Write) -> WriteResult {
        let revision = history.revision + Revision::try_from(self.records.len()).unwrap_or(Revision::MAX / 2);
        let current = self.latest(history, &write.key);
        let holds = current.as_ref().map_or(0, |kv| kv.mod_revision) == write.expected;
        if !holds || (write.value.is_none() && current.is_none()) {
            return WriteResult::Conflict { current, revision };
        }
        let next = revision + 1;
        let record = Record {
            create_revision: current.as_ref().map_or(next, |kv| kv.create_revision),
            mod_revision: next,
            version: current.as_ref().map_or(1, |kv| kv.version + 1),
            expires_at: write.expires_at,
            key: write.key,
            value: write.value,
        };
        let state = record.value.as_ref().map(|value| KeyValue {
            key: record.key.clone(),
            value: value.clone(),
            create_revision: record.create_revision,
            mod_revision: next,
            version: record.version,
        });
        self.overlay.insert(record.key.clone(), state);
        self.records.push(record);
        WriteResult::Committed { revision: next }
    }

    fn latest(&self, history: &History, key: &Bytes) -> Option<KeyValue> {
        match self.overlay.get(key) {
            Some(state) => state.clone(),
            None => history.keys.get(key).and_then(|versions| versions.last()?.kv(key)),
        }
    }
}
