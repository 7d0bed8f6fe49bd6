//! The node's status from what was found. Pure, but for [`NodeFindings::observe`].

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use api::quantity::Amount;
use cri::v1;

use super::facts::{self, Disk, Memory};
use crate::clock::time;
use crate::context::NodeContext;
use crate::observed::Nanos;
use crate::stall::Stall;

/// Images that are reported.
const MAX_IMAGES: usize = 50;
/// Names that are reported for an image.
const MAX_NAMES: usize = 5;
/// Fewer free process ids than this are pressure.
const MIN_PIDS: u64 = 100;
/// The usual port of a kubelet.
const KUBELET_PORT: i32 = 10250;

/// What was found on the machine and in the runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFindings {
    pub(crate) memory: Memory,
    pub(crate) stall: Stall,
    pub(crate) disk: Disk,
    pub(crate) processors: usize,
    pub(crate) free_pids: Option<u64>,
    pub(crate) runtime_version: String,
    /// Why the runtime is not ready.
    pub(crate) runtime_problem: Option<String>,
    pub(crate) handlers: Vec<v1::RuntimeHandler>,
    pub(crate) supplemental_groups_policy: bool,
    pub(crate) images: Vec<v1::Image>,
}

impl NodeFindings {
    /// The machine without its runtime, which may not answer when memory is short.
    pub(crate) fn of_machine(node: &NodeContext) -> Self {
        let memory = facts::memory();
        Self {
            memory,
            stall: Stall::observe(node, memory),
            disk: facts::disk(&node.config.root_dir),
            processors: facts::processors(),
            free_pids: facts::free_pids(),
            ..Self::default()
        }
    }

    pub(crate) async fn observe(node: &NodeContext) -> Self {
        let mut findings = Self::of_machine(node);
        match tokio::try_join!(node.runtime.version(), node.runtime.status(), node.runtime.list_images()) {
            Ok((version, status, images)) => {
                findings.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
                findings.runtime_problem = runtime_problem(&status);
                findings.handlers = status.runtime_handlers;
                findings.supplemental_groups_policy = status.features.is_some_and(|f| f.supplemental_groups_policy);
                findings.images = images;
            }
            Err(error) => findings.runtime_problem = Some(format!("container runtime is down: {error}")),
        }
        findings
    }

    pub(crate) fn has_memory_pressure(&self, node: &NodeContext) -> bool {
        let pressure = &node.config.pressure;
        let is_low = self.memory.total > 0 && self.memory.available < pressure.memory_bytes;
        is_low || self.stall.is_pressure(pressure.stall_percent)
    }

    pub(crate) fn has_disk_pressure(&self, node: &NodeContext) -> bool {
        let pressure = &node.config.pressure;
        let percent = self.disk.total / 100 * u64::from(pressure.disk_percent);
        self.disk.total > 0 && self.disk.available < pressure.disk_bytes.max(percent)
    }
}

fn runtime_problem(status: &v1::StatusResponse) -> Option<String> {
    let conditions = status.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let unmet: Vec<String> = conditions
        .iter()
        .filter(|c| !c.status && matches!(c.r#type.as_str(), "RuntimeReady" | "NetworkReady"))
        .map(|c| {
            let what = if c.r#type == "NetworkReady" {
                "container runtime network not ready"
            } else {
                "container runtime not ready"
            };
            format!("{what}: {}=false reason:{} message:{}", c.r#type, c.reason, c.message)
        })
        .collect();
    if unmet.is_empty() { None } else { Some(unmet.join(", ")) }
}

/// Features that the API server lets pods use only on nodes that name them.
const DECLARED_FEATURES: [&str; 1] = ["InPlacePodVerticalScalingInitContainers"];

/// The status to report; conditions keep the time of their last change.
pub(crate) fn node_status(node: &NodeContext, findings: &NodeFindings, before: &NodeStatus, now: Nanos) -> NodeStatus {
    let capacity = capacity(node, findings);
    let allocatable = allocatable(node, &capacity);
    if let Ok(mut known) = node.allocatable.write() {
        known.clone_from(&allocatable);
    }
    NodeStatus {
        capacity: with_foreign(capacity, &before.capacity),
        allocatable: with_foreign(allocatable, &before.allocatable),
        conditions: conditions(node, findings, before, now),
        addresses: addresses(node),
        daemon_endpoints: NodeDaemonEndpoints {
            kubelet_endpoint: DaemonEndpoint {
                port: node.config.server.as_ref().map_or(KUBELET_PORT, |s| i32::from(s.listen.port())),
            },
        },
        node_info: system_info(node, findings, before),
        images: images(findings),
        runtime_handlers: findings.handlers.iter().map(handler).collect(),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(findings.supplemental_groups_policy) }),
        declared_features: DECLARED_FEATURES.map(str::to_owned).to_vec(),
        ..NodeStatus::default()
    }
}

