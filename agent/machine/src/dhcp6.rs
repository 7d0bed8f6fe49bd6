//! A DHCPv6 client for addresses: messages, a pure state machine, and the task that sends and receives.
//!
//! The prefix of the link and the default route are no matter of DHCPv6: routers advertise them, and the kernel
//! listens to that.

mod client;
mod lease;
mod message;
mod task;

#[cfg(test)]
pub(crate) use message::{Kind, tests::reply};

pub(crate) use task::{Dhcp6Config, run};
