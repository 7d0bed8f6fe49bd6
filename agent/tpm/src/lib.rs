//! Secrets that only this machine's TPM 2.0 gives out again, and only while chosen registers (PCRs) hold what they held
//! when it was sealed.
//!
//! ```text
//! seal:   primary key (made anew each time, the same each time) ── policy of the PCRs now ── sealed object ─▶ [`Sealed`]
//! unseal: primary key ── load the object ── a session that proves the PCRs ── the secret
//! ```
//!
//! [`wire`] is the few commands as bytes, [`Tpm`] says them to a device. The kernel's resource manager
//! (`/dev/tpmrm0`) forgets whatever is left in the TPM when the device is closed; what is made here is let go anyway.
//!
//! Not here: parameter encryption (whoever can listen to the wires between processor and TPM learns the secret),
//! authorisation by the owner (a TPM whose owner hierarchy has a password is refused by the TPM itself).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod sealed;
mod sealer;
mod tpm;
mod wire;

pub use error::Error;
pub use sealed::{Pcrs, Sealed};
pub use sealer::{MachineTpm, Sealer};
pub use tpm::Tpm;
