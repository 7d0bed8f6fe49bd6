//! The watches that feed the graph: one per kind, metadata only.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use client::{Client, ListParams, WatchEvent, WatchParams};
use futures::StreamExt;
use lifecycle::{Shutdown, Tasks};
use reconcile::{Backoff, Queue};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::{Collector, collected, takes_part};

/// Starts a watch per kind. The future returned ends when every kind was listed once.
pub(super) fn start(
    collector: &Arc<Collector>,
    queue: &Queue<String>,
    client: &Client,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> impl Future<Output = ()> + Send + use<> {
    let kinds = collected();
    let (synced, mut waiting) = watch::channel(kinds.len());
    for kind in kinds {
        let (client, collector, queue) = (client.clone(), collector.clone(), queue.clone());
        let source = Source { kind, client, collector, queue, synced: Some(synced.clone()) };
        let shutdown = shutdown.clone();
        tasks.spawn("garbage-collector-watch", async move {
            tokio::select! {
                () = shutdown.wait() => {}
                () = source.run() => {}
            }
        });
    }
    let (others, stop) = (Others { collector: collector.clone(), queue: queue.clone() }, shutdown.clone());
    tasks.spawn("garbage-collector-kinds", async move {
        tokio::select! {
            () = stop.wait() => {}
            () = others.collector.kinds.follow() => {}
            () = others.run() => {}
        }
    });
    async move {
        // The senders live as long as their watches: an error here means that all of them ended.
        if waiting.wait_for(|left| *left == 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The watches of kinds that come and go, one each.
struct Others {
    collector: Arc<Collector>,
    queue: Queue<String>,
}

impl Others {
    async fn run(&self) {
        let mut kinds = self.collector.kinds.subscribe();
        // Those that run end with this set.
        let mut watches: JoinSet<()> = JoinSet::new();
        let mut watched: Vec<(&'static Kind, AbortHandle)> = Vec::new();
        loop {
            let served: Vec<&'static Kind> =
                kinds.borrow_and_update().iter().copied().filter(|kind| takes_part(kind)).collect();
            watched.retain(|(kind, watch)| {
                let is_served = served.contains(kind);
                if !is_served {
                    watch.abort();
                    self.forget(kind);
                }
                is_served
            });
            for kind in served {
                if watched.iter().all(|(known, _)| *known != kind) {
                    watched.push((kind, watches.spawn(self.source(kind).run())));
                }
            }
            while watches.try_join_next().is_some() {}
            if kinds.changed().await.is_err() {
                return;
            }
        }
    }

    fn source(&self, kind: &'static Kind) -> Source {
        let (collector, queue) = (self.collector.clone(), self.queue.clone());
        Source { kind, client: collector.client.clone(), collector, queue, synced: None }
    }

    /// What is no longer served is no longer there.
    fn forget(&self, kind: &'static Kind) {
        let gone = self.collector.lock().missing(kind, &BTreeSet::new());
        let attend = gone.iter().flat_map(|uid| self.collector.remove_state(uid));
        attend.for_each(|uid| self.queue.add(uid));
    }
}

struct Source {
    kind: &'static Kind,
    client: Client,
    collector: Arc<Collector>,
    queue: Queue<String>,
    /// Taken when the kind was listed for the first time.
    synced: Option<watch::Sender<usize>>,
}

impl Source {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut version = None;
        loop {
            match self.advance(&mut version).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    if error.is_gone() {
                        version = None;
                    }
                    tracing::debug!(kind = self.kind.plural, %error, "watching metadata");
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Lists where no version is known, then follows until the watch ends.
    async fn advance(&mut self, version: &mut Option<String>) -> Result<(), client::Error> {
        let from = match version.take() {
            Some(known) => known,
            None => self.list().await?,
        };
        *version = Some(from.clone());
        let params = WatchParams { resource_version: from, ..WatchParams::default() };
        let mut events = self.client.watch_metadata(self.kind, &params).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            *version = Some(self.take(event));
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<String, client::Error> {
        let list = self.client.list_metadata(self.kind, None, &ListParams::default()).await?;
        let present: BTreeSet<String> = list.items.iter().map(|item| item.metadata.uid.clone()).collect();
        let gone = self.collector.lock().missing(self.kind, &present);
        for uid in gone {
            let attend = self.collector.remove_state(&uid);
            attend.into_iter().for_each(|uid| self.queue.add(uid));
        }
        for item in &list.items {
            let attend = self.collector.apply_state(self.kind, &item.metadata);
            attend.into_iter().for_each(|uid| self.queue.add(uid));
        }
        if let Some(synced) = self.synced.take() {
            synced.send_modify(|left| *left -= 1);
        }
        Ok(list.metadata.resource_version)
    }

    /// Takes an event into the graph; the version it brings.
    fn take(&self, event: WatchEvent<api::meta::v1::PartialObjectMetadata>) -> String {
        let (attend, version) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let attend = self.collector.apply_state(self.kind, &object.metadata);
                (attend, object.metadata.resource_version)
            }
            WatchEvent::Deleted(object) => {
                (self.collector.remove_state(&object.metadata.uid), object.metadata.resource_version)
            }
            WatchEvent::Bookmark { resource_version, .. } => (Vec::new(), resource_version),
        };
        attend.into_iter().for_each(|uid| self.queue.add(uid));
        version
    }
}
