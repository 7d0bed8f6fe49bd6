//! What is counted per flow schema.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::metrics::Histogram;

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

/// Why requests were turned away.
pub const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

/// Counters of the requests of one flow schema at one level.
pub struct Meter {
    /// Requests in queues.
    pub waiting: AtomicUsize,
    /// Requests that run.
    pub running: AtomicUsize,
    /// Seats they take.
    pub seats: AtomicUsize,
    /// Requests that were started.
    pub dispatched: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    /// Seconds in a queue, of those that ran, and of those that were turned away.
    pub waited: [Histogram; 2],
    /// Seconds of running, of watches apart.
    pub ran: [Histogram; 2],
    /// Seats by the estimate.
    pub estimated: Histogram,
    /// Watchers that writes were expected to reach.
    pub watchers: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            seats: AtomicUsize::new(0),
            dispatched: AtomicU64::new(0),
            refused: Default::default(),
            waited: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            ran: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            estimated: Histogram::new(SEATS),
            watchers: Histogram::new(WATCHES),
        }
    }
}

impl Meter {
    /// Counts a request that was turned away.
    pub fn refuse(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|r| *r == reason) {
            self.refused[at].fetch_add(1, Relaxed);
        }
    }

    /// Requests turned away, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.refused.iter().map(|count| count.load(Relaxed)))
    }
}