/// Resources that others put on the node (extended resources) stay.
fn with_foreign(
    mut own: BTreeMap<String, Quantity>,
    before: &BTreeMap<String, Quantity>,
) -> BTreeMap<String, Quantity> {
    for (name, quantity) in before.iter().filter(|(name, _)| name.contains('/')) {
        own.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    own
}

fn quantity(text: impl Into<String>) -> Quantity {
    Quantity { string: text.into() }
}

fn capacity(node: &NodeContext, findings: &NodeFindings) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), quantity(findings.processors.to_string())),
        ("memory".to_owned(), quantity(format!("{}Ki", findings.memory.total / 1024))),
        ("ephemeral-storage".to_owned(), quantity(format!("{}Ki", findings.disk.total / 1024))),
        ("pods".to_owned(), quantity(node.config.max_pods.to_string())),
        ("hugepages-1Gi".to_owned(), quantity("0")),
        ("hugepages-2Mi".to_owned(), quantity("0")),
    ])
}

/// Capacity less what is kept back, and less the memory that must stay free.
fn allocatable(node: &NodeContext, capacity: &BTreeMap<String, Quantity>) -> BTreeMap<String, Quantity> {
    let mut result = capacity.clone();
    let mut take = |name: &str, amount: Amount| {
        if let Some(entry) = result.get_mut(name)
            && let Ok(known) = Amount::parse(&entry.string)
        {
            let left = known.minus(&amount);
            *entry = quantity(if left.is_negative() { "0".to_owned() } else { left.canonical() });
        }
    };
    for (name, text) in &node.config.reserved.amounts {
        if let Ok(amount) = Amount::parse(text) {
            take(name, amount);
        }
    }
    if let Ok(amount) = Amount::parse(&format!("{}", node.config.pressure.memory_bytes)) {
        take("memory", amount);
    }
    result
}

fn addresses(node: &NodeContext) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { r#type: kind.to_owned(), address };
    let ips = node.host_ips().into_iter().map(|ip| address("InternalIP", ip));
    ips.chain([address("Hostname", node.config.node_name.clone())]).collect()
}

fn system_info(node: &NodeContext, findings: &NodeFindings, before: &NodeStatus) -> NodeSystemInfo {
    let runtime = if findings.runtime_version.is_empty() {
        before.node_info.container_runtime_version.clone()
    } else {
        findings.runtime_version.clone()
    };
    NodeSystemInfo {
        machine_id: facts::machine_id(),
        system_uuid: facts::system_uuid(),
        boot_id: facts::boot_id(),
        kernel_version: facts::kernel_release(),
        os_image: facts::os_image(),
        container_runtime_version: runtime,
        kubelet_version: node.config.version.clone(),
        kube_proxy_version: String::new(),
        operating_system: "linux".to_owned(),
        architecture: facts::architecture().to_owned(),
        ..NodeSystemInfo::default()
    }
}

fn images(findings: &NodeFindings) -> Vec<ContainerImage> {
    let mut images: Vec<ContainerImage> = findings
        .images
        .iter()
        .map(|image| ContainerImage {
            names: image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned().collect(),
            size_bytes: i64::try_from(image.size).unwrap_or(i64::MAX),
        })
        .collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    images.truncate(MAX_IMAGES);
    images
}

fn handler(handler: &v1::RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: handler.name.clone(),
        features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

fn conditions(node: &NodeContext, findings: &NodeFindings, before: &NodeStatus, now: Nanos) -> Vec<NodeCondition> {
    let pick = |is_bad: bool, good: (&'static str, &str), bad: (&'static str, &str)| {
        let (reason, message) = if is_bad { bad } else { good };
        (is_bad, reason, message.to_owned())
    };
    let memory = pick(
        findings.has_memory_pressure(node),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    );
    let disk = pick(
        findings.has_disk_pressure(node),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    );
    let pids = pick(
        findings.free_pids.is_some_and(|free| free < MIN_PIDS),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    );
    let ready = match &findings.runtime_problem {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(problem) => (false, "KubeletNotReady", problem.clone()),
    };
    [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pids), ("Ready", ready)]
        .into_iter()
        .map(|(kind, (is_true, reason, message))| {
            let status = if is_true { "True" } else { "False" };
            let same = before.conditions.iter().find(|c| c.r#type == kind && c.status == status);
            NodeCondition {
                r#type: kind.to_owned(),
                status: status.to_owned(),
                last_heartbeat_time: time(now),
                last_transition_time: same.map_or_else(|| time(now), |c| c.last_transition_time),
                reason: reason.to_owned(),
                message,
            }
        })
        .collect()
}
