//! Starting sandboxes and containers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::Secret;
use api::node::v1::RuntimeClass;
use cri::v1;
use reconcile::EventType;

use super::mounts::{MountInput, container_mounts};
use super::notes::SANDBOX;
use super::ops::PodOps;
use crate::clock;
use crate::dns::{DnsInput, kernel_host_name, parse_resolv_conf, pod_dns};
use crate::environment::{EnvironmentInput, Referenced, environment};
use crate::hooks::run_hook;
use crate::images::{ImageError, ImageRequest, ImageStep};
use crate::observed::Nanos;
use crate::plan::KillReason;
use crate::pod::PodContainer;
use crate::pod_cgroup::apply_group;
use crate::runtime_config::{ContainerInput, SandboxInput, container_config, pod_log_dir, sandbox_config};
use crate::security::{run_as, verify_non_root};
use crate::status::Waiting;
use crate::volumes::{VolumeKind, plan_volumes};

/// How long a failed pull is shown as such before it becomes a back-off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(3);
/// Wait before a container that could not be made is tried again.
const START_RETRY: Duration = Duration::from_secs(10);

/// Why a container did not start.
struct StartError {
    reason: &'static str,
    message: String,
    wait: Option<Duration>,
}

impl StartError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), wait: Some(START_RETRY) }
    }
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        let wait = match &error {
            ImageError::BackOff(_, wait) => *wait,
            ImageError::Pull(_) => PULL_ERROR_SHOWN,
            ImageError::NeverPull(_) | ImageError::InvalidName(_) | ImageError::Inspect(_) => START_RETRY,
        };
        Self { reason: error.reason(), message: error.message().to_owned(), wait: Some(wait) }
    }
}

