//! The interface over a unix socket.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::{Error, EventStream, Runtime, v1};

/// Deadline of calls that read or change one thing.
const CALL: Duration = Duration::from_secs(120);
/// Deadline of a sandbox start: network plugins may be slow.
const SANDBOX: Duration = Duration::from_secs(240);
/// A pull without an end is worse than one started again.
const PULL: Duration = Duration::from_secs(60 * 60);
/// Added to a container's own grace period.
const STOP_MARGIN: Duration = Duration::from_secs(120);
/// Lists of many containers and images are larger than the usual 4 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A container runtime behind a unix socket. Connects when first used and again after the runtime was restarted.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Client {
    /// A client for the socket at `path` (a leading `unix://` is taken off). Needs a runtime to be entered, does not
    /// connect yet.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let text = path.to_string_lossy();
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
        if !path.is_absolute() {
            return Err(Error::Endpoint(path));
        }
        let endpoint = Endpoint::from_static("http://cri.invalid");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        }));
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let images = ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { runtime, images })
    }
}

async fn within<T>(
    call: &'static str,
    deadline: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, answer).await {
        Err(_elapsed) => Err(Error::Deadline { call, seconds: deadline.as_secs() }),
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if status.code() == tonic::Code::DeadlineExceeded => {
            Err(Error::Deadline { call, seconds: deadline.as_secs() })
        }
        Ok(Err(status)) => Err(failed(call, &status)),
    }
}

fn failed(call: &'static str, status: &Status) -> Error {
    Error::Call { call, code: status.code(), message: status.message().to_owned() }
}

/// "Not there" is what was wished for when stopping and removing.
fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// To the nearest: of what a pod gets to end, a little has always gone by when the runtime is asked.
fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.saturating_add(Duration::from_millis(500)).as_secs()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Runtime for Client {
    async fn version(&self) -> Result<v1::VersionResponse, Error> {
        let request = v1::VersionRequest { version: "v1".to_owned() };
        within("Version", CALL, self.runtime.clone().version(request)).await
    }

    async fn status(&self) -> Result<v1::StatusResponse, Error> {
        within("Status", CALL, self.runtime.clone().status(v1::StatusRequest { verbose: false })).await
    }

    async fn cgroup_driver(&self) -> Result<Option<v1::CgroupDriver>, Error> {
        match within("RuntimeConfig", CALL, self.runtime.clone().runtime_config(v1::RuntimeConfigRequest {})).await {
            Ok(answer) => Ok(answer.linux.map(|linux| linux.cgroup_driver())),
            Err(Error::Call { code: tonic::Code::Unimplemented, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn events(&self) -> Result<EventStream, Error> {
        const NAME: &str = "GetContainerEvents";
        let stream = within(NAME, CALL, self.runtime.clone().get_container_events(v1::GetEventsRequest {})).await?;
        Ok(stream.map(|event| event.map_err(|status| failed(NAME, &status))).boxed())
    }

    async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String, Error> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let answer = within("RunPodSandbox", SANDBOX, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within("StopPodSandbox", SANDBOX, self.runtime.clone().stop_pod_sandbox(request)).await.map(drop))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within("RemovePodSandbox", CALL, self.runtime.clone().remove_pod_sandbox(request)).await.map(drop))
    }

    async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Error> {
        const NAME: &str = "PodSandboxStatus";
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = within(NAME, CALL, self.runtime.clone().pod_sandbox_status(request)).await?;
        answer.status.ok_or(Error::Incomplete { call: NAME, part: "status" })
    }

    async fn list_sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<v1::PodSandbox>, Error> {
        let filter = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(within("ListPodSandbox", CALL, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }

    async fn create_container(&self, request: v1::CreateContainerRequest) -> Result<String, Error> {
        Ok(within("CreateContainer", CALL, self.runtime.clone().create_container(request)).await?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        within("StartContainer", CALL, self.runtime.clone().start_container(request)).await.map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: whole_seconds(grace) };
        let deadline = grace.saturating_add(STOP_MARGIN);
        gone_is_fine(within("StopContainer", deadline, self.runtime.clone().stop_container(request)).await.map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(within("RemoveContainer", CALL, self.runtime.clone().remove_container(request)).await.map(drop))
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Error> {
        const NAME: &str = "ContainerStatus";
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = within(NAME, CALL, self.runtime.clone().container_status(request)).await?;
        answer.status.ok_or(Error::Incomplete { call: NAME, part: "status" })
    }

    async fn list_containers(&self, labels: HashMap<String, String>) -> Result<Vec<v1::Container>, Error> {
        let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(within("ListContainers", CALL, self.runtime.clone().list_containers(request)).await?.containers)
    }

    async fn update_resources(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<(), Error> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        let answer = self.runtime.clone();
        within("UpdateContainerResources", CALL, { answer }.update_container_resources(request)).await.map(drop)
    }

    async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        within("ReopenContainerLog", CALL, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, Error> {
        let request =
            v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: whole_seconds(timeout).max(1) };
        // The runtime keeps the time itself and ends the command; ours is for a runtime that hangs.
        let deadline = timeout.saturating_add(Duration::from_secs(5));
        within("ExecSync", deadline, self.runtime.clone().exec_sync(request)).await
    }

    async fn exec_url(&self, request: v1::ExecRequest) -> Result<String, Error> {
        Ok(within("Exec", CALL, self.runtime.clone().exec(request)).await?.url)
    }

    async fn attach_url(&self, request: v1::AttachRequest) -> Result<String, Error> {
        Ok(within("Attach", CALL, self.runtime.clone().attach(request)).await?.url)
    }

    async fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String, Error> {
        Ok(within("PortForward", CALL, self.runtime.clone().port_forward(request)).await?.url)
    }

    async fn container_stats(&self, labels: HashMap<String, String>) -> Result<Vec<v1::ContainerStats>, Error> {
        let filter = v1::ContainerStatsFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        Ok(within("ListContainerStats", CALL, self.runtime.clone().list_container_stats(request)).await?.stats)
    }

    async fn sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Error> {
        let request = v1::ListPodSandboxStatsRequest { filter: None };
        Ok(within("ListPodSandboxStats", CALL, self.runtime.clone().list_pod_sandbox_stats(request)).await?.stats)
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>, Error> {
        Ok(within("ListImages", CALL, self.images.clone().list_images(v1::ListImagesRequest { filter: None }))
            .await?
            .images)
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Error> {
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        Ok(within("ImageStatus", CALL, self.images.clone().image_status(request)).await?.image)
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Result<String, Error> {
        Ok(within("PullImage", PULL, self.images.clone().pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Error> {
        let request = v1::RemoveImageRequest { image: Some(image) };
        gone_is_fine(within("RemoveImage", CALL, self.images.clone().remove_image(request)).await.map(drop))
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error> {
        within("ImageFsInfo", CALL, self.images.clone().image_fs_info(v1::ImageFsInfoRequest {})).await
    }
}
