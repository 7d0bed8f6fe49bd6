//! The API server: one pipeline and one handler per verb over the kind table.
//!
//! ```text
//!  socket ─▶ serve ─▶ pipeline ─▶ handlers ─┬─ reads:  cache (stored bytes) ─▶ codec ─▶ answer
//!            (TLS)    (who, may    (verbs)   └─ writes: codec ─▶ defaults ─▶ strategy ─▶ admission ─▶ store
//!                      they, how many)                                                               │
//!                                              cache ◀──────── one watch over everything ◀───────────┘
//! ```
//!
//! Invariants: an object at rest is its stored bytes, and reads copy those; a kind is a row of the table, and code
//! that names a kind lives in `strategy`, `admission` or `services`; every write is guarded by the revision it was
//! computed from; every buffer has a budget, and a client that asks for what fell out gets 410.
//!
//! It knows nothing of controllers, of the scheduler or of how the store keeps its data.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(unreachable_pub, reason = "modules are private; `pub` marks what a module offers to the others")]

mod access;
mod admission;
mod aggregate;
mod answer;
mod app;
mod asked;
mod audited;
pub mod auth;
mod backend;
mod browsers;
mod cache;
mod codec;
mod config;
mod custom;
mod defaults;
mod describe;
pub mod discovery;
mod ending;
mod error;
mod expressions;
mod features;
mod fields;
mod flow;
mod handlers;
mod handover;
mod health;
mod managed;
mod metrics;
#[cfg(test)]
#[path = "../tests/support/mutation.rs"]
mod mutation;
mod negotiate;
mod nonresource;
pub mod openapi;
mod patch;
mod peers;
mod pipeline;
mod printers;
mod request;
mod resolve;
mod reviewed;
mod serve;
mod served;
mod services;
mod spdy;
mod start;
mod status;
mod strategy;
mod table;
mod task;
mod traced;
mod tree;
mod used_tokens;
mod user;
mod validation;
mod versions;
mod websocket;
mod wire;
mod zpages;

pub use admission::{AdmissionSettings, PluginError, Plugins, SettingsError};
pub use answer::{Body, BodyError, BoxError};
pub use auth::authn::{Oidc, TokenWebhook};
pub use auth::authz::settings::{Mode, WebhookSettings};
pub use auth::token::TokenRules;
pub use browsers::{Browsers, BrowsersError};
pub use config::{
    Authorization, Conduct, Config, EndpointReconciler, FrontProxy, FrontProxyHeaders, IpRange, IpRangeError,
    KubeletClient, NamedCertificate, ProxyClient, Stopping, Tls,
};
pub use error::Error;
pub use features::unmet_features;
pub use serve::{ApiService, TlsError, TlsLimits};
pub use served::{Served, ServedError};
pub use task::{run, service};
pub use user::User;
