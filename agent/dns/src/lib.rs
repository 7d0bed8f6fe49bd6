//! The cluster's DNS, answered on every node from watch caches.
//!
//! ```text
//!   query ──▶ zone (pure, over a Directory of Services and EndpointSlices) ──▶ answer
//!                └─ not the cluster's name ──▶ cache ──▶ resolvers of the longest domain ──▶ one server after the other:
//!                                                        UDP and TCP, or TLS on one connection (secure)
//! ```
//!
//! The same forwarding and cache, without a zone, serves the look-ups of the machine itself ([`cache`]).
//!
//! Follows version 1.1.0 of Kubernetes' DNS specification. The node itself holds the cluster's DNS address, so that a
//! query never leaves the machine it was asked on, and no proxy or extra pod stands in its way.
//!
//! Invariants: a server that is to be asked by TLS is asked by nothing else; what one set of servers said answers for no
//! other; names of a domain that has servers of its own go to nobody else, whether these answer or not.
//!
//! What is not here: zone transfers, DNSSEC, updates; a record of which pods exist (pod names are computed).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod clock;
mod config;
mod counters;
mod directory;
mod forward;
mod resolvers;
mod respond;
mod secure;
mod server;
mod task;
mod trust;
mod upstream;
mod wire;
mod zone;

pub use config::{Config, Upstreams};
pub use directory::Directory;
pub use server::{Server, View};
pub use task::{Error, cache, run};