impl PodOps {
    pub(super) async fn create_sandbox(&self, attempt: u32) {
        match self.run_sandbox(attempt).await {
            Ok(()) => {
                let mut notes = self.notes.lock();
                notes.actuated.pod.clone_from(&self.view.spec().resources);
                notes.succeed(SANDBOX);
            }
            Err(why) => {
                let text = format!("Failed to create pod sandbox: {why}");
                self.events.pod(EventType::Warning, "FailedCreatePodSandBox", text);
                self.notes.lock().fail(SANDBOX, Waiting::default(), None);
            }
        }
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<(), String> {
        let handler = self.runtime_handler().await?;
        if let Some(first) = &self.node.config.before_pods {
            first.prepare().await;
        }
        let config = self.sandbox(attempt)?;
        let log_dir = PathBuf::from(&config.log_directory);
        fs::create_dir_all(&log_dir).map_err(|error| format!("make {}: {error}", log_dir.display()))?;
        self.node.runtime.run_sandbox(config, &handler).await.map(drop).map_err(|error| error.to_string())
    }

    async fn runtime_handler(&self) -> Result<String, String> {
        let Some(name) = self.view.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let class = self.node.client.get::<RuntimeClass>(None, name).await;
        class.map(|class| class.handler).map_err(|error| {
            format!("failed to get runtime handler for RuntimeClass \"{name}\": {}", stdx::chain(&error))
        })
    }

    /// The sandbox's configuration; the same for the sandbox and for the containers in it.
    fn sandbox(&self, attempt: u32) -> Result<v1::PodSandboxConfig, String> {
        let config = &self.node.config;
        let cgroup_parent = apply_group(&self.node, &self.view).map_err(|error| stdx::chain(&error).to_string())?;
        let host = parse_resolv_conf(&fs::read_to_string(&config.resolv_conf).unwrap_or_default());
        let dns = DnsInput { servers: &config.cluster_dns, domain: &config.cluster_domain, host };
        Ok(sandbox_config(SandboxInput {
            view: &self.view,
            attempt,
            hostname: kernel_host_name(&self.view, &config.cluster_domain),
            dns: pod_dns(&self.view, &dns),
            log_directory: &self.log_dir(),
            cgroup_parent,
        }))
    }

    fn log_dir(&self) -> PathBuf {
        let view = &self.view;
        pod_log_dir(&self.node.config.pod_logs_dir, view.namespace(), view.name(), view.uid())
    }

    pub(super) async fn start_container(
        &self,
        name: &str,
        restarts: u32,
        after: Option<Nanos>,
        paths: &BTreeMap<String, PathBuf>,
    ) {
        let Some(container) = self.view.container(name) else { return };
        if let Some(finished) = after {
            self.notes.lock().backoff.advance(name, finished, clock::now());
        }
        self.notes.lock().starting.insert(name.to_owned());
        let result = self.bring_up(container, restarts, paths).await;
        let mut notes = self.notes.lock();
        notes.starting.remove(name);
        match result {
            Ok(()) => notes.succeed(name),
            Err(error) => {
                // Of images the steps before have told the details.
                let is_image = error.reason.contains("Image");
                let text = format!("Error: {}", if is_image { error.reason } else { &error.message });
                self.events.container(name, EventType::Warning, "Failed", text);
                let waiting = Waiting { reason: error.reason.to_owned(), message: error.message };
                notes.fail(name, waiting, error.wait);
            }
        }
    }

    async fn bring_up(
        &self,
        container: &PodContainer,
        restarts: u32,
        paths: &BTreeMap<String, PathBuf>,
    ) -> Result<(), StartError> {
        let name = container.name();
        let sandbox = self.seen.active().ok_or_else(|| StartError::new("ContainerCreating", "no sandbox"))?;
        let config = self.sandbox(sandbox.attempt).map_err(|why| StartError::new("CreateContainerConfigError", why))?;
        let referenced = self.referenced().await?;
        let secrets: Vec<_> = self.pull_secrets(&referenced);
        let image = self.image(container, &config, &secrets).await?;
        self.volume_images(container, &config, &secrets).await?;
        let container_config = self.container(container, restarts, &image, &referenced, paths)?;
        let log_path = self.log_dir().join(&container_config.log_path);
        if let Some(parent) = log_path.parent() {
            fs::create_dir_all(parent).map_err(|e| StartError::new("CreateContainerError", e.to_string()))?;
        }
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(container_config),
            sandbox_config: Some(config),
        };
        let runtime = &self.node.runtime;
        let created = runtime.create_container(request).await;
        let id = created.map_err(|error| StartError::new("CreateContainerError", error.message()))?;
        self.events.container(name, EventType::Normal, "Created", "Container created".to_owned());
        self.notes.lock().actuated.containers.insert(name.to_owned(), container.spec.resources.clone());
        let started = runtime.start_container(&id).await;
        started.map_err(|error| StartError::new("RunContainerError", error.message()))?;
        self.events.container(name, EventType::Normal, "Started", "Container started".to_owned());
        if let Err(error) = self.link_log(name, &id, &log_path) {
            tracing::warn!(container = name, %error, "log link not made");
        }
        self.post_start(container, &id).await
    }

    async fn referenced(&self) -> Result<Referenced, StartError> {
        let mut volumes = self.volumes.lock().await;
        volumes.watch_references(&self.view);
        volumes.referenced().await.map_err(|why| StartError::new("CreateContainerConfigError", why))
    }

    fn pull_secrets(&self, referenced: &Referenced) -> Vec<Arc<Secret>> {
        let names = self.view.spec().image_pull_secrets.iter().map(|s| s.name.as_str());
        names.filter_map(|name| referenced.secrets.get(name).cloned().flatten()).collect()
    }

    async fn image(
        &self,
        container: &PodContainer,
        sandbox: &v1::PodSandboxConfig,
        secrets: &[Arc<Secret>],
    ) -> Result<v1::Image, StartError> {
        let spec = &container.spec;
        let image = self.fetch(container.name(), &spec.image, &spec.image_pull_policy, sandbox, secrets).await?;
        let pod = format!("{}_{}({})", self.view.name(), self.view.namespace(), self.view.uid());
        verify_non_root(run_as(&self.view, spec), &image, &pod, &spec.name)
            .map_err(|why| StartError::new("CreateContainerConfigError", why))?;
        Ok(image)
    }

