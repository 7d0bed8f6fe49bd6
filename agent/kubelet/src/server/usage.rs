//! What pods and containers use, as the runtime measures it. Everything that is told of usage comes from here.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use api::core::v1::{ContainerStatus, Pod, PodStatus};
use cri::v1;

use super::Server;
use crate::observed::keys;
use crate::runtime_config::pod_log_dir;

/// One pod of this node that the runtime knows.
pub(super) struct PodUsage {
    pub(super) pod: Arc<Pod>,
    pub(super) status: PodStatus,
    pub(super) linux: v1::LinuxPodSandboxStats,
}

/// A counter; absent where the runtime does not measure it.
pub(super) fn count(value: Option<&v1::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

impl PodUsage {
    /// The containers with their names and when they started, in seconds since 1970.
    pub(super) fn containers(&self) -> impl Iterator<Item = (&str, i64, &v1::ContainerStats)> {
        self.linux.containers.iter().filter_map(|stats| {
            let attributes = stats.attributes.as_ref()?;
            let name = attributes.labels.get(keys::CONTAINER_NAME).map(String::as_str);
            let name = name.or_else(|| attributes.metadata.as_ref().map(|meta| meta.name.as_str()))?;
            Some((name, self.started(name), stats))
        })
    }

    fn started(&self, name: &str) -> i64 {
        let status = &self.status;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
        let found = all.find(|container| container.name == name).and_then(started_at);
        found.or_else(|| self.status.start_time.as_ref()?.unix()).unwrap_or(0)
    }
}

fn started_at(status: &ContainerStatus) -> Option<i64> {
    status.state.running.as_ref()?.started_at.unix()
}

impl Server {
    /// What every pod of this node uses.
    pub(super) async fn pod_usage(&self) -> Result<Vec<PodUsage>, cri::Error> {
        let stats = self.node.runtime.sandbox_stats().await?;
        let mut by_uid: HashMap<String, v1::LinuxPodSandboxStats> = HashMap::new();
        for item in stats {
            let uid = item.attributes.and_then(|a| a.metadata).map(|meta| meta.uid);
            if let (Some(uid), Some(linux)) = (uid, item.linux) {
                by_uid.insert(uid, linux);
            }
        }
        let pods = self.table.list().into_iter();
        Ok(pods
            .filter_map(|(pod, status)| {
                let linux = by_uid.remove(&pod.metadata.uid)?;
                Some(PodUsage { pod, status, linux })
            })
            .collect())
    }

    /// Where a pod's logs lie.
    pub(super) fn log_dir(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        pod_log_dir(&self.node.config.pod_logs_dir, &meta.namespace, &meta.name, &meta.uid)
    }
}
