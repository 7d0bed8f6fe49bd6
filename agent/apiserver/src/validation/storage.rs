//! The group of storage.

pub(super) mod attachment;
pub(super) mod class;
pub(super) mod csi;
