//! Service state machine: dependencies, readiness, restart back-off.
//!
//! [`Supervisor::step`] takes what happened and the time, and answers what to do; it has no clock, starts no process
//! and writes nothing. A service is in one [`ServiceState`]:
//!
//! ```text
//!            dependencies ready        ready
//! Waiting ───────────────────▶ Starting ───▶ Ready ──┐ ended
//!    ▲                            │ ended            ▼
//!    └──────── until ────── BackingOff ◀─────────────┤
//!                                                    ├──▶ Done     (a one-shot that succeeded)
//!                                                    └──▶ Failed   (not to be restarted)
//! any with a process ── stop ──▶ Stopping ──▶ Stopped
//! ```
//!
//! A dependency that ends later does not take its dependents along: they are expected to cope, as on any machine.
//! Stopping everything goes against the dependencies: a service is asked to end once nothing alive needs it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod input;
mod service;
mod spec;
mod status;
mod supervisor;

#[cfg(test)]
mod tests;

pub use input::{Action, Input};
pub use service::ServiceState;
pub use spec::{Kind, Readiness, ResourceLimits, Restart, ServiceSpec, SpecError};
pub use status::ServiceStatus;
pub use supervisor::Supervisor;
