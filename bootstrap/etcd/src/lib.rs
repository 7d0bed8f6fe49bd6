//! etcd configuration and membership planning.
//!
//! [`Config`] renders what etcd reads; [`plan_membership`] says the next single step that brings an observed membership
//! to the wanted one without ever risking the quorum. Everything here is pure. Starting etcd, speaking to it and taking
//! snapshots are others' work.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod membership;

pub use config::{CLIENT_PORT, Config, METRICS_PORT, Member, PEER_PORT, is_ready, readiness_url};
pub use membership::{MembershipStep, ObservedMember, WaitReason, plan_membership};
