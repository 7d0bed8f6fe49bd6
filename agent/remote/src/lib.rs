//! Files on other servers: fetched from web servers and registries, kept in object stores.
//!
//! ```text
//! https://… ───────────────┐
//! registry/repo:tag ── manifest ── blob ──▶ Download: parts, resumed where it broke off, bounded, digest compared
//! s3://bucket/key ── Store ┘
//!                      └──◀── a file, by one PUT whose digest the server compares
//! ```
//!
//! What the owner of the machine knows of servers (passwords, CAs) and of the way to them (a proxy) is [`Outbound`]; a
//! [`Peer`] is one server as it is asked then.
//!
//! Invariants: what was fetched is told to be whole only after its length, and its digest where one is known, were
//! compared; passwords go to the server that they are for (and to where a registry gives tokens)
//! and not to where it redirects, and those of [`Outbound`] by TLS only; no way leads from `https` to
//! `http`; errors show no password and no query of an address, which may be one; nothing is held in memory but a part.
//!
//! It does not know what the files are, nor whether what comes without TLS is to be believed: see [`Artifact::is_proved`]
//! and [`is_private`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod connection;
mod download;
mod error;
mod listing;
mod outbound;
mod registry;
mod sign;
mod store;
#[cfg(test)]
mod tests;

pub use access::{Access, S3Key, Trust};
pub use download::{Download, Source};
pub use error::Error;
pub use outbound::{Exception, Known, Login, Outbound, Peer, Proxy};
pub use registry::{Artifact, Place, Reference, UPDATE_TYPE, resolve};
pub use store::{MOST_BYTES, Store, Stored};

/// Whether nobody between us and the server can change what comes.
#[must_use]
pub fn is_private(url: &url::Url, trust: &Trust) -> bool {
    url.scheme() == "https" && !matches!(trust, Trust::Anybody)
}

/// An address as errors and logs show it: without what may be a secret.
#[must_use]
pub fn shown(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}
