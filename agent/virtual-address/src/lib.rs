//! An address of the API that one master has at a time.
//!
//! The masters elect who has it by VRRP, version 3 (RFC 9568), as routers and keepalived do: whoever has it says so
//! every second by multicast, and whoever hears nothing for 3.6 seconds takes it. No etcd is asked, so that the
//! address moves also while etcd has no majority.
//!
//! ```text
//! API server ready? ─┐
//! link, own address ─┼─▶ Startup, Shutdown ─┐
//! advertisements ────┴──────────────────────┼─▶ election (pure) ─▶ claim, release, advertise, announce
//! timers ───────────────────────────────────┘
//! ```
//!
//! `election` is the RFC's table of states, `packet` and `neighbour` are what travels, `place` chooses the link, and
//! `task` is the I/O around them. `report` tells the first process and people.
//!
//! Whose API server answers, but has lost etcd, gets the lowest priority: it has the address only while nobody is
//! better, as when etcd has no majority.
//!
//! Invariants: a machine whose API server does not answer does not have the address, and none is left on its links, also
//! after a fall. Nothing here is the address's owner in the RFC's sense (priority 255). Neighbours are
//! told the link's own Ethernet address, not the RFC's virtual one, as is usual where no packets are forwarded.
//! VRRP has no secrets: whoever is on the link could take the address, as he could by ARP. It knows nothing of Kubernetes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod election;
mod error;
mod neighbour;
mod packet;
mod place;
mod report;
mod socket;
mod task;
#[cfg(test)]
mod tests;

pub use config::{Config, Readiness};
pub use error::Error;
pub use task::run;
