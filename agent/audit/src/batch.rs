//! Events that wait to be delivered, several at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lifecycle::Shutdown;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::sink::{Counters, Target};

/// Most bytes of events that wait, whatever their number.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most batches under way at a time.
const MAX_UNDER_WAY: usize = 16;
/// How long a shutdown waits for what is still to be delivered.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// How events are gathered.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Most events that wait.
    pub buffer: usize,
    /// Most events of a batch.
    pub max_size: usize,
    /// How long the first event of a batch waits for others.
    pub max_wait: Duration,
    /// How fast batches may follow one another.
    pub throttle: Option<Throttle>,
}

/// A bound on the number of batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Batches a second, in the long run.
    pub per_second: f64,
    /// Batches at once.
    pub burst: u32,
}

/// The end of a queue that events are put into.
pub(crate) struct Queue {
    sender: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// The other end.
pub(crate) struct Worker {
    receiver: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    batch: Batch,
    target: Arc<Target>,
    counters: Arc<Counters>,
    tokens: f64,
    filled_at: Option<Instant>,
}

/// A queue and the worker that empties it.
pub(crate) fn queue(batch: Batch, target: Arc<Target>, counters: Arc<Counters>) -> (Queue, Worker) {
    let (sender, receiver) = mpsc::channel(batch.buffer.max(1));
    let waiting = Arc::new(AtomicUsize::new(0));
    let tokens = batch.throttle.map_or(0.0, |throttle| f64::from(throttle.burst));
    let worker = Worker { receiver, waiting: waiting.clone(), batch, target, counters, tokens, filled_at: None };
    (Queue { sender, waiting }, worker)
}

impl Queue {
    /// Puts an event into the queue; false if it is full.
    pub(crate) fn put(&self, event: Bytes) -> bool {
        let len = event.len();
        if self.waiting.load(Ordering::Relaxed) + len > MAX_WAITING_BYTES {
            return false;
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        let is_put = self.sender.try_send(event).is_ok();
        if !is_put {
            self.waiting.fetch_sub(len, Ordering::Relaxed);
        }
        is_put
    }
}

impl Worker {
    /// Delivers until shutdown, and then what is left.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut under_way = JoinSet::new();
        while !shutdown.is_triggered() {
            let events = self.collect(&shutdown).await;
            if events.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.throttle() => {}
                () = shutdown.wait() => {}
            }
            self.hand_out(events, &mut under_way).await;
        }
        self.receiver.close();
        let rest = async {
            loop {
                let mut events = Vec::new();
                while events.len() < self.batch.max_size.max(1)
                    && let Ok(event) = self.receiver.try_recv()
                {
                    events.push(self.taken(event));
                }
                if events.is_empty() {
                    break;
                }
                self.hand_out(events, &mut under_way).await;
            }
            while under_way.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, rest).await.is_err() {
            tracing::warn!(to = self.target.name(), "some audit events could not be delivered before the end");
        }
    }

    fn taken(&self, event: Bytes) -> Bytes {
        self.waiting.fetch_sub(event.len(), Ordering::Relaxed);
        event
    }

    async fn hand_out(&self, events: Vec<Bytes>, under_way: &mut JoinSet<()>) {
        while under_way.len() >= MAX_UNDER_WAY {
            under_way.join_next().await;
        }
        let (target, counters) = (self.target.clone(), self.counters.clone());
        let work = async move {
            if !target.deliver(&events).await {
                counters.lost(target.name(), events.len());
            }
        };
        // A file's lines keep their order; who is told over the network puts up with another.
        if self.target.is_ordered() {
            work.await;
        } else {
            under_way.spawn(work);
            while under_way.try_join_next().is_some() {}
        }
    }

    async fn collect(&mut self, shutdown: &Shutdown) -> Vec<Bytes> {
        let mut events = Vec::new();
        let first = tokio::select! {
            event = self.receiver.recv() => event,
            () = shutdown.wait() => None,
        };
        let Some(first) = first else { return events };
        events.push(self.taken(first));
        let until = Instant::now() + self.batch.max_wait;
        while events.len() < self.batch.max_size {
            let next = tokio::select! {
                event = self.receiver.recv() => event,
                () = tokio::time::sleep_until(until) => None,
                () = shutdown.wait() => None,
            };
            let Some(event) = next else { break };
            events.push(self.taken(event));
        }
        events
    }

    /// Waits until another batch may go.
    async fn throttle(&mut self) {
        let Some(throttle) = self.batch.throttle else { return };
        let now = Instant::now();
        if let Some(before) = self.filled_at {
            let gained = now.duration_since(before).as_secs_f64() * throttle.per_second;
            self.tokens = (self.tokens + gained).min(f64::from(throttle.burst));
        }
        self.filled_at = Some(now);
        if self.tokens < 1.0 {
            let missing = (1.0 - self.tokens) / throttle.per_second.max(f64::MIN_POSITIVE);
            let wait = Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX);
            tokio::time::sleep(wait).await;
            self.tokens = 1.0;
            self.filled_at = Some(Instant::now());
        }
        self.tokens -= 1.0;
    }
}
