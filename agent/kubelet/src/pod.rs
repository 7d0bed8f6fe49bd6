//! A pod as this node looks at it: one flat list of containers, each with its kind.

use std::sync::Arc;

use api::core::v1::{Container, EphemeralContainerCommon, Pod, PodSecurityContext, PodSpec};

/// Annotation that names where a pod came from.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of the API server's picture of a static pod.
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with a static pod's fingerprint.
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Grace period of a pod whose spec has none.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, runs beside the others.
    Sidecar,
    /// What the pod is there for.
    Regular,
    /// Added to a running pod to look into it.
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodContainer {
    pub(crate) kind: ContainerKind,
    pub(crate) spec: Container,
    /// The container whose processes an ephemeral container shares.
    pub(crate) target: String,
}

/// What to do once a container has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse_policy(text: &str) -> Self {
        match text {
            "OnFailure" => Self::OnFailure,
            "Never" => Self::Never,
            _ => Self::Always,
        }
    }
}

impl PodContainer {
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether this container starts again after it ended with `exit_code`.
    pub(crate) fn is_restarted(&self, pod: RestartPolicy, exit_code: i32) -> bool {
        if self.kind == ContainerKind::Ephemeral {
            return false;
        }
        for rule in &self.spec.restart_policy_rules {
            let Some(codes) = &rule.exit_codes else { continue };
            let listed = codes.values.contains(&exit_code);
            let matched = if codes.operator == "NotIn" { !listed } else { listed };
            if matched && rule.action == "Restart" {
                return true;
            }
        }
        match self.policy(pod) {
            RestartPolicy::Always => self.kind != ContainerKind::Init || exit_code != 0,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// The container's own restart policy, else the pod's.
    pub(crate) fn policy(&self, pod: RestartPolicy) -> RestartPolicy {
        match self.spec.restart_policy.as_deref() {
            Some(own) if !own.is_empty() => RestartPolicy::parse_policy(own),
            _ => pod,
        }
    }
}

/// A pod with its containers in the order init (and sidecars), regular, ephemeral.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) containers: Vec<PodContainer>,
    pub(crate) restart_policy: RestartPolicy,
}

impl PodView {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let spec = &pod.spec;
        let init = spec.init_containers.iter().map(|c| PodContainer {
            kind: if c.restart_policy.as_deref() == Some("Always") {
                ContainerKind::Sidecar
            } else {
                ContainerKind::Init
            },
            spec: c.clone(),
            target: String::new(),
        });
        let regular = spec.containers.iter().map(|c| PodContainer {
            kind: ContainerKind::Regular,
            spec: c.clone(),
            target: String::new(),
        });
        let ephemeral = spec.ephemeral_containers.iter().map(|c| PodContainer {
            kind: ContainerKind::Ephemeral,
            spec: plain_container(&c.ephemeral_container_common),
            target: c.target_container_name.clone(),
        });
        let containers = init.chain(regular).chain(ephemeral).collect();
        let restart_policy = RestartPolicy::parse_policy(&spec.restart_policy);
        Self { pod, containers, restart_policy }
    }

    pub(crate) fn uid(&self) -> &str {
        uid_of(&self.pod)
    }

    pub(crate) fn name(&self) -> &str {
        &self.pod.metadata.name
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        &self.pod.spec
    }

    pub(crate) fn container(&self, name: &str) -> Option<&PodContainer> {
        self.containers.iter().find(|c| c.name() == name)
    }

    pub(crate) fn of_kind(&self, kind: ContainerKind) -> impl Iterator<Item = &PodContainer> {
        self.containers.iter().filter(move |c| c.kind == kind)
    }

    /// Init containers and sidecars, in order.
    pub(crate) fn init(&self) -> impl DoubleEndedIterator<Item = &PodContainer> {
        self.containers.iter().filter(|c| matches!(c.kind, ContainerKind::Init | ContainerKind::Sidecar))
    }

    pub(crate) fn security(&self) -> Option<&PodSecurityContext> {
        self.pod.spec.security_context.as_ref()
    }

    /// Seconds between the wish to stop and the kill.
    pub(crate) fn grace_seconds(&self) -> i64 {
        if self.pod.metadata.deletion_timestamp.is_some()
            && let Some(grace) = self.pod.metadata.deletion_grace_period_seconds
        {
            return grace.max(0);
        }
        self.pod.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// The identity under which this node runs a pod; a mirror pod's is that of its static pod.
pub(crate) fn uid_of(pod: &Pod) -> &str {
    &pod.metadata.uid
}

pub(crate) fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.get(CONFIG_SOURCE).is_some_and(|source| source != "api")
}

pub(crate) fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.contains_key(CONFIG_MIRROR)
}

fn plain_container(common: &EphemeralContainerCommon) -> Container {
    Container {
        name: common.name.clone(),
        image: common.image.clone(),
        command: common.command.clone(),
        args: common.args.clone(),
        working_dir: common.working_dir.clone(),
        env: common.env.clone(),
        env_from: common.env_from.clone(),
        resources: common.resources.clone(),
        volume_mounts: common.volume_mounts.clone(),
        termination_message_path: common.termination_message_path.clone(),
        termination_message_policy: common.termination_message_policy.clone(),
        image_pull_policy: common.image_pull_policy.clone(),
        security_context: common.security_context.clone(),
        stdin: common.stdin,
        stdin_once: common.stdin_once,
        tty: common.tty,
        ..Container::default()
    }
}
