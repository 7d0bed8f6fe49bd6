//! The join handshake of a machine as a state machine.
//!
//! ```text
//!            no CA              no usable client certificate      no usable serving certificate
//! start ──► Discover ──────────► RequestClient ──────────────────► RequestServing ──► SleepUntil ─┐
//!   ▲        by the pinned hash    by the token, or by the           by the client                │
//!   │                              certificate that is to be         certificate                  │
//!   └──────────────────────────────renewed ◄──────────────────────────────────────────────────────┘
//! ```
//!
//! [`plan`] says the next step from what lies on disk and the time; [`Join::run`] does it and asks again. So a restart
//! at any point goes on where it was, and a machine that was off past the expiry of its certificates falls back to
//! its token. What others need, they get from [`Certificates`].
//!
//! While one CA takes the place of another one, the manifest names both: a node with one of them works and looks for the
//! other one before it sleeps, and what the one signed that does not issue any more is renewed soon.
//!
//! Invariants: the token is only shown to a server whose certificate a pinned CA signed, and a CA is only taken if the
//! manifest has its hash. A key and its certificate lie in one file, so that no crash can separate them. Approval is not
//! decided here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod discovery;
mod error;
mod files;
mod plan;
mod request;
mod task;

pub use config::{Config, Trust};
pub use error::Error;
pub use files::{NodeIdentity, Pair, adopt};
pub use plan::{Credential, Held, Observed, Step, plan, rotation_time};
pub use task::{Certificates, Join};
