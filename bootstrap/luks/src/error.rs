//! What can fail.

use std::path::PathBuf;

use crate::header::KeyKind;

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
    /// The TPM does not take a key.
    #[error("the TPM does not seal its key: {0}")]
    Sealing(String),
    /// Somebody has to say it first.
    #[error("the passphrase that it is to be made with is not given yet")]
    NoPassphrase,
    /// A server has to give it first.
    #[error("the key of the network that it is to be made with has not come yet ({})", urls(.0))]
    NoNetworkKey(Vec<tang::Server>),
    /// There is no room.
    #[error("all of its key slots are taken")]
    Full,
    /// A key that was put does not open it.
    #[error("the {0} key that was put does not open it")]
    Unproved(KeyKind),
    /// No key is wanted.
    #[error("nothing would open it")]
    NoKeys,
    /// No key fits.
    #[error("{0}")]
    Locked(String),
}

fn urls(servers: &[tang::Server]) -> String {
    servers.iter().map(|server| server.url.as_str()).collect::<Vec<_>>().join(", ")
}
