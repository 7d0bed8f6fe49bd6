//! What every controller stands on: caches kept by watches, work queues, workers, leader leases and events.
//!
//! ```text
//!   API server ──watch──▶ Reflector ──▶ Cache (Arc objects, indexes)
//!                             │ handler / subscription
//!                             ▼
//!                           Queue ──▶ run_workers ──▶ reconcile(key) ──▶ API server
//! ```
//!
//! Invariants: a cache's content is always a state the server had, never a mix of two lists; handlers see every
//! change once and in order; a key is never worked on twice at a time; every queue is bounded by the number of
//! distinct keys.
//!
//! What is not here: knowledge of any kind's meaning.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod cache;
mod lease;
mod queue;
mod recorder;
mod reflector;
mod subscription;
mod worker;

pub use backoff::Backoff;
pub use cache::{Cache, Event};
pub use lease::{LeaderLease, LeaseConfig, LeaseError};
pub use queue::{Queue, QueueGuard};
pub use recorder::{EventType, Recorder};
pub use reflector::{Reflector, ReflectorConfig, drop_managed_fields};
pub use subscription::Subscription;
pub use worker::{Action, run_workers};
