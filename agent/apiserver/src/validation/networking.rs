//! The group of networking.

pub(super) mod addresses;
pub(super) mod ingress;
pub(super) mod policy;
