//! What can go wrong, told apart by what the caller can do about it.

use crate::model::Revision;

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is older than the history that is kept.
    #[error("the revision asked for has been compacted")]
    Compacted {
        /// The oldest revision that can still be read, where the store said so.
        at: Option<Revision>,
    },
    /// The revision asked for does not exist yet.
    #[error("the revision asked for lies in the future")]
    FutureRevision,
    /// No store could be reached, or the ones reached cannot serve. A write may or may not have happened.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What the last endpoint tried said.
        reason: String,
    },
    /// No answer in time. A write may or may not have happened.
    #[error("the store did not answer `{operation}` in time")]
    Timeout {
        /// The operation that was waited for.
        operation: &'static str,
    },
    /// The key and value together are larger than the store takes.
    #[error("the request is too large for the store")]
    TooLarge,
    /// The store is out of space and takes no more writes.
    #[error("the store is out of space")]
    NoSpace,
    /// The store has too much work queued and refused more.
    #[error("the store has too many requests to serve")]
    Overloaded,
    /// The store does not accept our credentials or does not let them do this.
    #[error("the store refused our credentials: {reason}")]
    Unauthenticated {
        /// What the store said.
        reason: String,
    },
    /// The store answered something that its protocol does not allow.
    #[error("the store broke its protocol: {reason}")]
    Protocol {
        /// What was wrong.
        reason: String,
    },
    /// The settings to reach the store make no sense.
    #[error("the store's settings are wrong: {reason}")]
    Settings {
        /// What is wrong with them.
        reason: String,
    },
    /// A value could not be encrypted.
    #[error("the value of {key} could not be encrypted: {reason}")]
    Encrypt {
        /// The key that it was to lie under.
        key: String,
        /// Why.
        reason: String,
    },
    /// The database file could not be read or written.
    #[error("the database file failed at {step}")]
    Database {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: Box<redb::Error>,
    },
    /// A row of the database file cannot be understood.
    #[error("the database file holds a broken row at revision {revision}")]
    BrokenRow {
        /// The revision of the row.
        revision: Revision,
    },
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}

impl Error {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. } | Self::Overloaded)
    }
}
