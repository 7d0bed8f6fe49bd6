//! Keys, values, requests and answers.

use bytes::Bytes;

/// A point in a store's history. 0 stands for "none" where a request or a guard can do without.
pub type Revision = i64;

/// A key with its value and history marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision of the last write to the key.
    pub mod_revision: Revision,
    /// How many writes the key has seen since its creation, which is 1.
    pub version: i64,
}

/// An answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResult {
    /// The key, if it existed.
    pub kv: Option<KeyValue>,
    /// The store's revision when it answered, which is not the revision asked for.
    pub revision: Revision,
}

/// Which keys to read, and how much of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key.
    pub start: Bytes,
    /// The key to stop before; empty means to the last key.
    pub end: Bytes,
    /// The most keys to return; 0 means all.
    pub limit: usize,
    /// The revision to read at; `None` means now.
    pub revision: Option<Revision>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return only the count.
    pub count_only: bool,
}

impl RangeRequest {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end, ..Self::default() }
    }

    /// The same at a revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same with at most `limit` keys.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// An answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys in byte order.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys the range holds, the limit aside.
    pub count: usize,
    /// The store's revision when it answered. A later read at this revision continues this one.
    pub revision: Revision,
}

/// What became of a guarded write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It happened.
    Committed {
        /// The revision it took.
        revision: Revision,
    },
    /// The guard did not hold, and nothing happened.
    Conflict {
        /// The key as it is now, if it exists.
        current: Option<KeyValue>,
        /// The store's revision when it answered.
        revision: Revision,
    },
}

impl WriteResult {
    /// The revision of a write that happened.
    #[must_use]
    pub fn committed(&self) -> Option<Revision> {
        match self {
            Self::Committed { revision } => Some(*revision),
            Self::Conflict { .. } => None,
        }
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted, or its time ran out.
    Delete,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the event. Of a deletion only the key and the revision of the deletion are meaningful.
    pub kv: KeyValue,
    /// The key before the event; `None` if it did not exist or was compacted away.
    pub previous: Option<KeyValue>,
}

/// The key to stop before in order to read all keys that begin with `prefix`; empty if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn prefix_end_is_the_next_key_after_the_prefix() {
        for (prefix, end) in
            [(&b"/registry/"[..], &b"/registry0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b""), (b"", b"")]
        {
            assert_eq!(prefix_end(prefix), end);
        }
    }
}