    /// Fetches the images that the container's volumes are made of.
    async fn volume_images(
        &self,
        container: &PodContainer,
        sandbox: &v1::PodSandboxConfig,
        secrets: &[Arc<Secret>],
    ) -> Result<(), StartError> {
        for plan in plan_volumes(&self.view, &self.node.config.root_dir) {
            let VolumeKind::Image { reference, pull_policy } = &plan.kind else { continue };
            if container.spec.volume_mounts.iter().any(|m| m.name == plan.name) {
                self.fetch(container.name(), reference, pull_policy, sandbox, secrets).await?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "steps of one start hand on what they found")]
    async fn fetch(
        &self,
        container: &str,
        image: &str,
        policy: &str,
        sandbox: &v1::PodSandboxConfig,
        secrets: &[Arc<Secret>],
    ) -> Result<v1::Image, ImageError> {
        let request = ImageRequest {
            image,
            policy,
            handler: "",
            secrets,
            sandbox: Some(sandbox.clone()),
            asker: self.view.uid(),
        };
        let tell = |step: ImageStep| {
            let (kind, reason, text) = describe(image, step);
            self.events.container(container, kind, reason, text);
        };
        self.node.images.ensure(&request, &tell).await
    }

    #[allow(clippy::too_many_arguments, reason = "steps of one start hand on what they found")]
    fn container(
        &self,
        container: &PodContainer,
        restarts: u32,
        image: &v1::Image,
        referenced: &Referenced,
        paths: &BTreeMap<String, PathBuf>,
    ) -> Result<v1::ContainerConfig, StartError> {
        let (live, services, allocatable) = (self.live_fields(), self.node.services.list(), self.node.allocatable());
        let input = EnvironmentInput {
            view: &self.view,
            container: &container.spec,
            referenced,
            services: &services,
            live: &live,
            allocatable: &allocatable,
        };
        let wrong = |why| StartError::new("CreateContainerConfigError", why);
        let environment = environment(&input).map_err(wrong)?;
        let mounts = container_mounts(&MountInput {
            node: &self.node,
            view: &self.view,
            container,
            volumes: paths,
            environment: &environment,
            pod_ips: &live.pod_ips,
            restarts,
        })
        .map_err(wrong)?;
        let target = self.seen.current(&container.target).map(|c| c.id.clone()).unwrap_or_default();
        Ok(container_config(ContainerInput {
            view: &self.view,
            container,
            restarts,
            image_id: image.id.clone(),
            environment,
            mounts,
            target_id: target,
            seccomp_root: self.node.seccomp_root(),
            machine_memory: self.node.machine_memory,
        }))
    }

    /// Where log collectors look for logs by container.
    fn link_log(&self, name: &str, id: &str, log: &Path) -> io::Result<()> {
        let dir = &self.node.config.container_logs_dir;
        fs::create_dir_all(dir)?;
        let link = dir.join(format!("{}_{}_{name}-{id}.log", self.view.name(), self.view.namespace()));
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::os::unix::fs::symlink(log, link)
    }

    async fn post_start(&self, container: &PodContainer, id: &str) -> Result<(), StartError> {
        let Some(hook) = container.spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let pod_ip = self.live_fields().pod_ips.first().cloned().unwrap_or_default();
        let runtime = self.node.runtime.as_ref();
        let Err(why) = run_hook(runtime, hook, &container.spec, id, &pod_ip).await else { return Ok(()) };
        let text = format!("PostStartHook failed: {why}");
        self.events.container(container.name(), EventType::Warning, "FailedPostStartHook", text.clone());
        self.kill_container(container.name(), id, KillReason::Unknown, "FailedPostStartHook").await;
        Err(StartError { reason: "PostStartHookError", message: text, wait: Some(Duration::ZERO) })
    }
}

fn describe(image: &str, step: ImageStep) -> (EventType, &'static str, String) {
    match step {
        ImageStep::Present => (
            EventType::Normal,
            "Pulled",
            format!("Container image \"{image}\" already present on machine and can be accessed by the pod"),
        ),
        ImageStep::Pulling => (EventType::Normal, "Pulling", format!("Pulling image \"{image}\"")),
        ImageStep::Pulled { took, waited, bytes } => (
            EventType::Normal,
            "Pulled",
            format!(
                "Successfully pulled image \"{image}\" in {}ms ({}ms including waiting). Image size: {bytes} bytes.",
                took.as_millis(),
                waited.as_millis()
            ),
        ),
        ImageStep::Failed(why) => (EventType::Warning, "Failed", format!("Failed to pull image \"{image}\": {why}")),
        ImageStep::BackingOff => (EventType::Normal, "BackOff", format!("Back-off pulling image \"{image}\"")),
    }
}
