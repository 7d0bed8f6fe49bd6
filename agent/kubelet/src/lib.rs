//! The node's agent: runs the pods that are bound to this node.
//!
//! One worker task per pod (`worker`) observes the runtime, plans purely (`plan`, `status`, `volumes`) and applies.
//! The manager (`manager`) starts workers for pods from the API server and from files, wakes them on the runtime's
//! events, and ends what nobody wishes. The node's own object (`node`), the HTTPS server (`server`), log rotation and
//! garbage collection are tasks of their own.
//!
//! Invariants: only a pod's worker starts or stops that pod's containers; pods outlive the kubelet and are found again
//! by their labels; nothing asks the runtime per pod in a rhythm (the relist of all pods is the safety net under its
//! events); without an API server pods go on running, being probed and being restarted.
//!
//! What is not here: the container runtime, networks (the runtime calls the plugin), schedulers, and reading of flags
//! or files of configuration (the binary does that).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocation;
mod clock;
mod config;
mod context;
mod dns;
mod ending;
mod environment;
mod error;
mod events;
mod eviction;
mod expand;
mod fields;
mod garbage;
mod handler;
mod hooks;
mod host_ports;
mod images;
mod logs;
mod manager;
mod node;
mod observe;
mod observed;
mod orphans;
mod plan;
mod pod;
mod pod_cgroup;
mod probe_counts;
mod probes;
mod registry_auth;
mod resources;
mod rotation;
mod runtime_config;
mod security;
mod server;
mod sources;
mod stall;
mod static_pods;
mod status;
mod status_writer;
mod task;
mod tokens;
mod volumes;
mod worker;

pub use config::{
    CgroupDriver, Config, ImageCollection, Prepare, Pressure, Reserved, ServerConfig, ServingCertificate,
};
pub use ending::{Ending, Grace};
pub use error::Error;
pub use server::TlsError;
pub use task::{run, run_with};
