//! A DHCPv4 client: messages, a pure state machine, and the task that sends and receives.

mod client;
mod frame;
mod lease;
mod lent;
mod message;
#[cfg(test)]
mod robust;
mod task;

#[cfg(test)]
pub(crate) use frame::wrap_for_client;
#[cfg(test)]
pub(crate) use message::{Kind, tests::reply};
#[cfg(test)]
pub(crate) use task::wait_on;

pub(crate) use lent::{DhcpStates, Family, Lent, LentRoute, Report};
pub(crate) use task::{DhcpConfig, run};
