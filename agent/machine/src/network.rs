//! The network of the machine itself: which links are ours and what they get.
//!
//! The firewall comes before all else (`firewall`). `links` decides which VLANs, bonds and bridges have to be made, and `make` makes them. [`plan`] decides from the
//! manifest and the links what each gets; `apply` gives it to them; `task` keeps it so while links come and leases
//! change. `owned` remembers what was set, and `leftovers` decides what of it is taken back under another manifest.

mod apply;
mod firewall;
mod leftovers;
mod links;
mod make;
mod owned;
mod plan;
mod resolv;
mod routers;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use firewall::{Firewall, plan_firewall};
pub(crate) use task::{Network, NetworkConfig};
