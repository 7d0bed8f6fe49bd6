//! A watch that survives the member it runs on.
//!
//! ```text
//!   Idle ──open──▶ Live ──message──▶ batch
//!    ▲              │
//!    └──back-off────┘ connection lost: open again on the next member, after the last revision delivered
//! ```
//! Only compaction, a refusal and a long absence of the whole cluster end it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{WatchOptions, WatchResponse, WatchStream as EtcdStream};
use tokio::time::Instant;

use super::endpoints::{Endpoints, Picked};
use super::refusal::Refusal;
use super::{MAX_MESSAGE_BYTES, key_value, or_zero};
use crate::model::{Event, EventKind, Revision, prefix_end};
use crate::watch::{ProgressHandle, WatchBatch};
use crate::{Error, Result};

/// How long a watch tries to come back before it tells its reader.
const RESUME_DEADLINE: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub(super) struct Follower {
    endpoints: Arc<Endpoints>,
    prefix: Bytes,
    /// The first revision not delivered yet.
    next: Revision,
    progress: ProgressHandle,
    live: Option<(Picked, EtcdStream)>,
    /// Events of a revision that came in several messages.
    partial: Vec<Event>,
}

impl Follower {
    pub(super) fn new(endpoints: Arc<Endpoints>, prefix: Bytes, next: Revision, progress: ProgressHandle) -> Self {
        Self { endpoints, prefix, next, progress, live: None, partial: Vec::new() }
    }

    /// The next batch, or the error that ends the watch.
    pub(super) async fn next_batch(&mut self) -> Result<WatchBatch> {
        loop {
            if self.live.is_none() {
                self.resume().await?;
            }
            let Some((picked, stream)) = &mut self.live else { continue };
            let message = tokio::select! {
                message = stream.message() => message,
                () = self.progress.requested() => {
                    // A stream that cannot take requests ends by itself; its message says why.
                    drop(stream.request_progress().await);
                    continue;
                }
            };
            match message {
                Ok(Some(response)) => {
                    if let Some(batch) = self.digest(response)? {
                        return Ok(batch);
                    }
                }
                Ok(None) => self.live = None,
                Err(error) => {
                    let refusal = Refusal::from(error);
                    if !refusal.error.is_retryable() {
                        return Err(refusal.error);
                    }
                    tracing::debug!(error = %refusal.error, "a watch lost its etcd member");
                    self.endpoints.give_up(picked);
                    self.live = None;
                }
            }
        }
    }

    async fn resume(&mut self) -> Result<()> {
        self.partial.clear();
        let deadline = Instant::now() + RESUME_DEADLINE;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let picked = self.endpoints.pick();
            let error = match self.open(&picked).await {
                Ok(stream) => {
                    self.live = Some((picked, stream));
                    return Ok(());
                }
                Err(error) => error,
            };
            self.endpoints.give_up(&picked);
            if !error.is_retryable() || Instant::now() + backoff > deadline {
                return Err(error);
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn open(&self, picked: &Picked) -> Result<EtcdStream> {
        let end = prefix_end(&self.prefix);
        let options = WatchOptions::new()
            .with_range(or_zero(&end))
            .with_start_revision(self.next)
            .with_prev_key()
            .with_progress_notify()
            .with_fragment();
        let mut client = picked.member.client.watch_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
        let opened = client.watch(or_zero(&self.prefix), Some(options));
        match tokio::time::timeout(self.endpoints.request_timeout(), opened).await {
            Ok(opened) => opened.map_err(|error| Refusal::from(error).error),
            Err(_) => Err(Error::Timeout { operation: "watch" }),
        }
    }

    /// What a message adds: a batch, or nothing that can be told yet.
    fn digest(&mut self, response: WatchResponse) -> Result<Option<WatchBatch>> {
        let response = response.0;
        if response.compact_revision > 0 {
            return Err(Error::Compacted { at: Some(response.compact_revision) });
        }
        if response.canceled {
            return cancelled(&response.cancel_reason).map(|()| {
                self.live = None;
                None
            });
        }
        if response.created {
            return Ok(None);
        }
        let head = response.header.map_or(0, |header| header.revision);
        let mut events = std::mem::take(&mut self.partial);
        for event in response.events {
            // Another member may repeat what the first one delivered.
            events.extend(parse_event(event)?.filter(|event| event.kv.mod_revision >= self.next));
        }
        if response.fragment {
            let last = events.last().map_or(0, |event| event.kv.mod_revision);
            self.partial = events.split_off(events.partition_point(|event| event.kv.mod_revision < last));
            if events.is_empty() {
                return Ok(None);
            }
        }
        let revision = events.last().map_or(head, |event| event.kv.mod_revision).max(self.next - 1);
        self.next = revision + 1;
        Ok(Some(WatchBatch { events, revision }))
    }
}

/// Whether a cancelled watch may be opened again.
fn cancelled(reason: &str) -> Result<()> {
    if reason.contains("permission denied") || reason.contains("auth") {
        return Err(Error::Unauthenticated { reason: reason.to_owned() });
    }
    tracing::debug!(reason, "etcd cancelled a watch");
    Ok(())
}

fn parse_event(event: etcd_client::proto::PbEvent) -> Result<Option<Event>> {
    let Some(kv) = event.kv else { return Ok(None) };
    let kind = match event.r#type {
        0 => EventKind::Put,
        1 => EventKind::Delete,
        other => return Err(Error::Protocol { reason: format!("unknown event type {other}") }),
    };
    Ok(Some(Event { kind, kv: key_value(kv), previous: event.prev_kv.map(key_value) }))
}
