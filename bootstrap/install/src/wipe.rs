//! A disk, or a partition, that the machine does not use is wiped: whatever tells what is on it is overwritten, and the
//! device discards the rest where it can.
//!
//! ```text
//! observe ─▶ plan: is it there, free, writable? ─▶ claim (the kernel has the last word) ─▶ apply: discard, zeros, sync
//! ```
//!
//! It does not overwrite everything: what lies between stays readable on a device that discards nothing, and the plan
//! says so.

mod apply;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

pub use apply::{Wipeable, apply};
pub(crate) use observe::Found;
pub use observe::{Observed, Use, observe};
pub use plan::{WipeDenied, WipePlan, plan};
