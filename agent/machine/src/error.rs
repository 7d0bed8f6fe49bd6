//! What ends the role process. What fails on one interface does not.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A failure of the whole role.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's network interface is not there.
    #[error("talk to the kernel about the network")]
    Netlink(#[source] netlink::Error),
    /// The machine API has no place to listen.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The machine API has no place to listen.
    #[error("listen on {}", .path.display())]
    ListenLocal {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
