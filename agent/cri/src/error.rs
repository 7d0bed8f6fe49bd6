//! What can go wrong between us and the runtime.

use std::path::PathBuf;

/// A failed call to the container runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket's path does not make an endpoint.
    #[error("container runtime endpoint {0} is not a usable unix socket path")]
    Endpoint(PathBuf),
    /// The runtime answered with an error, or could not be reached.
    #[error("{call}: {message}")]
    Call {
        /// The call's name in the interface.
        call: &'static str,
        /// The gRPC code.
        code: tonic::Code,
        /// The runtime's own words.
        message: String,
    },
    /// The runtime did not answer in time.
    #[error("{call}: no answer from the container runtime within {seconds} s")]
    Deadline {
        /// The call's name in the interface.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The answer lacks a part that the interface promises.
    #[error("{call}: the runtime's answer has no {part}")]
    Incomplete {
        /// The call's name in the interface.
        call: &'static str,
        /// What is missing.
        part: &'static str,
    },
}

impl Error {
    /// Whether the runtime says that the thing asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { code: tonic::Code::NotFound, .. })
    }

    /// Whether the runtime could not be reached at all.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Call { code: tonic::Code::Unavailable, .. } | Self::Deadline { .. })
    }

    /// The runtime's own words, without the name of the call.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Call { message, .. } => message.clone(),
            Self::Endpoint(_) | Self::Deadline { .. } | Self::Incomplete { .. } => self.to_string(),
        }
    }
}
