//! Links, addresses, routes, rules and neighbours by rtnetlink, what routers advertise, WireGuard tunnels by generic
//! netlink, and entering network namespaces.
//!
//! A [`Netlink`] is a connection to the kernel of one network namespace; it is cheap to clone. Adding is idempotent:
//! what is there already is replaced or left, and removing what is not there succeeds. This crate knows nothing of
//! pods or Kubernetes, and keeps no state: the kernel is the only memory.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod attributes;
mod error;
mod events;
mod generic;
mod link;
mod made;
mod neighbour;
pub mod netns;
mod route;
mod router;
mod rule;
mod wireguard;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rtnetlink::Handle;

pub use address::Address;
pub use error::Error;
pub use events::{Change, Changes};
pub use link::{Link, LinkKind, Veth, Vxlan};
pub use made::{Bond, BondHashPolicy, BondLacpRate, BondMode, Made};
pub use route::{Protocol, Route};
pub use router::{Advertised, AdvertisedNames, Advertisements};
pub use rule::Rule;
pub use wireguard::{Key, Secret, Tunnel, TunnelPeer, Wireguard, WireguardPeer};

/// The result of an operation here.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection to the kernel of one network namespace.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
    // Ends the connection's task with the last clone.
    _pump: Arc<Pump>,
}

struct Pump(tokio::task::JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Connects in the network namespace of the calling thread. Needs a tokio runtime.
    pub fn connect() -> Result<Self> {
        // Unsolicited messages are not asked for here, so their receiver can go.
        let (connection, handle, _messages) =
            rtnetlink::new_connection().map_err(|source| Error::Io { step: "open a netlink socket", source })?;
        Ok(Self { handle, _pump: Arc::new(Pump(tokio::spawn(connection))) })
    }

    /// Connects in another network namespace, without moving the calling thread. Needs a tokio runtime.
    pub fn connect_in(namespace: BorrowedFd<'_>) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        netns::within(namespace, move || {
            let _entered = runtime.enter();
            Self::connect()
        })?
    }
}
