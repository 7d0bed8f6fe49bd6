//! What the agent asks of containerd besides the container runtime interface: container images out of archives.
//!
//! ```text
//! archive ──▶ Archive::plan (blobs, children first; images) ──▶ Client::import ──▶ content store, image store
//! ```
//!
//! Layers are not unpacked here: containerd does that when the first container of an image is made. Nothing is written
//! for an image that is there already, so that a machine that starts again spends nothing on it. A lease keeps
//! containerd's garbage collector from the blobs until their image refers to them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod client;
mod messages;

pub use archive::{Archive, Blob, Image, Plan};
pub use client::Client;

use std::path::PathBuf;

/// An archive that is not imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive cannot be read.
    #[error("reading {path}", path = path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The archive lacks a file, or the file is not what it should be.
    #[error("{path} in the archive {reason}")]
    Content {
        /// Within the archive.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// containerd answered with an error, or could not be reached.
    #[error("{call}: {message}")]
    Call {
        /// The service's method.
        call: &'static str,
        /// containerd's own words.
        message: String,
    },
    /// containerd did not answer in time.
    #[error("{call}: no answer from containerd within {seconds} s")]
    Deadline {
        /// The service's method.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
}
