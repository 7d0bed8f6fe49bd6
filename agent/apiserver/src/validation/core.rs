//! Kinds of the core group.

pub(super) mod claim;
pub(super) mod config;
pub(super) mod controller;
pub(super) mod endpoints;
pub(super) mod event;
pub(super) mod namespace;
pub(super) mod node;
pub(super) mod quota;
pub(super) mod service;
pub(super) mod volume;
pub(super) mod volume_claim;
pub(super) mod volume_source;
