//! Who asked an API server for what: which requests are written down, and where.
//!
//! ```text
//!  request ─▶ Policy ─▶ Record (one per request) ── stages ─▶ Event as JSON ─┬─▶ log file, rotated
//!             (level)   who, what, object, answer                            └─▶ webhook, in batches
//! ```
//! Invariants: a request at level None leaves nothing behind; bodies are in an event only from level Request on;
//! every buffer has a bound, and what does not fit is counted; whoever receives events may be slow or gone without
//! holding up requests, unless a blocking mode was chosen.
//!
//! It knows no HTTP server and no kinds: whoever serves requests tells a [`Record`] what happens.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod event;
mod json;
mod log;
mod policy;
mod record;
mod sink;
mod webhook;

pub use batch::{Batch, Throttle};
pub use event::{Authentication, Event, ObjectReference, Outcome, UserInfo};
pub use json::{compact, without_managed_fields};
pub use log::{Format, LogConfig, LogError};
pub use policy::{Level, Policy, PolicyError, Request, Rule, Stage};
pub use record::Record;
pub use sink::{Auditor, Config, Counts, Error, Mode, Truncation};
pub use webhook::WebhookConfig;
