//! What the runtime says about one pod.

use std::cmp::Reverse;

use cri::v1;

/// Nanoseconds since 1970, as the runtime counts.
pub(crate) type Nanos = i64;

/// Label and annotation names on sandboxes and containers; upstream's, so that containers can be handed over.
pub(crate) mod keys {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// The image that the pod's spec named when the container was made.
    pub(crate) const SPEC_IMAGE: &str = "keelson.io/spec-image";
}

/// A container's life as the runtime sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container, of this or an earlier sandbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenContainer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox: String,
    pub(crate) restarts: u32,
    pub(crate) life: Life,
    pub(crate) status: v1::ContainerStatus,
    /// It was ended to begin anew with something changed, whatever its restart policy.
    pub(crate) is_revived: bool,
}

impl SeenContainer {
    pub(crate) fn new(sandbox: &str, status: v1::ContainerStatus) -> Self {
        let metadata = status.metadata.clone().unwrap_or_default();
        let restarts = status.annotations.get(keys::RESTART_COUNT).and_then(|count| count.parse().ok());
        let life = match status.state() {
            v1::ContainerState::ContainerCreated => Life::Created,
            v1::ContainerState::ContainerRunning => Life::Running,
            v1::ContainerState::ContainerExited => Life::Exited,
            v1::ContainerState::ContainerUnknown => Life::Unknown,
        };
        Self {
            id: status.id.clone(),
            name: status.labels.get(keys::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
            sandbox: sandbox.to_owned(),
            restarts: restarts.unwrap_or(metadata.attempt),
            life,
            status,
            is_revived: false,
        }
    }

    /// The image name that the pod had when the container was made, if that was noted.
    pub(crate) fn spec_image(&self) -> Option<&str> {
        self.status.annotations.get(keys::SPEC_IMAGE).map(String::as_str)
    }
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenSandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) is_ready: bool,
    pub(crate) created_at: Nanos,
    pub(crate) ips: Vec<String>,
}

/// Everything that the runtime has of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<SeenSandbox>,
    pub(crate) containers: Vec<SeenContainer>,
}

impl Observed {
    /// The newest sandbox, if it is ready.
    pub(crate) fn active(&self) -> Option<&SeenSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.is_ready)
    }

    /// The newest container of this name, of whatever sandbox.
    pub(crate) fn latest(&self, name: &str) -> Option<&SeenContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of this name in the active sandbox.
    pub(crate) fn current(&self, name: &str) -> Option<&SeenContainer> {
        let active = self.active()?;
        self.containers.iter().find(|c| c.name == name && c.sandbox == active.id)
    }

    /// The container of this name that ran before the latest one.
    pub(crate) fn previous(&self, name: &str) -> Option<&SeenContainer> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &SeenContainer> {
        self.containers.iter().filter(|c| c.life == Life::Running)
    }

    /// Whether nothing of the pod can be running any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.sandboxes.iter().all(|s| !s.is_ready)
            && self.containers.iter().all(|c| matches!(c.life, Life::Exited | Life::Created))
    }

    /// Brings what is newest to the front. What counts up tells that before the time does: clocks go back, and then what
    /// was made before seems to be newer.
    pub(crate) fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| Reverse((s.attempt, s.created_at)));
        let sandboxes = &self.sandboxes;
        let attempt = |id: &str| sandboxes.iter().find(|s| s.id == id).map(|s| s.attempt);
        self.containers.sort_by_cached_key(|c| Reverse((attempt(&c.sandbox), c.restarts, c.status.created_at)));
    }
}

/// A sandbox's addresses, the main one first.
pub(crate) fn sandbox_ips(status: &v1::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &status.network else { return Vec::new() };
    std::iter::once(network.ip.clone())
        .chain(network.additional_ips.iter().map(|ip| ip.ip.clone()))
        .filter(|ip| !ip.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_up_tells_what_is_newest_where_the_clock_went_back() {
        let sandbox = |id: &str, attempt, created_at| SeenSandbox {
            id: id.to_owned(),
            attempt,
            is_ready: false,
            created_at,
            ips: Vec::new(),
        };
        let container = |sandbox: &str, restarts, created_at| {
            let status = v1::ContainerStatus { created_at, ..v1::ContainerStatus::default() };
            SeenContainer { restarts, name: "web".to_owned(), ..SeenContainer::new(sandbox, status) }
        };
        let mut seen = Observed {
            sandboxes: vec![sandbox("old", 0, 900), sandbox("new", 1, 500)],
            containers: vec![container("gone", 9, 950), container("old", 1, 910), container("new", 2, 510)],
        };
        seen.sort();
        assert_eq!(seen.sandboxes[0].id, "new");
        assert_eq!(seen.latest("web").unwrap().sandbox, "new");
        assert_eq!(seen.previous("web").unwrap().sandbox, "old");
    }
}
