//! The machine API: its service description (`proto/`), and what people read of its answers.
//!
//! The messages are made from the description. Those that are also kept in files, or shown, have a form in JSON: the first
//! process writes down what the machine API answers. Times are seconds since boot where nothing else is said, so that they
//! mean the same before and after the clock was set.

mod apply;
mod boot;
mod calls;
mod check;
mod condition;
mod etcd;
mod event;
mod facts;
mod log;
mod network;
mod pods;
mod request;
mod status;
mod system;
mod table;
mod view;
mod virtual_address;
mod words;

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "made by tools")]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/keelson.machine.v1.rs"));
}

pub use calls::{CALLS, Call, DESCRIPTION};
pub use event::{EVENTS_LOG, EventKind, detail};
pub use log::{parse_time, time_of};
pub use network::{InterfaceStatus, NameServer, NameServerTls, NameServers, NetworkStatus};
pub use table::{Row, size, span, table};
pub use v1::*;
pub use view::{Shown, View};
