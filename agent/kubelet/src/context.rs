//! What every pod of the node shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use api::Quantity;
use api::core::v1::Service;
use cgroups::Hierarchy;
use client::Client;
use cri::Runtime;
use lifecycle::{Shutdown, Tasks};
use reconcile::{Cache, Recorder};
use sys::System;

use crate::allocation::Grants;
use crate::config::Config;
use crate::host_ports::HostPorts;
use crate::images::Images;
use crate::probe_counts::ProbeCounts;
use crate::sources::Sources;
use crate::volumes::pod_dir;

/// The node, as its pods' workers need it.
pub(crate) struct NodeContext {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) system: Arc<dyn System>,
    pub(crate) hierarchy: Option<Hierarchy>,
    pub(crate) recorder: Recorder,
    pub(crate) sources: Sources,
    pub(crate) images: Images,
    pub(crate) services: Cache<Service>,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
    /// Bytes of memory that the machine has.
    pub(crate) machine_memory: i64,
    pub(crate) grants: Grants,
    pub(crate) probe_counts: ProbeCounts,
    pub(crate) host_ports: HostPorts,
    pub(crate) allocatable: RwLock<BTreeMap<String, Quantity>>,
}

impl NodeContext {
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        pod_dir(&self.config.root_dir, uid)
    }

    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.allocatable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn seccomp_root(&self) -> String {
        self.config.root_dir.join("seccomp").to_string_lossy().into_owned()
    }
}
