//! What can fail.

use std::io;
use std::path::PathBuf;

/// Why the TPM gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has none.
    #[error("this machine has no TPM 2.0: there is no {}", device.display())]
    Absent {
        /// Where it would be.
        device: PathBuf,
    },
    /// The device fails.
    #[error("{step}")]
    Device {
        /// At what.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The registers are not what they were.
    #[error(
        "the TPM's registers (PCR {pcrs}) are not what they were when the key was sealed: firmware or Secure Boot changed"
    )]
    Changed {
        /// Which ones were sealed to.
        pcrs: String,
    },
    /// It was sealed by another TPM, or this one was cleared.
    #[error("the key was sealed by another TPM, or this one was cleared since")]
    Foreign,
    /// The TPM refuses.
    #[error("the TPM refuses {command}: response code {code:#x}")]
    Refused {
        /// What.
        command: &'static str,
        /// Its word for it.
        code: u32,
    },
    /// The answer is no answer.
    #[error("the TPM's answer to {0} is damaged")]
    Damaged(&'static str),
    /// There are no such registers.
    #[error("a TPM has the registers 0 to 23, at least one of which is named")]
    Pcrs,
    /// It does not fit.
    #[error("the secret has {0} bytes; a TPM seals at most 128")]
    Length(usize),
}
