//! Typed API client over any tower service.
//!
//! A [`Client`] speaks the Kubernetes protocol to a TLS socket ([`Client::new`]) or to a server in the same process
//! ([`Client::from_service`]); the code above it cannot tell the difference. Objects travel in the protobuf encoding,
//! patches and errors from in-between proxies as JSON.
//!
//! Invariants: every request but a watch ends within [`Config::timeout`]; a request is sent again only when the server
//! asked for that with `Retry-After`; watches use connections of their own, so that they never take the last stream
//! from a request.
//!
//! What is not here: caches and retries of whole operations (see the `reconcile` crate), and reading of environment
//! variables or default paths (the binary does that).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod auth;
mod client;
mod codec;
mod config;
mod error;
mod fetch;
mod hook;
mod judge;
mod kubeconfig;
mod metadata;
mod params;
mod path;
mod roots;
mod tls;
mod transport;
mod unverified;
mod watch;

pub use client::Client;
pub use config::{Config, Identity};
pub use error::{BoxError, ConfigError, DecodeError, Error, Result};
pub use fetch::{Fetcher, host_authorities};
pub use hook::{Hook, HookError};
pub use judge::{Judge, Shown, Verifier};
pub use params::{DeleteOptions, ListParams, Patch, Propagation, WatchParams};
pub use path::ObjectPath;
pub use roots::Roots;
pub use transport::{Dialer, Io, RequestBody, ResponseBody, Way};
pub use unverified::AnyCertificate;
pub use watch::WatchEvent;
