//! Pods that this node does not run, or not any longer.

use std::time::Duration;

use reconcile::EventType;

use super::PodWorker;
use crate::clock;
use crate::security::forbidden_sysctl;
use crate::status::Verdict;

impl PodWorker {
    /// Turns a pod away that cannot be on this node together with those that are.
    pub(super) fn admit(&mut self) {
        if self.view.pod.status.start_time.is_some() {
            // A kubelet before this one took it in.
            self.node.host_ports.note(&self.view);
        } else if !self.node.host_ports.take(&self.view) {
            let message = "Predicate NodePorts failed".to_owned();
            self.events.pod(EventType::Warning, "NodePorts", message.clone());
            self.verdict = Some(rejection("NodePorts", &message));
        }
    }

    /// Why the pod must end, if it must.
    pub(super) fn judge(&self) -> Option<Verdict> {
        if let Some(name) = forbidden_sysctl(&self.view) {
            return Some(rejection("SysctlForbidden", &format!("forbidden sysctl: \"{name}\" not allowlisted")));
        }
        if self.deadline_left().is_some_and(|left| left.is_zero()) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            return Some(verdict("DeadlineExceeded", message));
        }
        None
    }

    /// How long the pod may still be active.
    pub(super) fn deadline_left(&self) -> Option<Duration> {
        let limit = self.view.spec().active_deadline_seconds?;
        let started = self.status.borrow().start_time.as_ref()?.unix()?;
        let end = started.saturating_add(limit).saturating_mul(1_000_000_000);
        Some(Duration::from_nanos(u64::try_from(end - clock::now()).unwrap_or(0)))
    }
}

fn rejection(reason: &str, message: &str) -> Verdict {
    verdict(reason, format!("Pod was rejected: {message}"))
}

fn verdict(reason: &str, message: String) -> Verdict {
    Verdict { reason: reason.to_owned(), message, is_disruption: false }
}
