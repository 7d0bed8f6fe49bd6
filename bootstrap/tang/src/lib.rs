//! Keys that a server of the network gives back: Tang, as Clevis speaks to it.
//!
//! ```text
//! [`Advertisement::read`]  what the server says of itself ── signed by a key that was pinned
//! [`Binding::seal`]        a secret ── under a key agreed on with the server's exchange key ──▶ a JWE
//! [`Binding::ask`]         the JWE ── its point, blinded ──▶ what the server is asked
//! [`Recovery::finish`]     what it answers ── unblinded ──▶ the secret
//! ```
//!
//! Invariants:
//! - the server never learns a secret, nor what would open a [`Binding`]; who listens learns neither;
//! - an advertisement counts only if a key signed it whose thumbprint was given; an answer only if the JWE opens by it;
//! - what comes from outside is limited in length and number before it is looked at.
//!
//! A [`Binding`] is what `clevis encrypt tang` makes, and `clevis decrypt` opens. P-521 is the only curve, as it is the only
//! one that Tang makes keys of. It knows no sockets, no clock, and nothing of disks.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advertisement;
mod binding;
mod error;
mod jose;
mod message;

pub use advertisement::{Advertisement, Server};
pub use binding::{Binding, Recovery};
pub use error::Error;
pub use message::{Ask, Asked, Fetched, Secret};

/// Whatever a server says is shorter.
pub const MOST_BYTES: usize = 64 << 10;
