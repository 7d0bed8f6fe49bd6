//! A pure decision per pod over a snapshot, and the loop that binds.
//!
//! ```text
//!   watches ──▶ Snapshot (nodes, placed pods) ──┐
//!      │                                        ├─▶ decide(pod) ──▶ bind │ condition and event │ preemption
//!      └─────▶ SchedulingQueue (waiting pods) ──┘
//! ```
//!
//! Invariants: one task owns snapshot and queue, so that a decision sees a state that cannot change under it; a pod
//! that was assigned counts on its node from the decision on, not from the watch event on; a pod that does not fit
//! waits for an event that can change that, never for a timer alone.
//!
//! What is not here: binding of volumes to claims (pods with unbound claims wait), device claims, extenders.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::too_many_lines))]

mod apply;
mod config;
mod decide;
mod filter;
mod interpod;
mod labels;
mod pod;
mod preempt;
mod queue;
mod resources;
mod score;
mod snapshot;
mod spread;
mod task;
mod volumes;
mod watches;

#[cfg(test)]
mod fixtures;

pub use config::{Config, Error};
pub use task::run;
