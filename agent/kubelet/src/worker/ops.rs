//! The steps of a pod's life that take time. Each is a future that its worker may drop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use reconcile::EventType;

use super::notes::{Notes, SANDBOX};
use super::volumes::PodVolumes;
use crate::context::NodeContext;
use crate::events::PodEvents;
use crate::fields::LiveFields;
use crate::observed::Observed;
use crate::plan::PodAction;
use crate::pod::PodView;
use crate::status::Waiting;

/// Everything the steps of one pod need.
#[derive(Clone)]
pub(super) struct PodOps {
    pub(super) node: Arc<NodeContext>,
    pub(super) view: Arc<PodView>,
    pub(super) events: PodEvents,
    pub(super) notes: Arc<Notes>,
    pub(super) volumes: Arc<tokio::sync::Mutex<PodVolumes>>,
    pub(super) seen: Arc<Observed>,
}

impl PodOps {
    pub(super) fn live_fields(&self) -> LiveFields {
        let host_ips = self.node.host_ips();
        let pod_ips = if self.view.spec().host_network {
            host_ips.clone()
        } else {
            self.seen.active().map(|s| s.ips.clone()).unwrap_or_default()
        };
        LiveFields { host_ips, pod_ips }
    }

    /// Brings volumes up to date without starting anything.
    pub(super) async fn refresh_volumes(self) {
        if let Err(failure) = self.volumes.lock().await.sync(&self.view, &self.live_fields()).await {
            self.events.pod(EventType::Warning, "FailedMount", failure.message);
        }
    }

    /// Does what the plan says: kills first, then the sandbox, then starts in order.
    pub(super) async fn apply(self, actions: Vec<PodAction>) {
        let (kills, starts): (Vec<_>, Vec<_>) = actions.into_iter().partition(|action| match action {
            PodAction::StopSandbox(_) | PodAction::KillContainer { .. } | PodAction::RemoveContainer(_) => true,
            PodAction::Resize(_) | PodAction::CreateSandbox(_) | PodAction::StartContainer { .. } => false,
        });
        futures::future::join_all(kills.iter().map(|action| self.apply_kill(action))).await;
        let (resizes, starts): (Vec<_>, Vec<_>) =
            starts.into_iter().partition(|action| matches!(action, PodAction::Resize(_)));
        for action in resizes {
            if let PodAction::Resize(names) = action {
                self.resize(&names).await;
            }
        }
        if starts.is_empty() {
            return;
        }
        let paths = match self.mount_volumes().await {
            Some(paths) => paths,
            None => return,
        };
        for action in starts {
            match action {
                PodAction::CreateSandbox(attempt) => {
                    self.create_sandbox(attempt).await;
                }
                PodAction::StartContainer { name, restarts, after } => {
                    self.start_container(&name, restarts, after, &paths).await;
                }
                PodAction::StopSandbox(_)
                | PodAction::KillContainer { .. }
                | PodAction::RemoveContainer(_)
                | PodAction::Resize(_) => {}
            }
        }
    }

    async fn mount_volumes(&self) -> Option<BTreeMap<String, PathBuf>> {
        let mut volumes = self.volumes.lock().await;
        match volumes.sync(&self.view, &self.live_fields()).await {
            Ok(()) => Some(volumes.paths(&self.view)),
            Err(failure) => {
                self.events.pod(EventType::Warning, "FailedMount", failure.message);
                self.notes.lock().fail(SANDBOX, Waiting::default(), None);
                None
            }
        }
    }
}
