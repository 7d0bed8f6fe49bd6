//! Extensions that a machine has on its own: files on STATE, which updates leave as they are.
//!
//! ```text
//! a caller ── [`Taker`] ── STATE/extensions/NAME.extension, once it is whole ── at a start: [`held`], [`survey`], in use
//!                                              └── NAME.extension.tried: how often it was, until it has proved itself
//! ```
//!
//! What a file may hold is in `tree.rs`, for whoever makes one and whoever uses it. It does not know how one is mounted.

mod held;
mod take;
mod tree;

pub use held::{Held, HeldError, MOST, Trial, held, keep_trial, remove, trial};
pub use take::{Admission, TakeError, Taker};
pub use tree::{OWN_FOLDER, Survey, TreeError, survey};

use disk::ExtensionHead;

/// Whether the signature of one is by this key.
///
/// # Errors
/// It is not, and why.
pub fn check_signature(key: &[u8], head: &ExtensionHead) -> Result<(), &'static str> {
    crate::signature::check(Some(key), &head.signed, &head.signature)
}
