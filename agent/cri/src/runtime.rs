//! What a kubelet asks of a container runtime.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{Error, v1};

/// Container life cycle events as they happen; ends when the runtime goes away.
pub type EventStream = BoxStream<'static, Result<v1::ContainerEventResponse, Error>>;

/// The container runtime. Calls may be made concurrently; each ends within its deadline. Dropping the future of a
/// call asks the runtime to give it up; what it did until then shows in the next listing.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version.
    async fn version(&self) -> Result<v1::VersionResponse, Error>;
    /// Conditions (runtime and network readiness), handlers and features.
    async fn status(&self) -> Result<v1::StatusResponse, Error>;
    /// The cgroup driver that the runtime wants used; none if the runtime does not say.
    async fn cgroup_driver(&self) -> Result<Option<v1::CgroupDriver>, Error>;
    /// A stream of what happens to containers from now on.
    async fn events(&self) -> Result<EventStream, Error>;

    /// Creates and starts a sandbox with its network; returns its id.
    async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String, Error>;
    /// Stops a sandbox and everything in it, releases its network. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), Error>;
    /// Removes a sandbox and its containers. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), Error>;
    /// One sandbox with its addresses.
    async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Error>;
    /// The sandboxes that carry all of `labels`.
    async fn list_sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<v1::PodSandbox>, Error>;

    /// Creates a container in a sandbox; returns its id.
    async fn create_container(&self, request: v1::CreateContainerRequest) -> Result<String, Error>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<(), Error>;
    /// Asks the container to stop and kills it after `grace`. Idempotent; returns once it has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error>;
    /// Removes a container; kills it if it runs. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), Error>;
    /// One container.
    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Error>;
    /// The containers that carry all of `labels`.
    async fn list_containers(&self, labels: HashMap<String, String>) -> Result<Vec<v1::Container>, Error>;
    /// Changes a running container's limits.
    async fn update_resources(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<(), Error>;
    /// Makes the runtime write on in a new log file.
    async fn reopen_log(&self, id: &str) -> Result<(), Error>;

    /// Runs a command in a container to its end; fails with `Deadline` after `timeout`.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration)
    -> Result<v1::ExecSyncResponse, Error>;
    /// The address at which the runtime serves this command's streams.
    async fn exec_url(&self, request: v1::ExecRequest) -> Result<String, Error>;
    /// The address at which the runtime serves the container's own streams.
    async fn attach_url(&self, request: v1::AttachRequest) -> Result<String, Error>;
    /// The address at which the runtime serves connections into the sandbox.
    async fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String, Error>;

    /// What the containers that carry all of `labels` use.
    async fn container_stats(&self, labels: HashMap<String, String>) -> Result<Vec<v1::ContainerStats>, Error>;
    /// What all sandboxes use.
    async fn sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Error>;

    /// All images.
    async fn list_images(&self) -> Result<Vec<v1::Image>, Error>;
    /// One image, if it is here.
    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Error>;
    /// Fetches an image; returns its reference.
    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String, Error>;
    /// Removes an image. Idempotent.
    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Error>;
    /// Space that images take.
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error>;
}
