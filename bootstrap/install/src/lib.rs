//! Disks made, slots written, updates tried and taken back.
//!
//! ```text
//! flashed disk ── first boot: [`rest`] adds slot B, STATE, DATA
//!      │
//!   running, proved ── [`Receiver`] writes the idle slot ── [`Prepared::commit`] names its boot entry ── reboot
//!      ▲                                                                                                   │
//!      │  proved: the entry loses its counter                                                              ▼
//!      └──────────────────────────────────────────────────────────────────────────── on trial ([`Trial`])
//!      ▲                                                                                                   │
//!      └── the loader has no tries left, or the agent gave up: the old entry, and why ([`Record`]) ◀───────┘
//! ```
//!
//! Invariants, each held at every single write to the disk (`tests/power_cuts.rs` cuts after each of them):
//! - the slot that runs is never written, and its boot entry never removed;
//! - a boot entry has its final name only when all that it starts is whole and kept;
//! - nothing is written while the running system is on trial itself;
//! - whatever is started finds STATE in a format that it can read ([`migrate`]).
//!
//! It does not know what makes a machine healthy, nor where updates come from.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod booted;
mod error;
pub mod extension;
mod file;
pub mod migrate;
pub mod onto;
mod own;
mod propose;
mod receive;
mod record;
pub mod rest;
pub mod select;
mod signature;
pub mod stick;
mod trial;
pub mod volume;
pub mod wipe;

pub use booted::Booted;
pub use error::Error;
pub use file::{FileDevice, Purpose};
pub use own::OwnDisk;
pub use propose::{Proposal, Target, propose, sizes};
pub use receive::{Policy, Prepared, Receiver};
pub use record::{Outcome, Record, Side, judge};
pub use trial::{SETTLE, Trial, Verdict};
