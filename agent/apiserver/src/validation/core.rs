//! Kinds of the core group.

pub(super) mod config;
