//! The network of the machine itself: which links are ours and what they get.
//!
//! [`plan`] decides from the manifest and the links; `apply` gives links what was decided; `task` keeps it so while
//! links come and leases change.

mod apply;
mod plan;
mod resolv;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use task::{Network, NetworkConfig};
