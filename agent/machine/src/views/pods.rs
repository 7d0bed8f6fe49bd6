//! Pods and containers, as the container runtime has them: also while there is no API server.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cri::{Runtime, v1};
use futures::StreamExt;
use machine_api::{ContainerStatus, PodStatus};
use stdx::chain;

use super::ROWS;

/// Labels that the kubelet gives what it makes.
const CONTAINER: &str = "io.kubernetes.container.name";
const POD: &str = "io.kubernetes.pod.name";
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// How many containers the runtime is asked about at once.
const AT_ONCE: usize = 8;

/// All pods.
pub(super) async fn pods(socket: &Path) -> Result<Vec<PodStatus>, String> {
    let runtime = cri::Client::new(socket).map_err(failed)?;
    let sandboxes = runtime.list_sandboxes(HashMap::new()).await.map_err(failed)?;
    let containers = runtime.list_containers(HashMap::new()).await.map_err(failed)?;
    let now = SystemTime::now();
    let mut pods: Vec<PodStatus> =
        sandboxes.into_iter().take(ROWS).map(|sandbox| pod(sandbox, &containers, now)).collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name, a.attempt).cmp(&(&b.namespace, &b.name, b.attempt)));
    Ok(pods)
}

fn pod(sandbox: v1::PodSandbox, containers: &[v1::Container], now: SystemTime) -> PodStatus {
    let state = match sandbox.state() {
        v1::PodSandboxState::SandboxReady => "ready",
        v1::PodSandboxState::SandboxNotready => "not-ready",
    };
    let own = || containers.iter().filter(|container| container.pod_sandbox_id == sandbox.id);
    let runs = |container: &&v1::Container| container.state() == v1::ContainerState::ContainerRunning;
    let (running, all) = (own().filter(runs).count(), own().count());
    let age_seconds = age(sandbox.created_at, now);
    let metadata = sandbox.metadata.unwrap_or_default();
    PodStatus {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        state: state.to_owned(),
        attempt: metadata.attempt,
        age_seconds,
        running: running as u64,
        containers: all as u64,
        id: sandbox.id,
    }
}

/// All containers; of those that ended, how.
pub(super) async fn containers(socket: &Path) -> Result<Vec<ContainerStatus>, String> {
    let runtime = cri::Client::new(socket).map_err(failed)?;
    let listed = runtime.list_containers(HashMap::new()).await.map_err(failed)?;
    let now = SystemTime::now();
    let asked = listed.into_iter().take(ROWS).map(|listed| {
        let runtime = &runtime;
        async move {
            // One that went meanwhile is told as it was listed.
            let has_ended = listed.state() == v1::ContainerState::ContainerExited;
            let status = if has_ended { runtime.container_status(&listed.id).await.ok() } else { None };
            container(listed, status, now)
        }
    });
    let mut containers: Vec<ContainerStatus> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let key = |it: &ContainerStatus| (it.namespace.clone(), it.pod.clone(), it.name.clone(), it.attempt);
    containers.sort_by_key(key);
    Ok(containers)
}

fn container(mut listed: v1::Container, ended: Option<v1::ContainerStatus>, now: SystemTime) -> ContainerStatus {
    let state = match listed.state() {
        v1::ContainerState::ContainerCreated => "created",
        v1::ContainerState::ContainerRunning => "running",
        v1::ContainerState::ContainerExited => "exited",
        v1::ContainerState::ContainerUnknown => "unknown",
    };
    let exit = ended.as_ref().map(|ended| format!("{} ({})", ended.reason, ended.exit_code).trim_start().to_owned());
    let image = listed
        .image
        .take()
        .map(|image| if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image });
    let mut label = |name: &str| listed.labels.remove(name).unwrap_or_default();
    let (namespace, pod, labelled) = (label(NAMESPACE), label(POD), label(CONTAINER));
    let metadata = listed.metadata.unwrap_or_default();
    ContainerStatus {
        namespace,
        pod,
        name: if labelled.is_empty() { metadata.name } else { labelled },
        state: state.to_owned(),
        exit,
        message: ended.map(|ended| ended.message).filter(|message| !message.is_empty()),
        attempt: metadata.attempt,
        age_seconds: age(listed.created_at, now),
        image: image.unwrap_or_default(),
        id: listed.id,
    }
}

fn age(created_nanos: i64, now: SystemTime) -> f64 {
    let created = UNIX_EPOCH + Duration::from_nanos(u64::try_from(created_nanos).unwrap_or_default());
    now.duration_since(created).unwrap_or_default().as_secs_f64()
}

fn failed(error: cri::Error) -> String {
    format!("the container runtime does not answer: {}", chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, state: v1::ContainerState) -> v1::Container {
        let labels = [(NAMESPACE, "shop"), (POD, "web-1"), (CONTAINER, "nginx")];
        v1::Container {
            id: id.to_owned(),
            pod_sandbox_id: "s1".to_owned(),
            metadata: Some(v1::ContainerMetadata { name: "nginx".to_owned(), attempt: 2 }),
            state: state.into(),
            created_at: 10_000_000_000,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            image: Some(v1::ImageSpec {
                image: "sha256:1".to_owned(),
                user_specified_image: "nginx:1".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn pods_and_containers_are_told_as_the_runtime_has_them() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let all = [
            listed("c1", v1::ContainerState::ContainerRunning),
            listed("c2", v1::ContainerState::ContainerExited),
            v1::Container { pod_sandbox_id: "s2".to_owned(), ..listed("c3", v1::ContainerState::ContainerRunning) },
        ];
        let metadata =
            v1::PodSandboxMetadata { name: "web-1".to_owned(), namespace: "shop".to_owned(), ..Default::default() };
        let sandbox = v1::PodSandbox {
            id: "s1".to_owned(),
            metadata: Some(metadata),
            state: v1::PodSandboxState::SandboxNotready.into(),
            created_at: 40_000_000_000,
            ..Default::default()
        };
        let told = pod(sandbox, &all, now);
        assert_eq!((told.namespace.as_str(), told.name.as_str(), told.state.as_str()), ("shop", "web-1", "not-ready"));
        assert_eq!((told.running, told.containers, told.age_seconds), (1, 2, 60.0));

        let [_, exited, _] = all;
        let status = v1::ContainerStatus {
            exit_code: 137,
            reason: "OOMKilled".to_owned(),
            message: "no memory".to_owned(),
            ..Default::default()
        };
        let told = container(exited, Some(status), now);
        let expected = ContainerStatus {
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            name: "nginx".to_owned(),
            state: "exited".to_owned(),
            exit: Some("OOMKilled (137)".to_owned()),
            message: Some("no memory".to_owned()),
            attempt: 2,
            age_seconds: 90.0,
            image: "nginx:1".to_owned(),
            id: "c2".to_owned(),
        };
        assert_eq!(told, expected);
    }
}
