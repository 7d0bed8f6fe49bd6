//! Pod addresses, links and routes.
//!
//! Two halves that meet in one file. [`run`] watches Nodes: it writes the CNI configuration of this node once its
//! pod range is known, and keeps a route to every other node's range. [`cni`] is the plugin that the container
//! runtime calls for each pod: a pair of links, an address from the node's range, a route on both sides.
//!
//! Pods hang on no bridge: each is one routed link, and the other end of every packet's first hop is the node. A pod's
//! gateway is a link-local address that exists nowhere; fixed neighbour entries on both sides replace asking for it.
//! So pods see no broadcasts of each other, and traffic from a pod to itself by a Service takes the same way as any
//! other. Nothing here knows Services; NetworkPolicy has no place here yet.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
pub mod cni;
mod config;
mod hostport;
mod lease;
mod plan;
mod task;

pub use config::Config;
pub use hostport::{HostPort, LINK_PREFIX, Transport};
pub use lease::{Lease, LeaseError, Leases};
pub use task::{Error, run};
