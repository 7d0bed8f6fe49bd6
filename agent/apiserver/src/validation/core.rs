//! Kinds of the core group.

pub mod claim;
pub(super) mod config;
pub(super) mod endpoints;
pub(super) mod event;
pub(super) mod namespace;
pub(super) mod quota;
pub(super) mod service;
