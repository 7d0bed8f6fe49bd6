//! A thin typed wrapper of the container runtime interface, version 1.
//!
//! [`Runtime`] is what a kubelet asks of a container runtime; [`Client`] speaks it over a unix socket. Every call has
//! a deadline, so that a stuck runtime shows up as an error and never as a task that waits for ever. This crate knows
//! no pods: requests and answers are the interface's own messages, re-exported as [`v1`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod error;
mod log;
mod login;
mod registry;
mod runtime;

pub use client::Client;
pub use error::Error;
pub use k8s_cri::v1;
pub use log::{LogLine, parse_log_line};
pub use login::{Login, Logins};
pub use registry::{HUB, HUB_HOST, host_of, registry_of};
pub use runtime::{EventStream, Runtime};
