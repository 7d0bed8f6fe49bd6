//! The control group tree: which hierarchy the machine has, and groups in it.
//!
//! Machines have the unified hierarchy (v2); hosts that lend namespaces may have the older one, a tree per controller
//! (v1). A [`Group`] is one name in either, and speaks v2's terms: on v1 what has no counterpart is left out. This
//! crate knows nothing of services and keeps no state: the kernel is the only memory.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod group;
mod hierarchy;
mod limits;
mod pod;
mod usage;

pub use error::Error;
pub use group::Group;
pub use hierarchy::{Controller, Hierarchy, Version};
pub use limits::{CpuQuota, Limits};
pub use pod::{PodLimits, apply_pod_group, weight_of_shares};
pub use usage::Usage;
