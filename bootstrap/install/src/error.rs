//! What can fail.

use std::io;
use std::path::PathBuf;

use disk::layout::LayoutError;
use disk::{EspError, GptError, Slot, UpdateError};

/// A step that failed, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The partition table.
    #[error(transparent)]
    Table(#[from] GptError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The EFI system partition.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The update.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The kernel refuses.
    #[error(transparent)]
    System(#[from] sys::Error),
    /// A file system cannot be made.
    #[error("format {device}: {output}")]
    Format {
        /// Where.
        device: String,
        /// What mkfs said.
        output: String,
    },
    /// An encrypted partition.
    #[error("{label}")]
    Luks {
        /// Which.
        label: &'static str,
        /// Why.
        #[source]
        source: luks::Error,
    },
    /// Keys cannot be destroyed.
    #[error("destroy the keys of {name}")]
    Keys {
        /// Of which partition.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The disk lacks something of ours.
    #[error("the disk has no {0}")]
    Missing(String),
    /// The disk to install to is in use.
    #[error(
        "{} holds {what}, and is left alone; `install.wipe = true` in the manifest lets it be overwritten",
        disk.display()
    )]
    Occupied {
        /// Which disk.
        disk: PathBuf,
        /// What is on it.
        what: String,
    },
    /// A disk that was blank holds something by now.
    #[error("{} is not as it was a moment before, and is left alone", disk.display())]
    Changed {
        /// Which disk.
        disk: PathBuf,
    },
    /// A disk is not to be wiped.
    #[error(transparent)]
    Wipe(#[from] crate::wipe::WipeDenied),
    /// A disk cannot be wiped.
    #[error("wipe {}", disk.display())]
    Wiping {
        /// Which disk.
        disk: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No disk is chosen to install to.
    #[error(transparent)]
    Select(#[from] crate::select::SelectError),
    /// The running system has not proved itself.
    #[error("the running system is on trial itself; wait until it has proved itself")]
    OnTrial,
    /// There is nothing to go back to.
    #[error("slot {slot} holds nothing to go back to: {reason}")]
    NothingThere {
        /// The other slot.
        slot: Slot,
        /// Why.
        reason: &'static str,
    },
    /// A slot cannot be written.
    #[error("write slot {slot}")]
    Slot {
        /// Which.
        slot: Slot,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The update ends too early or too late.
    #[error("the update has {found} bytes, not {wanted}")]
    Length {
        /// What came.
        found: u64,
        /// What the metadata says.
        wanted: u64,
    },
    /// The kernel image does not belong to the root.
    #[error("the update's kernel is for another root than the one it brings")]
    Mismatch,
    /// The kernel image does not say what its root must be.
    #[error("the update's kernel would not check what is read of its root: it has no usable {}", disk::VERITY_ARGUMENT)]
    Unchecked,
    /// The signature is wrong or not there.
    #[error("the update's signature {0}")]
    Signature(&'static str),
    /// STATE cannot be brought to another format.
    #[error(transparent)]
    Migrate(#[from] crate::migrate::MigrateError),
    /// An extension of the machine does not go with it.
    #[error(
        "the machine would lose the extension {name}: {why}; `keelson extension add` puts one for the new system beside \
         it, and `keelson extension remove {name}` does without"
    )]
    ExtensionLost {
        /// Which.
        name: String,
        /// Why.
        why: disk::Misfit,
    },
    /// The new system would not read the manifest.
    #[error(
        "the new system would not read the manifest in force or of the next start, which has {}: apply one without first",
        keys.join(", ")
    )]
    ManifestUnread {
        /// What it would not read.
        keys: Vec<String>,
    },
    /// What is remembered cannot be written down.
    #[error("write down what is done")]
    Record(#[source] serde_json::Error),
}

impl Error {
    /// Whether the disk that is asked for is not there, or not there yet.
    #[must_use]
    pub fn is_for_want_of_a_disk(&self) -> bool {
        matches!(self, Self::Select(crate::select::SelectError::None { .. }))
    }
}
