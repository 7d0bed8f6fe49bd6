//! What is taken away once a pod has stopped, and once it is gone.

use std::fs;
use std::io;

use super::PodWorker;
use crate::pod_cgroup::remove_group;
use crate::resources::qos_of;
use crate::runtime_config::pod_log_dir;
use crate::volumes::apply::remove_pod_dir;

impl PodWorker {
    /// Takes the stopped pod's volumes and group away; containers stay for their logs.
    pub(super) async fn clean_up(&mut self) -> Result<(), String> {
        let (system, dir) = (self.node.system.clone(), self.node.pod_dir(self.view.uid()));
        let removed = tokio::task::spawn_blocking(move || remove_pod_dir(system.as_ref(), &dir)).await;
        removed.map_err(|error| error.to_string())?.map_err(|error| stdx::chain(&error).to_string())?;
        remove_group(&self.node, qos_of(&self.view.pod), self.view.uid())
            .map_err(|error| stdx::chain(&error).to_string())
    }

    /// Takes the containers, sandboxes and logs of a pod away that does not exist any more.
    pub(super) async fn remove_remains(&mut self) -> Result<(), cri::Error> {
        let runtime = &self.node.runtime;
        for container in &self.seen.containers {
            runtime.remove_container(&container.id).await?;
            self.unlink_log(&container.name, &container.id);
        }
        for sandbox in &self.seen.sandboxes {
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await?;
        }
        let view = &self.view;
        let dir = pod_log_dir(&self.node.config.pod_logs_dir, view.namespace(), view.name(), view.uid());
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "logs not removed");
        }
        Ok(())
    }

    fn unlink_log(&self, name: &str, id: &str) {
        let file = format!("{}_{}_{name}-{id}.log", self.view.name(), self.view.namespace());
        let link = self.node.config.container_logs_dir.join(file);
        if let Err(error) = fs::remove_file(&link)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(link = %link.display(), %error, "log link not removed");
        }
    }
}
