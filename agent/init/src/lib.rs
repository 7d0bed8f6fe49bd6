//! PID 1: boot phases, reaping, one exit path.
//!
//! [`run`] never returns. One thread does everything: it runs the boot phases (`phases.rs` holds the table), then
//! waits on signals, the services' pipes, the notify socket, changed files and device events, and lets the
//! supervisor decide. No async runtime, no network, no TLS; nothing here blocks on a child, except the bounded runs
//! of mkfs and fsck before there are services, and of cryptsetup.
//!
//! Invariants:
//! - no failure of a child, a phase or a manifest ends this process; the operator reads it on the console and the
//!   machine stays reachable for a corrected manifest;
//! - there is one way out (`exit.rs`), and it takes less than 15 seconds unless pods get longer, or disks are slow.
//!
//! It does not know what the services are: the caller's [`Config`] turns a manifest into them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod boots;
mod cmdline;
mod conditions;
mod config;
mod console;
mod crash;
mod devices;
mod environment;
mod exit;
mod extensions;
mod find;
mod form;
mod groups;
mod intake;
mod locks;
mod logs;
mod machine;
mod medium;
mod mend;
mod mended;
mod mounts;
mod network_keys;
mod observe;
mod phases;
mod rekey;
mod renew;
mod run;
mod runner;
mod settings;
mod smbios;
mod sources;
mod stage;
mod state_format;
mod storage;
mod trial;
mod typed;
mod volumes;
mod watchdog;

pub use config::{Config, Paths, ServicesOf};
pub use environment::Environment;
pub use run::run;
