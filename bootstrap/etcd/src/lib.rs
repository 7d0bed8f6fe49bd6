//! etcd on a master: its configuration, its members, its snapshots.
//!
//! [`Config`] renders what etcd reads. [`prepare`] runs before each start of etcd and decides what this start is: the
//! first of a new cluster, one of many, a learner's, that of a restored snapshot, or the recovery of a lost quorum.
//! [`Access`] reaches members, [`observe`] tells how they are, and the functions of `guard` say what may be done to
//! them without risking the quorum. [`Incoming`] and [`Restore`] take snapshots in, and believe none whose digest is
//! another one. [`leave`] is for a machine that is no master any more.
//!
//! Invariants: a vote is given only to a learner that has caught up; data are set aside and not deleted, but by a member
//! that leaves others who live, with what was set aside before; an order to recover counts for one start. Starting and
//! stopping etcd is others' work.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod bolt;
mod config;
mod error;
mod guard;
mod leave;
mod member;
mod observe;
mod snapshot;
mod start;

pub use address::{Whereabouts, follow_address};
pub use config::{CLIENT_PORT, Config, METRICS_PORT, Member, PEER_PORT, Start, is_ready, readiness_url};
pub use error::Error;
pub use guard::{defragmentation_order, may_recover, may_remove, may_replace};
pub use leave::{Left, give_up, has_member, leave};
pub use member::{Access, Link, SnapshotStream};
pub use observe::{DIFFER, DIFFER_FIX, differ, observe};
pub use snapshot::{Incoming, Restore};
pub use start::{is_left_behind, is_secluded, order_recovery, prepare, promote};
