//! What failed and why the kernel said so.

use std::io;

use nix::errno::Errno;

/// A kernel operation that failed: the step in words, the reason as source.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct Error {
    step: String,
    #[source]
    source: io::Error,
}

impl Error {
    pub(crate) fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { step: step.into(), source: source.into() }
    }

    /// The kernel's error kind.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether what was named does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// Whether the target is in use (`EBUSY`).
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(Errno::EBUSY as i32)
    }
}
