//! Reads what the runtime has of one pod.

use std::collections::{HashMap, HashSet};

use cri::{Error, Runtime, v1};
use futures::future::try_join_all;

use crate::observed::{Observed, SeenContainer, SeenSandbox, sandbox_ips};
use crate::runtime_config::pod_labels;

/// Remembers what cannot change any more, so that it is asked for once.
#[derive(Default)]
pub(crate) struct Observer {
    ended: HashMap<String, v1::ContainerStatus>,
}

impl Observer {
    /// Everything that the runtime has of the pod.
    pub(crate) async fn observe(&mut self, runtime: &dyn Runtime, uid: &str) -> Result<Observed, Error> {
        let (sandboxes, containers) =
            tokio::try_join!(runtime.list_sandboxes(pod_labels(uid)), runtime.list_containers(pod_labels(uid)))?;
        let mut observed = Observed { sandboxes: see_sandboxes(runtime, sandboxes).await?, ..Observed::default() };
        let alive: HashSet<&str> = containers.iter().map(|c| c.id.as_str()).collect();
        self.ended.retain(|id, _| alive.contains(id.as_str()));
        let fresh = containers.iter().filter(|c| !self.ended.contains_key(&c.id));
        let statuses = try_join_all(fresh.map(|c| status_or_gone(runtime, &c.id))).await?;
        let mut statuses: HashMap<String, v1::ContainerStatus> =
            statuses.into_iter().flatten().map(|status| (status.id.clone(), status)).collect();
        for container in containers {
            let Some(status) = self.ended.get(&container.id).cloned().or_else(|| statuses.remove(&container.id)) else {
                continue;
            };
            if status.state() == v1::ContainerState::ContainerExited {
                self.ended.insert(container.id.clone(), status.clone());
            }
            observed.containers.push(SeenContainer::new(&container.pod_sandbox_id, status));
        }
        observed.sort();
        Ok(observed)
    }
}

async fn status_or_gone(runtime: &dyn Runtime, id: &str) -> Result<Option<v1::ContainerStatus>, Error> {
    match runtime.container_status(id).await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn see_sandboxes(runtime: &dyn Runtime, list: Vec<v1::PodSandbox>) -> Result<Vec<SeenSandbox>, Error> {
    let mut seen = Vec::with_capacity(list.len());
    for sandbox in list {
        let status = match runtime.sandbox_status(&sandbox.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        seen.push(SeenSandbox {
            id: sandbox.id,
            attempt: sandbox.metadata.map_or(0, |m| m.attempt),
            is_ready: status.state() == v1::PodSandboxState::SandboxReady,
            created_at: sandbox.created_at,
            ips: sandbox_ips(&status),
        });
    }
    Ok(seen)
}
