//! A store inside the process, in memory or backed by one database file.
//!
//! ```text
//!   create, update, delete, compact ──▶ bounded queue ──▶ writer task ──▶ journal (file) ──▶ history ──▶ revision
//!   get, range ◀────────────────────────────────────────────────────────────────────────── history        │
//!   watch ◀── pulls from history whenever it is polled and the revision has moved ◀────────────────────────┘
//! ```
//!
//! Reads take a short lock and share the stored bytes. A watch holds no buffer: it remembers the revision it needs
//! next, and one that sleeps past a compaction ends with [`Error::Compacted`]. The whole data set is in memory; the
//! file is read once, at the start.

mod history;
mod journal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::history::{EventLimit, History};
use self::journal::Journal;
use self::writer::{BATCH_LEN, GuardedWrite, Request, Writer};
use crate::model::{GetResult, RangeRequest, RangeResult, Revision, WriteResult};
use crate::watch::{ProgressHandle, WatchBatch, WatchRequest, WatchStream};
use crate::{Error, Result, Store};

/// Requests that wait for the writer; callers beyond that wait for room.
const QUEUE_LEN: usize = 4 * BATCH_LEN;

/// Key and value together: what etcd takes unless told otherwise.
const MAX_REQUEST_BYTES: usize = 3 << 19;

/// What a watcher gets at once, so that a far behind one does not hold the lock for long.
const WATCH_LIMIT: EventLimit = EventLimit { events: 1_000, bytes: 4 << 20 };

/// How to open an embedded store.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database file; without one everything is in memory only.
    pub path: Option<PathBuf>,
    /// How many bytes of superseded values may be kept before the older half is compacted without being asked.
    pub history_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: None, history_bytes: 64 << 20 }
    }
}

/// An open embedded store. The writer task ends when this is dropped or closed.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    head: watch::Receiver<Revision>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    history: RwLock<History>,
}

impl Embedded {
    /// Opens a store. Has to be called inside a tokio runtime.
    pub async fn open(config: Config) -> Result<Self> {
        let (journal, loaded) = match config.path {
            Some(path) => {
                let opened = tokio::task::spawn_blocking(move || Journal::open(&path)).await;
                let (journal, loaded) = opened.map_err(|_| Error::Closed)??;
                (Some(journal), Some(loaded))
            }
            None => (None, None),
        };
        let records = loaded.as_ref().map(|loaded| loaded.records.clone()).unwrap_or_default();
        let history = match loaded {
            Some(loaded) => History::restore(loaded.compacted, loaded.records)?,
            None => History::default(),
        };
        let (head_sender, head) = watch::channel(history.revision());
        let shared = Arc::new(Shared { history: RwLock::new(history) });
        let mut writer = Writer::new(Arc::clone(&shared), journal, head_sender, config.history_bytes);
        writer.resume_expiries(&records);
        let (requests, taken) = mpsc::channel(QUEUE_LEN);
        let writer = Mutex::new(Some(tokio::spawn(writer.run(taken))));
        Ok(Self { shared, requests, head, writer })
    }

    /// An empty store in memory.
    pub async fn in_memory() -> Result<Self> {
        Self::open(Config::default()).await
    }

    /// Ends the writer, after what was already asked of it, and lets go of the file. Later requests answer
    /// [`Error::Closed`], and running watches end with it.
    pub async fn close(&self) {
        // If the queue is closed already there is nothing to ask for.
        drop(self.requests.send(Request::Close).await);
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the embedded store failed");
        }
    }

    async fn write(&self, write: GuardedWrite) -> Result<WriteResult> {
        if write.key.len() + write.value.as_ref().map_or(0, Bytes::len) > MAX_REQUEST_BYTES {
            return Err(Error::TooLarge);
        }
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Write { write, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn check_open(&self) -> Result<()> {
        if self.requests.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<GetResult> {
        self.check_open()?;
        let history = self.shared.history.read();
        Ok(GetResult { kv: history.get(key, revision)?, revision: history.revision() })
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResult> {
        self.check_open()?;
        self.shared.history.read().range(&request)
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<WriteResult> {
        self.update(key, value, 0, ttl).await
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision, ttl: Option<Duration>) -> Result<WriteResult> {
        self.write(GuardedWrite { key, value: Some(value), expected, ttl }).await
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<WriteResult> {
        self.write(GuardedWrite { key, value: None, expected, ttl: None }).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        self.check_open()?;
        let next = match request.from_revision {
            0 => self.shared.history.read().revision() + 1,
            from => from,
        };
        let progress = ProgressHandle::default();
        let cursor = Cursor {
            shared: Arc::clone(&self.shared),
            head: self.head.clone(),
            prefix: request.prefix,
            next,
            progress: progress.clone(),
        };
        let batches = futures::stream::unfold(Some(cursor), |cursor| async move {
            let mut cursor = cursor?;
            match cursor.next_batch().await {
                Ok(batch) => Some((Ok(batch), Some(cursor))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(WatchStream::new(batches.boxed(), progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.check_open()?;
        Ok(self.shared.history.read().revision())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Compact { at: revision, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn health(&self) -> Result<()> {
        self.check_open()
    }
}

/// Where a watch stands.
struct Cursor {
    shared: Arc<Shared>,
    head: watch::Receiver<Revision>,
    prefix: Bytes,
    next: Revision,
    progress: ProgressHandle,
}

impl Cursor {
    async fn next_batch(&mut self) -> Result<WatchBatch> {
        let mut asked = false;
        loop {
            let head = *self.head.borrow_and_update();
            if self.next <= head {
                let (events, revision) = self.shared.history.read().events(&self.prefix, self.next, WATCH_LIMIT)?;
                self.next = revision + 1;
                return Ok(WatchBatch { events, revision });
            }
            // A watch from the future has nothing to report yet: it has not reached the revision before its first.
            if asked && self.next == head + 1 {
                return Ok(WatchBatch { events: Vec::new(), revision: head });
            }
            tokio::select! {
                changed = self.head.changed() => changed.map_err(|_| Error::Closed)?,
                () = self.progress.requested(), if !asked => asked = true,
            }
        }
    }
}

#[cfg(test)]
mod tests;
