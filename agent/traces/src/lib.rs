//! Spans: what a request does and how long each part takes, told to a collector by OpenTelemetry's protocol (OTLP).
//!
//! ```text
//!  traceparent ─▶ Tracer ── sampled? ─▶ Span ── at its end ─▶ bounded queue ─▶ Exporter ── gRPC ─▶ collector
//!                                        └─ child spans, and traceparent for servers that are asked
//! ```
//! Invariants: what is not sampled costs random numbers, and where it is a part of somebody's trace a context to tell
//! others of; nobody waits for the collector, and spans that find the queue
//! full are dropped and counted; whether a trace of somebody's is sampled is for those to say who are trusted.
//!
//! It knows no requests: whoever serves them names their spans.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod context;
mod export;
mod proto;
mod settings;
mod span;

pub use context::{Context, inject};
pub use export::Exporter;
pub use settings::{Endpoint, Settings, SettingsError};
pub use span::{Kind, Origin, Span, Tracer, child};
