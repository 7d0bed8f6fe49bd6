//! Brings a pod's status to the API server: the newest only, again until it is there.

use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::core::v1::{Pod, PodCondition, PodStatus};
use client::{Client, DeleteOptions, Error, Patch};
use reconcile::Backoff;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::context::NodeContext;
use crate::pod::is_static;
use crate::status::{RESIZE_IN_PROGRESS, RESIZE_PENDING};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What the API server shall hear of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) status: PodStatus,
    pub(crate) pod: Arc<Pod>,
    /// The pod has ended and its object may go.
    pub(crate) deletes: bool,
}

/// The sending end; the task ends with it.
pub(crate) struct StatusWriter {
    reports: watch::Sender<Option<Report>>,
}

impl StatusWriter {
    /// Starts to write for a pod. Static pods have a mirror for that, written by its keeper.
    pub(crate) fn spawn(node: &Arc<NodeContext>, pod: &Pod) -> Self {
        let (reports, queue) = watch::channel(None);
        if !is_static(pod) {
            let task = Task { client: node.client.clone(), written: Some(pod.status.clone()) };
            let shutdown = node.shutdown.clone();
            node.tasks.spawn("pod status", async move {
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = task.run(queue) => {}
                }
            });
        }
        Self { reports }
    }

    pub(crate) fn write(&self, report: Report) {
        self.reports.send_if_modified(|known| {
            let is_new = known.as_ref().is_none_or(|k| {
                let is_seen_anew = k.pod.metadata.resource_version != report.pod.metadata.resource_version;
                k.status != report.status || k.deletes != report.deletes || (is_seen_anew && is_overwritten(&report))
            });
            if is_new {
                *known = Some(report);
            }
            is_new
        });
    }
}

/// Whether somebody else has changed a condition that is this node's to tell: the controllers do while they take the node
/// for lost.
fn is_overwritten(report: &Report) -> bool {
    let known = &report.pod.status.conditions;
    let differs = |own: &PodCondition| known.iter().any(|c| c.r#type == own.r#type && c.status != own.status);
    report.status.conditions.iter().any(differs)
}

struct Task {
    client: Client,
    written: Option<PodStatus>,
}

impl Task {
    async fn run(mut self, mut queue: watch::Receiver<Option<Report>>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while queue.changed().await.is_ok() {
            loop {
                let Some(report) = queue.borrow_and_update().clone() else { break };
                match self.write(&report).await {
                    Ok(()) => {
                        backoff.reset();
                        break;
                    }
                    // The object is gone or another one has its name: there is nobody to tell.
                    Err(error) if error.is_not_found() || error.is_conflict() => break,
                    Err(error) => {
                        tracing::warn!(pod = report.pod.metadata.name, error = %stdx::chain(&error), "status not written");
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                }
            }
        }
    }

    async fn write(&mut self, report: &Report) -> Result<(), Error> {
        if self.written.as_ref() != Some(&report.status) || is_overwritten(report) {
            let before = self.written.as_ref().unwrap_or(&report.pod.status);
            patch_status(&self.client, &report.pod, before, &report.status).await?;
            self.written = Some(report.status.clone());
        }
        if report.deletes {
            let meta = &report.pod.metadata;
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some(meta.uid.clone()),
                ..DeleteOptions::default()
            };
            self.client.delete::<Pod>(Some(&meta.namespace), &meta.name, &options).await?;
        }
        Ok(())
    }
}

/// Writes a status over the one that the server has; conditions of others stay.
/// `before` is what was written last.
pub(crate) async fn patch_status(
    client: &Client,
    pod: &Pod,
    before: &PodStatus,
    status: &PodStatus,
) -> Result<(), Error> {
    let meta = &pod.metadata;
    let patch = Patch::Strategic(status_patch(pod, before, status));
    client.patch::<Pod>(Some(&meta.namespace), &meta.name, Some("status"), &patch).await.map(drop)
}

fn status_patch(pod: &Pod, before: &PodStatus, status: &PodStatus) -> Value {
    let whole = Pod { status: status.clone(), ..Pod::default() };
    let mut value = object_value(&whole).get("status").cloned().unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        // Lists that a patch would otherwise merge by key.
        for list in ["podIPs", "hostIPs"] {
            if let Some(Value::Array(items)) = fields.get_mut(list) {
                items.push(json!({"$patch": "replace"}));
            }
        }
        clear_unset(fields);
        // Conditions are merged by type: what is not said would stay.
        let conditions = fields.get_mut("conditions").and_then(Value::as_array_mut);
        conditions.into_iter().flatten().filter_map(Value::as_object_mut).for_each(clear_unset);
        let has = |status: &PodStatus, kind: &str| status.conditions.iter().any(|c| c.r#type == kind);
        for kind in [RESIZE_PENDING, RESIZE_IN_PROGRESS] {
            let was_there = has(before, kind) || has(&pod.status, kind);
            if was_there
                && !has(status, kind)
                && let Some(Value::Array(conditions)) = fields.get_mut("conditions")
            {
                conditions.push(json!({"type": kind, "$patch": "delete"}));
            }
        }
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": value})
}

fn clear_unset(fields: &mut Map<String, Value>) {
    for text in ["reason", "message"] {
        fields.entry(text).or_insert(Value::Null);
    }
}

/// An object in its JSON form.
pub(crate) fn object_value<K: Resource>(object: &K) -> Value {
    let version = K::KIND.api_version();
    let name = Some((version.as_str(), K::KIND.kind));
    // A message that was just encoded decodes.
    api::transcode::proto_to_value(K::KIND.schema(), &object.encode_to_vec(), name).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_others_changed_is_told_again() {
        let status = |ready: &str| PodStatus {
            conditions: vec![PodCondition {
                r#type: "Ready".to_owned(),
                status: ready.to_owned(),
                ..PodCondition::default()
            }],
            ..PodStatus::default()
        };
        let pod = |version: &str, ready: &str| {
            let mut pod = Pod { status: status(ready), ..Pod::default() };
            version.clone_into(&mut pod.metadata.resource_version);
            Arc::new(pod)
        };
        let (reports, mut queue) = watch::channel(None);
        let writer = StatusWriter { reports };
        let mut is_told = |pod| {
            writer.write(Report { status: status("True"), pod, deletes: false });
            let is_new = queue.has_changed().unwrap();
            queue.mark_unchanged();
            is_new
        };
        assert!(is_told(pod("1", "False")));
        assert!(!is_told(pod("1", "False")));
        assert!(!is_told(pod("2", "True")));
        assert!(is_told(pod("3", "False")));
    }
}
