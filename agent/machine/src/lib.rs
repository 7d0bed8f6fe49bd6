//! The machine: network, time, machine API.
//!
//! [`run`] is the role process beside PID 1: it brings the network up as the manifest says (by DHCP where it says
//! nothing), keeps the clock, and answers the machine API. Without a manifest it takes one in ([`Config::manifest`]
//! is `None`), and does nothing else differently.
//!
//! Invariants: nothing here waits for ever, so that a machine without a network or without time servers starts all
//! the same; every wait shows in the status; nothing is served that the service description does not list. It knows
//! nothing of Kubernetes but what a Node says of a master, and owns no link that podnet made.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod capture;
mod chance;
mod clock;
mod config;
mod debug;
mod dhcp;
mod dhcp6;
mod error;
mod etcd;
mod event;
mod lack;
mod logs;
mod look_ups;
mod manifest_url;
mod metrics;
mod network;
mod network_keys;
mod node_role;
mod outbound;
mod redact;
mod retire;
mod status;
mod task;
mod unmet;
mod views;

pub use api::{Peer, Updates};
pub use config::{Config, LookUps, Names};
pub use error::Error;
pub use etcd::{Kept, Master, Snapshots};
pub use node_role::{is_marked, mark_node};
pub use outbound::{logins, outbound};
pub use task::run;
