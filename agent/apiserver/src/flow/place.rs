//! A request's place among those that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::queues::{Running, Ticket};
use super::schema::Flow;

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Reading,
    /// It writes, or may.
    Writing,
}

impl Kind {
    /// By the verb.
    #[must_use]
    pub fn of(verb: &str) -> Self {
        if matches!(verb, "get" | "list" | "watch") { Self::Reading } else { Self::Writing }
    }

    /// Position in pairs.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self == Self::Writing)
    }
}

/// Requests by kind.
#[derive(Default)]
pub struct Gauges {
    /// Those that run.
    pub running: [AtomicUsize; 2],
    /// Those that wait.
    pub waiting: [AtomicUsize; 2],
}

/// Counts a request that waits until it is dropped.
pub struct Counted<'a>(&'a AtomicUsize);

impl Gauges {
    /// A request waits.
    pub fn wait(&self, kind: Kind) -> Counted<'_> {
        let gauge = &self.waiting[kind.index()];
        gauge.fetch_add(1, Relaxed);
        Counted(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Seats of a level, given back when this is dropped.
pub struct Seat {
    flow: Arc<Flow>,
    running: Running,
    is_watch: bool,
}

impl Seat {
    /// Seats that were taken.
    #[must_use]
    pub fn new(flow: Arc<Flow>, running: Running, is_watch: bool) -> Self {
        Self { flow, running, is_watch }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now();
        let Flow { level, meter, .. } = &*self.flow;
        meter.ran[usize::from(self.is_watch)]
            .observe(now.saturating_duration_since(self.running.started).as_secs_f64());
        let linger = level.queues.lock().finish(&self.running, meter, now);
        let Some(linger) = linger else { return };
        let (flow, running) = (self.flow.clone(), self.running);
        let release = move || flow.level.queues.lock().release(&running, &flow.meter, Instant::now());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(linger).await;
                    release();
                });
            }
            Err(_ending) => release(),
        }
    }
}

/// A request's place.
pub struct Place {
    _held: Held,
    gauges: Arc<Gauges>,
    kind: Kind,
}

#[allow(dead_code, reason = "held to be dropped")]
enum Held {
    Seat(Seat),
    Permit(Option<OwnedSemaphorePermit>),
}

impl Place {
    /// A place on seats.
    #[must_use]
    pub fn seat(seat: Seat, gauges: &Arc<Gauges>, kind: Kind) -> Self {
        Self::new(Held::Seat(seat), gauges, kind)
    }

    /// A place by the plain limits, or beyond them.
    #[must_use]
    pub fn permit(permit: Option<OwnedSemaphorePermit>, gauges: &Arc<Gauges>, kind: Kind) -> Self {
        Self::new(Held::Permit(permit), gauges, kind)
    }

    fn new(held: Held, gauges: &Arc<Gauges>, kind: Kind) -> Self {
        gauges.running[kind.index()].fetch_add(1, Relaxed);
        Self { _held: held, gauges: gauges.clone(), kind }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauges.running[self.kind.index()].fetch_sub(1, Relaxed);
    }
}

/// A request that waits for its turn. Whoever stops waiting leaves the queue.
pub struct Waiter<'a> {
    flow: &'a Arc<Flow>,
    ticket: Ticket,
    turn: oneshot::Receiver<Running>,
    is_watch: bool,
    over: bool,
}

impl<'a> Waiter<'a> {
    /// A request that was put into a queue.
    #[must_use]
    pub fn new(flow: &'a Arc<Flow>, ticket: Ticket, turn: oneshot::Receiver<Running>, is_watch: bool) -> Self {
        Self { flow, ticket, turn, is_watch, over: false }
    }

    /// Waits for the turn, or for the time to be over.
    pub async fn wait(mut self, limit: Duration) -> Option<Seat> {
        let running = tokio::time::timeout(limit, &mut self.turn).await.ok()?.ok()?;
        self.over = true;
        Some(Seat::new(self.flow.clone(), running, self.is_watch))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.over || self.flow.level.queues.lock().give_up(self.ticket, Instant::now()) {
            return;
        }
        // Its turn came in the same moment.
        if let Ok(running) = self.turn.try_recv() {
            drop(Seat::new(self.flow.clone(), running, self.is_watch));
        }
    }
}
