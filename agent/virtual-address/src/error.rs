//! What ends the election. What fails on a link does not.

/// A failure of the whole component.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's network interface is not there.
    #[error("talk to the kernel about the network")]
    Netlink(#[source] netlink::Error),
}
