//! The cluster's DNS, answered on every node from watch caches.
//!
//! ```text
//!   query ──▶ zone (pure, over a Directory of Services and EndpointSlices) ──▶ answer
//!                └─ not the cluster's name ──▶ forward to the resolvers of the configuration, with a small cache
//! ```
//!
//! The same forwarding and cache, without a zone, serves the look-ups of the machine itself ([`cache`]).
//!
//! Follows version 1.1.0 of Kubernetes' DNS specification. The node itself holds the cluster's DNS address, so that a
//! query never leaves the machine it was asked on, and no proxy or extra pod stands in its way.
//!
//! What is not here: zone transfers, DNSSEC, updates; a record of which pods exist (pod names are computed).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod config;
mod directory;
mod forward;
mod respond;
mod server;
mod task;
mod zone;

pub use config::{Config, Upstreams};
pub use directory::Directory;
pub use server::Server;
pub use task::{Error, cache, run};
