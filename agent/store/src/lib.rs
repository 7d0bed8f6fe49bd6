//! Revisioned keys and bytes with watch: etcd and embedded implementations of one trait.
//!
//! A store holds keys in byte order under one revision counter. Every successful write takes the next revision, and
//! every write is guarded by the revision that its caller last saw, so that two writers can never overwrite one
//! another unseen. History since the last compaction can be read and watched; what lies before answers
//! [`Error::Compacted`].
//!
//! Invariants that both implementations keep and the conformance tests check:
//! - revisions start at 1 in an empty store and only grow;
//! - a watch delivers every event of its range exactly once, in revision order, and never half a revision;
//! - a failed guard returns the key as it is now, in the same round trip;
//! - nothing waits without a deadline and nothing buffers without a bound.
//!
//! This crate knows no kinds, no encodings and no key layout. Only it speaks etcd on behalf of the API server.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compactor;
#[cfg(test)]
mod conformance;
pub mod embedded;
mod error;
pub mod etcd;
mod model;
mod rebased;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use compactor::{COMPACT_REV_KEY, run_compactor};
pub use embedded::Embedded;
pub use error::Error;
pub use etcd::Etcd;
pub use model::{Event, EventKind, GetResult, KeyValue, RangeRequest, RangeResult, Revision, WriteResult, prefix_end};
pub use rebased::Rebased;
pub use watch::{ProgressHandle, WatchBatch, WatchRequest, WatchStream};

/// What a store answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Revisioned keys and bytes.
///
/// Reads without a revision are linearizable: they see every write that was acknowledged before they began. All
/// methods are cancel safe in the sense that dropping the future leaks nothing; a dropped write may or may not have
/// happened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The key as it was at `revision`, or as it is now.
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<GetResult>;

    /// Keys of a range in byte order.
    async fn range(&self, request: RangeRequest) -> Result<RangeResult>;

    /// Writes a key that must not exist. With a `ttl` the key goes away by itself some time after that.
    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<WriteResult>;

    /// Writes a key whose last modification must be `expected`. An `expected` of 0 means that it must not exist.
    async fn update(&self, key: Bytes, value: Bytes, expected: Revision, ttl: Option<Duration>) -> Result<WriteResult>;

    /// Deletes a key whose last modification must be `expected`.
    async fn delete(&self, key: Bytes, expected: Revision) -> Result<WriteResult>;

    /// Follows the events of a prefix. Errors come through the stream, which ends after the first one; only one that
    /// makes the request itself impossible is returned here.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream>;

    /// The revision of the last acknowledged write (linearizable).
    async fn current_revision(&self) -> Result<Revision>;

    /// Forgets the history before `revision`, which itself stays readable.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Whether reads and writes can be served now.
    async fn health(&self) -> Result<()>;

    /// Bytes that the database takes on the member that answers; none where nobody tells.
    async fn size(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Whether something encrypts values that can fall ill, or may soon.
    fn is_encrypted_by_others(&self) -> bool {
        false
    }

    /// Whether what encrypts values is well, and why not.
    async fn encryption_health(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Whether a key's value lies there in another form than it would be written in now, so that writing the same again
    /// is not in vain.
    async fn is_stale(&self, _key: &[u8]) -> Result<bool> {
        Ok(false)
    }
}
