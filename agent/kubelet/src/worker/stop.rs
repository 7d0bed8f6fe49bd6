//! Killing containers and whole pods.

use std::time::Duration;

use reconcile::EventType;
use tokio::time::Instant;

use super::ops::PodOps;
use crate::hooks::run_hook;
use crate::observed::{Life, SeenContainer};
use crate::plan::{KillReason, PodAction};
use crate::pod::{ContainerKind, PodContainer};

/// Every container gets at least this long to end by itself.
const LEAST_GRACE: Duration = Duration::from_secs(2);

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

impl PodOps {
    pub(super) async fn apply_kill(&self, action: &PodAction) {
        match action {
            PodAction::StopSandbox(id) => {
                if self.seen.containers.iter().any(|c| c.sandbox == *id) {
                    let text = "Pod sandbox changed, it will be killed and re-created.".to_owned();
                    self.events.pod(EventType::Normal, "SandboxChanged", text);
                }
                self.stop_sandbox(id).await;
            }
            PodAction::KillContainer { id, name, reason, restarts } => {
                let text = kill_message(name, *reason, *restarts);
                if reason.is_change() {
                    self.notes.lock().revived.insert(id.clone());
                }
                self.kill_container(name, id, *reason, &text).await;
            }
            PodAction::RemoveContainer(id) => {
                if let Err(error) = self.node.runtime.remove_container(id).await {
                    tracing::warn!(container = id, %error, "container not removed");
                }
            }
            PodAction::CreateSandbox(_) | PodAction::StartContainer { .. } | PodAction::Resize(_) => {}
        }
    }

    async fn stop_sandbox(&self, id: &str) {
        if let Err(error) = self.node.runtime.stop_sandbox(id).await {
            self.events.pod(EventType::Warning, "FailedKillPod", format!("error killing pod: {error}"));
        }
    }

    /// Ends one container in the pod's own time, or in that of the probe that gave it up.
    pub(super) async fn kill_container(&self, name: &str, id: &str, reason: KillReason, text: &str) {
        let spec = self.view.container(name).map(|c| &c.spec);
        let probe = spec.and_then(|spec| match reason {
            KillReason::Liveness => spec.liveness_probe.as_ref(),
            KillReason::Startup => spec.startup_probe.as_ref(),
            KillReason::ImageChanged | KillReason::Resized | KillReason::Unknown => None,
        });
        let own = probe.and_then(|p| p.termination_grace_period_seconds);
        let grace = seconds(own.unwrap_or_else(|| self.view.grace_seconds()));
        self.events.container(name, EventType::Normal, "Killing", text.to_owned());
        self.end_container(self.view.container(name), id, Instant::now() + grace).await;
    }

    /// Runs preStop and stops the container, all before `deadline`.
    async fn end_container(&self, container: Option<&PodContainer>, id: &str, deadline: Instant) {
        let left = || deadline.saturating_duration_since(Instant::now());
        let hook = container.and_then(|c| Some((c, c.spec.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((container, hook)) = hook.filter(|_| !left().is_zero()) {
            let pod_ip = self.live_fields().pod_ips.first().cloned().unwrap_or_default();
            let run = run_hook(self.node.runtime.as_ref(), hook, &container.spec, id, &pod_ip);
            let failure = match tokio::time::timeout(left(), run).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(_elapsed) => Some("it did not end within the grace period".to_owned()),
            };
            if let Some(why) = failure {
                let text = format!("PreStopHook failed: {why}");
                self.events.container(container.name(), EventType::Warning, "FailedPreStopHook", text);
            }
        }
        if let Err(error) = self.node.runtime.stop_container(id, left().max(LEAST_GRACE)).await {
            tracing::warn!(container = id, %error, "container not stopped");
        }
    }

    /// Ends the pod: regular containers together, then sidecars from the last to the first, then the sandbox.
    pub(super) async fn stop_pod(self, deadline: Instant) {
        let is_up = |c: &&SeenContainer| matches!(c.life, Life::Running | Life::Unknown);
        let kind = |c: &SeenContainer| self.view.container(&c.name).map(|c| c.kind);
        let is_sidecar = |c: &SeenContainer| kind(c) == Some(ContainerKind::Sidecar);
        let stop = async |c: &SeenContainer| {
            let text = format!("Stopping container {}", c.name);
            self.events.container(&c.name, EventType::Normal, "Killing", text);
            self.end_container(self.view.container(&c.name), &c.id, deadline).await;
        };
        let main = self.seen.containers.iter().filter(is_up).filter(|c| !is_sidecar(c));
        futures::future::join_all(main.map(&stop)).await;
        for sidecar in self.view.of_kind(ContainerKind::Sidecar).collect::<Vec<_>>().into_iter().rev() {
            for seen in self.seen.containers.iter().filter(is_up).filter(|c| c.name == sidecar.name()) {
                stop(seen).await;
            }
        }
        for sandbox in self.seen.sandboxes.iter().filter(|s| s.is_ready) {
            self.stop_sandbox(&sandbox.id).await;
        }
    }
}

fn kill_message(name: &str, reason: KillReason, restarts: bool) -> String {
    let then = if restarts { ", will be restarted" } else { "" };
    match reason {
        KillReason::Liveness => format!("Container {name} failed liveness probe{then}"),
        KillReason::Startup => format!("Container {name} failed startup probe{then}"),
        KillReason::ImageChanged => format!("Container {name} definition changed{then}"),
        KillReason::Resized => format!("Container {name} resize requires restart"),
        KillReason::Unknown => format!("Container {name} is in an unknown state{then}"),
    }
}
