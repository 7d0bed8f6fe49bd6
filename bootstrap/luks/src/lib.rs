//! Encrypted partitions: made, opened, their keys.
//!
//! The format is LUKS2, written and read by cryptsetup, so that every rescue system opens it. Each kind of key has a slot
//! of its own; what is needed to get at a key lies in the header as a token. So a machine opens its partitions without
//! its manifest, which lies on one of them.
//!
//! ```text
//! [`make`]   nothing ── format, a slot for each wanted key ──▶ closed
//! [`open`]   closed ── the TPM's key, or what somebody gave ──▶ open (or [`Error::Locked`], and why)
//! [`settle`] open ── a recovery key if there is none; the TPM's key anew if it did not fit
//! ```
//!
//! Invariants:
//! - a slot counts once its token is there: what was cut short in between is made anew by the next start;
//! - a key never stands in arguments of a program, only in a file in memory, for as long as the program runs;
//! - nothing here writes to a partition that holds something, but to its slots.
//!
//! It does not know where partitions are, what is on them, or whom to ask for a passphrase.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod header;
mod key;
mod keys;
mod sealer;
mod volume;

pub use error::Error;
pub use header::{Header, KeyKind, Token};
pub use key::Key;
pub use keys::{Opened, Opener, Wanted, make, open, settle};
pub use sealer::{MachineTpm, Sealer};
pub use volume::{HEADER_BYTES, Volume, is_encrypted};
