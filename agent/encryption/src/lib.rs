//! A store whose values are encrypted at rest, byte for byte as upstream encrypts them.
//!
//! ```text
//!  API server ─▶ Encrypted ─▶ store
//!                   │  of each key: which resource ─▶ Providers: the first writes, all read
//!                   └─ identity │ aescbc │ aesgcm │ secretbox │ kms v2 ── Status, Encrypt, Decrypt ─▶ plugin's socket
//! ```
//! Invariants: what is written begins with the name of its provider and key, and is bound to its place where the
//! algorithm can do so; data keys of a plugin never leave the process unencrypted; a value that nobody can decrypt is
//! handed on as it lies there, so that reading it fails and everything else works.
//!
//! It knows no kinds: whoever makes a store tells which resource lies under which key.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cipher;
mod config;
mod envelope;
mod plugin;
mod provider;
mod store;

pub use config::{ConfigError, Configuration, Resource};
pub use provider::{Providers, TransformError};
pub use store::{Encrypted, Error, ResourceOf, Settings};
