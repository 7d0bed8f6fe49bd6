//! The service proxy: Services and EndpointSlices to nftables.
//!
//! ```text
//!   Services, EndpointSlices ──▶ plan (pure) ──▶ Frame: one table per family ──▶ nft, only what differs
//! ```
//!
//! A packet for a Service is looked up twice in maps, whatever their size: one gives the pool of endpoints that its
//! address and port stand for, the other the chain that chooses among that many. Such a chain exists once per
//! distinct number of endpoints; chains of its own has only a Service with session affinity or a `Local` external
//! traffic policy. A change of one Service touches only its own map elements.
//!
//! What is not here: pods, their addresses and routes; node ports that pods ask for; names.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod fragment;
mod frame;
mod health;
mod plan;
mod service;
mod skeleton;
mod task;

pub use config::Config;
pub use frame::Frame;
pub use plan::{Node, Target, plan_service};
pub use service::{ServiceName, ServicePlan};
pub use task::{Error, run};
