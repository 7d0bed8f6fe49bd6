//! Files and groups of pods that are no more.

use std::sync::Arc;

use crate::context::NodeContext;
use crate::pod_cgroup::remove_group;
use crate::resources::Qos;
use crate::volumes::apply::remove_pod_dir;

/// Takes away what the node kept for a pod of which only the uid is known.
pub(crate) async fn remove_orphan_files(node: &Arc<NodeContext>, uid: &str) {
    let (system, dir) = (node.system.clone(), node.pod_dir(uid));
    let removed = tokio::task::spawn_blocking(move || remove_pod_dir(system.as_ref(), &dir)).await;
    match removed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(uid, error = %stdx::chain(&error), "orphaned files not removed"),
        Err(error) => tracing::warn!(uid, %error, "orphaned files not removed"),
    }
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        if let Err(error) = remove_group(node, qos, uid) {
            tracing::warn!(uid, error = %stdx::chain(&error), "orphaned group not removed");
        }
    }
}
