//! Why a kubelet cannot run.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container runtime's socket is no path.
    #[error("container runtime")]
    Runtime(#[source] cri::Error),
    /// A folder could not be made.
    #[error("make folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The server's address could not be taken.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The server's certificate or client authority is not usable.
    #[error("serving certificate")]
    Certificate(#[from] crate::server::TlsError),
}
