//! What can fail.

use std::path::PathBuf;

/// A step that failed, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses.
    #[error(transparent)]
    System(#[from] sys::Error),
    /// cryptsetup fails.
    #[error("{step} on {}: {output}", device.display())]
    Program {
        /// At what.
        step: &'static str,
        /// Where.
        device: PathBuf,
        /// What it said.
        output: String,
    },
    /// What the header says of itself makes no sense.
    #[error("the header of {} is damaged", device.display())]
    Header {
        /// Where.
        device: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no source of randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// The TPM gives nothing.
    #[error(transparent)]
    Tpm(#[from] tpm::Error),
    /// Somebody has to say it first.
    #[error("the passphrase that it is to be made with is not given yet")]
    NoPassphrase,
    /// No key is wanted.
    #[error("nothing would open it")]
    NoKeys,
    /// No key fits.
    #[error("{0}")]
    Locked(String),
}
