//! Volumes for pods: further disks of the machine, each with one file system.
//!
//! ```text
//! blank disk ── [`apply`]: table, its partition marked as fresh ── file system ── the mark is taken off
//!                             │ a cut: the next start finds it fresh,                    │
//!                             └ and formats it                                           ▼
//!                                                       found by its name, wherever the disk is attached
//! ```
//!
//! Invariants, each held at every single write to a disk (`volume/tests.rs` cuts after each of them):
//! - nothing is formatted but a disk that is blank, one that the manifest lets go of, or a partition that is marked as
//!   fresh; and no disk that is in use, or that the machine was started from;
//! - a volume that this machine has made ([`Made`]) is not made again in another place unless the manifest names another
//!   disk for it, so that a disk that is missing for a day is never replaced by a blank one, and what is damaged is never
//!   taken for something to wipe;
//! - a partition that is not marked holds a whole file system.
//!
//! It does not mount anything.

use std::path::{Path, PathBuf};

mod apply;
mod made;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

pub use apply::{Hands, apply};
pub use made::{Made, Origin};
pub use observe::{Holds, Seen, observe};
pub use plan::{Denied, Planned, Step, describe, plan};

/// Where volumes are, each in a folder of its name.
pub const FOLDER: &str = "/mnt";

/// Where a volume is.
#[must_use]
pub fn place(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}
