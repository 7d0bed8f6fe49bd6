//! `pod-garbage-collector-controller`: pods that nobody else ends or removes.

use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{Node, Pod};
use client::{DeleteOptions, Patch};
use reconcile::{Action, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, now};
use crate::error::{During, Error};
use crate::pods::is_finished;

/// Ended pods that are kept, as upstream's default.
const KEPT: usize = 12_500;
/// Pause between looks.
const PERIOD: Duration = Duration::from_secs(20);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub(crate) struct PodCollector {
    context: Context,
}

impl Controller for PodCollector {
    const NAME: &'static str = "pod-garbage-collector-controller";
    const WORKERS: usize = 1;
    const NEEDS: &'static [Need] = &[need::pods, need::nodes];

    fn watch(&self, queue: &Queue<Key>, _reflectors: &mut Reflectors) {
        // One run looks at all pods.
        queue.add(Key::default());
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, _key: Key) -> Result<Action, Error> {
        let (pods, nodes) = (self.context.caches.pods.list(), self.context.caches.nodes.list());
        for pod in plan(&pods, &nodes, KEPT) {
            force_delete(&self.context, &pod, None).await?;
        }
        Ok(Action::RequeueAfter(PERIOD))
    }
}

/// Pods to be deleted: the oldest ended ones beyond `kept`, those that were deleted before they had a node, and
/// those that cannot end since their node was taken out of service.
fn plan(pods: &[Arc<Pod>], nodes: &[Arc<Node>], kept: usize) -> Vec<Arc<Pod>> {
    let out = |name: &str| {
        nodes.iter().any(|node| {
            let ready = node.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True");
            node.metadata.name == name && !ready && node.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE)
        })
    };
    let deleted = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
    let stuck = |pod: &&Arc<Pod>| pod.spec.node_name.is_empty() || out(&pod.spec.node_name);
    let mut collected: Vec<Arc<Pod>> = pods.iter().filter(deleted).filter(stuck).cloned().collect();
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_finished(pod)).collect();
    ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.unix(), pod.metadata.name.clone()));
    let surplus = ended.len().saturating_sub(kept);
    collected.extend(ended.into_iter().take(surplus).cloned());
    collected
}

/// Deletes a pod that has nobody to end it. One that has not ended counts as failed, so that who waits for its end
/// sees one; `why` is told as its disruption.
pub(crate) async fn force_delete(context: &Context, pod: &Pod, why: Option<&str>) -> Result<(), Error> {
    let meta = &pod.metadata;
    let (namespace, name) = (Some(meta.namespace.as_str()), meta.name.as_str());
    if !is_finished(pod) {
        let mut status = serde_json::json!({"phase": "Failed"});
        if let Some(message) = why {
            let time = api::time::format_seconds(now());
            status["conditions"] = serde_json::json!([{"type": "DisruptionTarget", "status": "True",
                "reason": "DeletionByPodGC", "message": message, "lastTransitionTime": time}]);
        }
        let patch = Patch::Strategic(serde_json::json!({"metadata": {"uid": meta.uid}, "status": status}));
        match context.client.patch::<Pod>(namespace, name, Some("status"), &patch).await {
            Err(error) if !error.is_not_found() => return Err(error).during("marking a lost pod as failed"),
            _ => {}
        }
    }
    let options =
        DeleteOptions { grace_period_seconds: Some(0), uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
    match context.client.delete::<Pod>(namespace, name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).during("deleting a lost pod"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use api::core::v1::Taint;
    use api::meta::v1::Time;

    use super::*;

    fn pod(name: &str, phase: &str, node: &str, deleted: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = name.to_owned();
        pod.metadata.deletion_timestamp = deleted.then(|| Time::from_unix(1));
        pod.status.phase = phase.to_owned();
        pod.spec.node_name = node.to_owned();
        Arc::new(pod)
    }

    #[test]
    fn what_nobody_ends_is_collected() {
        let mut lost = Node::default();
        lost.metadata.name = "lost".to_owned();
        lost.spec.taints = vec![Taint { key: OUT_OF_SERVICE.to_owned(), ..Taint::default() }];
        let pods = [
            pod("a", "Succeeded", "n", false),
            pod("b", "Failed", "n", false),
            pod("unscheduled", "Pending", "", true),
            pod("stuck", "Running", "lost", true),
            pod("ending", "Running", "n", true),
            pod("runs", "Running", "lost", false),
        ];
        let names: Vec<_> = plan(&pods, &[Arc::new(lost)], 1).iter().map(|pod| pod.metadata.name.clone()).collect();
        assert_eq!(names, ["unscheduled", "stuck", "a"]);
    }
}
