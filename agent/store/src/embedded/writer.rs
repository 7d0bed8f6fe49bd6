//! The one task that changes an embedded store: collects writes, makes them durable together, then shows them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Shared;
use super::history::{Batch, Record, Write};
use super::journal::Journal;
use crate::model::{Revision, WriteResult};
use crate::{Error, Result};

/// The most writes made durable together; more gain nothing, since one sync is already spread over them.
pub(super) const BATCH_LEN: usize = 256;

/// What the writer is asked for.
pub(super) enum Request {
    Write { write: GuardedWrite, reply: oneshot::Sender<Result<WriteResult>> },
    Compact { at: Revision, reply: oneshot::Sender<Result<()>> },
    Close,
}

/// A write before its time to live is turned into a time.
pub(super) struct GuardedWrite {
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
    pub(super) expected: Revision,
    pub(super) ttl: Option<Duration>,
}

/// A key to delete at a time, unless it was written again.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Expiry {
    at: Instant,
    key: Bytes,
    mod_revision: Revision,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Option<Arc<Journal>>,
    /// Readers hear of new revisions here, and of the end when it is dropped.
    head: watch::Sender<Revision>,
    history_bytes: usize,
    expiries: BinaryHeap<Reverse<Expiry>>,
}

type Replies = Vec<(oneshot::Sender<Result<WriteResult>>, WriteResult)>;

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Option<Journal>,
        head: watch::Sender<Revision>,
        history_bytes: usize,
    ) -> Self {
        Self { shared, journal: journal.map(Arc::new), head, history_bytes, expiries: BinaryHeap::new() }
    }

    /// Takes up the expiries of records that were loaded.
    pub(super) fn resume_expiries(&mut self, records: &[Record]) {
        for record in records {
            self.track_expiry(record);
        }
    }

    /// Serves until every handle is dropped or the store is closed.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut taken = Vec::with_capacity(BATCH_LEN);
        loop {
            let next_expiry = self.expiries.peek().map(|Reverse(expiry)| expiry.at);
            tokio::select! {
                biased;
                count = requests.recv_many(&mut taken, BATCH_LEN) => {
                    if count == 0 || !self.serve(&mut taken).await {
                        return;
                    }
                }
                () = sleep_until(next_expiry) => self.expire().await,
            }
            self.bound_history().await;
        }
    }

    /// Serves requests in order; false once asked to close.
    async fn serve(&mut self, taken: &mut Vec<Request>) -> bool {
        let mut batch = Batch::default();
        let mut replies = Replies::new();
        let mut open = true;
        for request in taken.drain(..) {
            match request {
                Request::Write { write, reply } => {
                    let write = Write {
                        expires_at: write.ttl.map(unix_millis_after),
                        key: write.key,
                        value: write.value,
                        expected: write.expected,
                    };
                    let result = batch.plan(&self.shared.history.read(), write);
                    replies.push((reply, result));
                }
                Request::Compact { at, reply } => {
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut replies)).await;
                    let result = self.compact(at).await;
                    // A caller that went away does not need to hear.
                    drop(reply.send(result));
                }
                Request::Close => open = false,
            }
        }
        self.commit(batch, replies).await;
        open
    }

    async fn commit(&mut self, batch: Batch, replies: Replies) {
        let outcome = self.make_durable(batch).await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "writes could not be made durable");
        }
        let mut failure = outcome.err();
        for (reply, result) in replies {
            // A guard may have been judged by a write of this very batch, so that a failure voids every result.
            let answer = match failure.take() {
                Some(error) => {
                    failure = Some(unavailable());
                    Err(error)
                }
                None => Ok(result),
            };
            // A caller that went away does not need to hear.
            drop(reply.send(answer));
        }
    }

    async fn make_durable(&mut self, batch: Batch) -> Result<()> {
        if batch.records().is_empty() {
            return Ok(());
        }
        let batch = match self.journal.clone() {
            Some(journal) => blocking(move || journal.append(batch.records()).map(|()| batch)).await?,
            None => batch,
        };
        let records = batch.into_records();
        for record in &records {
            self.track_expiry(record);
        }
        let revision = {
            let mut history = self.shared.history.write();
            for record in records {
                history.apply(record);
            }
            history.revision()
        };
        self.head.send_replace(revision);
        Ok(())
    }

    async fn compact(&mut self, at: Revision) -> Result<()> {
        let removed = self.shared.history.read().plan_compaction(at)?;
        if let Some(journal) = self.journal.clone() {
            blocking(move || journal.compact(at, &removed)).await?;
        }
        self.shared.history.write().compact(at);
        Ok(())
    }

    /// Gives up the older half of the history while it is larger than allowed.
    async fn bound_history(&mut self) {
        loop {
            let at = {
                let history = self.shared.history.read();
                if history.superseded_bytes() <= self.history_bytes {
                    return;
                }
                history.middle()
            };
            let Some(at) = at else { return };
            if let Err(error) = self.compact(at).await {
                tracing::error!(%error, "history could not be shortened");
                return;
            }
        }
    }

    fn track_expiry(&mut self, record: &Record) {
        let Some(expires_at) = record.expires_at else { return };
        let left = Duration::from_millis(expires_at.saturating_sub(unix_millis()));
        let expiry = Expiry { at: Instant::now() + left, key: record.key.clone(), mod_revision: record.mod_revision };
        self.expiries.push(Reverse(expiry));
    }

    async fn expire(&mut self) {
        let now = Instant::now();
        let mut batch = Batch::default();
        while let Some(Reverse(next)) = self.expiries.peek() {
            if next.at > now || batch.records().len() >= BATCH_LEN {
                break;
            }
            let Some(Reverse(due)) = self.expiries.pop() else { break };
            let write = Write { key: due.key, value: None, expected: due.mod_revision, expires_at: None };
            // A key that was written or deleted meanwhile does not pass the guard, and stays as it is.
            batch.plan(&self.shared.history.read(), write);
        }
        self.commit(batch, Replies::new()).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // A panic in the database leaves nothing to go on with; say so to every caller.
    tokio::task::spawn_blocking(work).await.map_err(|_| unavailable())?
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn unavailable() -> Error {
    Error::Unavailable { reason: "the database file could not be written".to_owned() }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn unix_millis_after(ttl: Duration) -> u64 {
    unix_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}
