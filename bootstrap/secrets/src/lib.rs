//! Secrets that a manifest only refers to.
//!
//! ```text
//! keelson secret put  ─▶ [`put`]  ─ /state/secrets/NAME ◀─ { file = "..." } ─┐
//! keelson secret seal ─▶ [`seal`] ─ blob of the TPM     ◀─ { sealed = "..." } ┤
//!                                                                             │
//!  PID 1 takes a manifest ──────────────────────────────────▶ [`Search::check`] ─▶ [`publish`]
//!                                                                             services ─▶ [`in_force`] ─▶ Manifest
//! ```
//!
//! One search, when the machine takes a manifest: what was found lies in memory, beside the manifest in force, for the
//! services, and nowhere else. What is kept on disks, compared and shown is the manifest as it was written.
//!
//! Invariants: no file is read further than [`manifest::SECRET_BYTES`]; nothing here shows a secret; a secret that is not
//! found is told with its reason and never taken for one that the manifest does not have.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
mod published;
mod seal;
mod search;
mod store;

pub use disk::{DISK, on_disk};
pub use published::{InForceError, in_force, publish, published, read};
pub use seal::{SealError, open, seal};
pub use search::{Checked, Found, Search, changed, text_of};
pub use store::{PutError, put, remove};
