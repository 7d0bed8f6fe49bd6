//! Certificate authorities, leaf issue and rotation; time and randomness are arguments.
//!
//! - [`Authority`] issues leaves and signs certificate signing requests; [`Key`] is a P-256 key pair, made from given
//!   random bytes or derived from the secret that the masters of a cluster share.
//! - [`Desired`] says which files a master has, [`plan`] compares them with what is there, [`apply`] writes the rest.
//!   Names and subjects are those of kubeadm, so that either can take over from the other.
//! - [`Csr`] reads requests; [`node_client`] and [`node_serving`] decide whether a kubelet may have what it asks for.
//!
//! Invariants: everything except [`observe`] and [`apply`] is pure. A CA is only replaced by one that was trusted beside
//! it before, and stays trusted then: a CA that is damaged, or whose key is gone, is an error, because the whole cluster
//! trusts it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
mod authority;
mod certificate;
mod csr;
mod error;
mod files;
mod key;
mod kubeconfig;
mod moment;
mod node;
mod plan;
mod retire;
mod rotation;

pub use apply::{apply, observe, write_file};
pub use authority::{Authority, Leaf, San, Usage};
pub use certificate::{Certificate, bundle, ca_hash, sha256};
pub use csr::{Csr, create_csr};
pub use error::{CsrDenied, Error};
pub use files::{Desired, MasterNames};
pub use key::{Key, Random, os_random, random_token};
pub use kubeconfig::{Identity, cluster_info, kubeconfig};
pub use node::{node_client, node_serving};
pub use plan::{Action, Observed, Plan, Reason, needs_renewal, plan};
pub use retire::retire;
pub use rotation::may_trust;
