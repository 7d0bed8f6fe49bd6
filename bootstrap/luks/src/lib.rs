//! Encrypted partitions: made, opened, their keys.
//!
//! The format is LUKS2, written and read by cryptsetup, so that every rescue system opens it. Each kind of key has a slot
//! of its own; what is needed to get at a key lies in the header as a token. So a machine opens its partitions without
//! its manifest, which lies on one of them.
//!
//! ```text
//! [`make`]   nothing ── format, a slot for each wanted key ──▶ closed
//! [`open`]   closed ── the TPM's key, a server's, or what somebody gave ──▶ open (or [`Error::Locked`], and why)
//! [`settle`] open ── a recovery key if there is none; the TPM's key anew if it did not fit
//! [`rekey`]  open ── the keys that are wanted now: what is missing is put, then what is not wanted goes
//! ```
//!
//! Invariants:
//! - a slot counts once its token is there; what was cut short in between is known by a token without a slot, and made
//!   anew by the next start;
//! - a key goes only once every key that is wanted is there, and was tried; the recovery key never does;
//! - a key never stands in arguments of a program, only in a file in memory, for as long as the program runs;
//! - nothing here writes to a partition that holds something, but to its slots.
//!
//! It does not know where partitions are, what is on them, whom to ask for a passphrase, or how to reach a server.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod change;
mod error;
mod header;
mod key;
mod keys;
mod plan;
#[cfg(test)]
mod tests;
mod token;
mod volume;

pub use change::{Keyring, Lack, Rekeyed, rekey};
pub use error::Error;
pub use header::{Header, Held, KeyKind};
pub use key::Key;
pub use keys::{Given, Opened, Opener, Wanted, make, open, settle};
pub use token::Token;
pub use tpm::{MachineTpm, Sealer};
pub use volume::{HEADER_BYTES, Volume, is_encrypted};
