//! The stream a watch returns.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::sync::Notify;

use crate::Result;
use crate::model::{Event, Revision};

/// What to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Keys that begin with this.
    pub prefix: Bytes,
    /// The first revision whose events are wanted; 0 means those after now.
    pub from_revision: Revision,
}

/// Events in revision order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The events; none in a pure notice of progress.
    pub events: Vec<Event>,
    /// Every event of the watched prefix up to and including this revision has now been delivered.
    pub revision: Revision,
}

/// Asks a watch to report how far it has come. Clones ask the same watch.
#[derive(Clone, Debug, Default)]
pub struct ProgressHandle(Arc<Notify>);

impl ProgressHandle {
    /// Makes the watch send a batch, with or without events, soon. Requests that come close together are answered
    /// by one batch. The store may report a revision older than the current one; ask again then.
    pub fn request(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn requested(&self) {
        self.0.notified().await;
    }
}

/// A running watch. It does work only while polled and ends when dropped.
pub struct WatchStream {
    batches: BoxStream<'static, Result<WatchBatch>>,
    progress: ProgressHandle,
}

impl WatchStream {
    /// A watch over batches that come from elsewhere: of another store, or one that fails on purpose.
    #[must_use]
    pub fn new(batches: BoxStream<'static, Result<WatchBatch>>, progress: ProgressHandle) -> Self {
        Self { batches, progress }
    }

    /// The same watch with every batch changed on its way, in order.
    #[must_use]
    pub fn then<F>(self, mut change: impl FnMut(WatchBatch) -> F + Send + 'static) -> Self
    where
        F: Future<Output = WatchBatch> + Send + 'static,
    {
        let changed = self.batches.then(move |batch| {
            let work = batch.map(&mut change);
            async move {
                match work {
                    Ok(work) => Ok(work.await),
                    Err(error) => Err(error),
                }
            }
        });
        Self { batches: changed.boxed(), progress: self.progress }
    }

    /// A handle that asks this watch for its progress.
    #[must_use]
    pub fn progress(&self) -> ProgressHandle {
        self.progress.clone()
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(cx)
    }
}
