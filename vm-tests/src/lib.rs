//! Boots clusters in virtual machines or namespaces and watches them.
//!
//! [`cluster`] is a cluster's life, [`plan`] and [`manifests`] what it consists of, [`qemu`] with [`switch`] and
//! [`container`] with [`network`] the two ways to make machines, [`observe`] and [`wait`] how it is seen from outside,
//! [`files`] what it finds there,
//! [`upstream`] what others run in place of a part of it.
//! The agent is an artifact here: nothing of it is linked in but the API client.
//!
//! All that is started is recorded before it is used, so that a cluster can be taken down whatever became of the
//! command that started it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clients;
pub mod cluster;
pub mod container;
pub mod files;
mod filesystem;
pub mod firmware;
pub mod flash;
pub mod forward;
mod hardware;
mod keyboard;
mod leases;
pub mod leftovers;
pub mod manifests;
pub mod network;
pub mod observe;
pub mod plan;
pub mod process;
mod program;
pub mod progress;
pub mod qemu;
pub mod scenarios;
pub mod state;
pub mod switch;
mod tang;
mod tpm;
pub mod upstream;
pub mod visitor;
pub mod wait;
