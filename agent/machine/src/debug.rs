//! A container to look around in: made for one caller, and gone with them.
//!
//! ```text
//! image ─▶ sandbox with the machine's network ─▶ container with a terminal ─▶ attached ─▶ all of it removed
//!                    └────────── what fails here, too ──────────────────────────┘
//! ```
//!
//! The kubelet does not know of it: it has none of a pod's labels. Whatever a machine API that was ended left behind is
//! removed by the next one ([`sweep`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::{Logins, Runtime, v1};
use lifecycle::Shutdown;
use machine_api::DebugRequest;
use stdx::{Backoff, chain};

/// By which all of them are found.
const LABEL: &str = "keelson.debug";
const NAME: &str = "keelson-debug";
/// Where the machine's root is, for those that may see it.
const ROOT: &str = "/host";
/// An image that is not there gets no longer to come.
const PULL: Duration = Duration::from_secs(600);
/// The runtime is started after us, and again whenever it has to be.
const AGAIN: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30), jitter: 0.0 };
/// More than any command is made of.
const WORDS: usize = 64;
/// Neither is a name longer.
const LENGTH: usize = 4096;

/// Who makes debug containers.
pub(crate) trait Maker: Send + Sync {
    /// Makes one and starts it; answers where its terminal is. What was made in vain is removed by [`Maker::end`], too.
    fn begin(&self, id: &str, asked: &DebugRequest) -> impl Future<Output = Result<String, String>> + Send;
    /// Removes it.
    fn end(&self, id: &str) -> impl Future<Output = Result<(), String>> + Send;
}

/// The machine's container runtime.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// As whom it asks for images.
    pub(crate) logins: Logins,
}

impl Maker for Containerd {
    async fn begin(&self, id: &str, asked: &DebugRequest) -> Result<String, String> {
        let runtime = self.client()?;
        let image = v1::ImageSpec { image: asked.image.clone(), ..v1::ImageSpec::default() };
        let has_image = runtime.image_status(image.clone()).await.map_err(failed)?.is_some();
        let sandbox_config = sandbox(id, asked);
        if !has_image {
            let pulled = tokio::time::timeout(PULL, self.pull(&runtime, &image, &sandbox_config)).await;
            pulled.map_err(|_elapsed| format!("{}: it did not come within {} s", asked.image, PULL.as_secs()))??;
        }
        let pod_sandbox_id = runtime.run_sandbox(sandbox_config.clone(), "").await.map_err(failed)?;
        let config = Some(container(image, asked));
        let create = v1::CreateContainerRequest { pod_sandbox_id, config, sandbox_config: Some(sandbox_config) };
        let container_id = runtime.create_container(create).await.map_err(failed)?;
        runtime.start_container(&container_id).await.map_err(failed)?;
        let attach = v1::AttachRequest { container_id, stdin: true, tty: true, stdout: true, stderr: false };
        runtime.attach_url(attach).await.map_err(failed)
    }

    async fn end(&self, id: &str) -> Result<(), String> {
        remove(&self.client()?, HashMap::from([(LABEL.to_owned(), id.to_owned())])).await
    }
}

impl Containerd {
    fn client(&self) -> Result<cri::Client, String> {
        cri::Client::new(&self.socket).map_err(failed)
    }

    /// Fetches an image as whom its registry and its mirrors know, or as nobody where they know none.
    async fn pull(
        &self,
        runtime: &cri::Client,
        image: &v1::ImageSpec,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<(), String> {
        let mut known: Vec<_> = self.logins.of(&image.image).into_iter().map(Some).collect();
        let last = known.pop().flatten();
        let ask = |auth| {
            let sandbox_config = Some(sandbox.clone());
            runtime.pull_image(v1::PullImageRequest { image: Some(image.clone()), auth, sandbox_config })
        };
        for auth in known {
            if ask(auth).await.is_ok() {
                return Ok(());
            }
        }
        ask(last).await.map(drop).map_err(failed)
    }
}

fn failed(error: cri::Error) -> String {
    chain(&error).to_string()
}

/// Removes sandboxes, with what is in them.
async fn remove(runtime: &dyn Runtime, labels: HashMap<String, String>) -> Result<(), String> {
    for sandbox in runtime.list_sandboxes(labels).await.map_err(failed)? {
        runtime.stop_sandbox(&sandbox.id).await.map_err(failed)?;
        runtime.remove_sandbox(&sandbox.id).await.map_err(failed)?;
    }
    Ok(())
}

/// Removes what an earlier machine API left behind, once there is a runtime. `began` is when this one did.
pub(crate) async fn sweep(socket: PathBuf, shutdown: Shutdown) {
    let began = since_epoch();
    for attempt in 0.. {
        match sweep_once(&socket, began).await {
            Ok(0) => return,
            Ok(removed) => return tracing::warn!(removed, "debug containers of an earlier machine API were removed"),
            Err(error) => tracing::debug!(error, "no runtime yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN.base(attempt)) => {}
            () = shutdown.wait() => return,
        }
    }
}

async fn sweep_once(socket: &Path, began: Duration) -> Result<usize, String> {
    let runtime = cri::Client::new(socket).map_err(failed)?;
    let all = runtime.list_sandboxes(HashMap::new()).await.map_err(failed)?;
    let mut removed = 0;
    for sandbox in left_behind(&all, began) {
        runtime.stop_sandbox(&sandbox.id).await.map_err(failed)?;
        runtime.remove_sandbox(&sandbox.id).await.map_err(failed)?;
        removed += 1;
    }
    Ok(removed)
}

fn left_behind(all: &[v1::PodSandbox], began: Duration) -> impl Iterator<Item = &v1::PodSandbox> {
    let before =
        move |sandbox: &&v1::PodSandbox| u128::try_from(sandbox.created_at).is_ok_and(|at| at < began.as_nanos());
    all.iter().filter(|sandbox| sandbox.labels.contains_key(LABEL)).filter(before)
}

fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Whether one like this is made at all.
///
/// # Errors
/// In words, if not.
pub(crate) fn check(asked: &DebugRequest) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"./:@_-".contains(&byte);
    if asked.image.is_empty() || asked.image.len() > LENGTH || !asked.image.bytes().all(is_name) {
        return Err(format!("{:?} is no name of an image", asked.image));
    }
    if !(1..=DebugRequest::MOST_SECONDS).contains(&asked.seconds) {
        return Err(format!("its time is at least a second, at most {} of them", DebugRequest::MOST_SECONDS));
    }
    if asked.command.len() > WORDS || asked.command.iter().any(|word| word.len() > LENGTH || word.contains('\0')) {
        return Err(format!("a command has at most {WORDS} words of {LENGTH} bytes"));
    }
    Ok(())
}

fn namespaces(asked: &DebugRequest) -> v1::NamespaceOption {
    let pid = if asked.host { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    v1::NamespaceOption {
        network: v1::NamespaceMode::Node.into(),
        pid: pid.into(),
        ipc: pid.into(),
        ..v1::NamespaceOption::default()
    }
}

fn sandbox(id: &str, asked: &DebugRequest) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: format!("{NAME}-{id}"),
        uid: id.to_owned(),
        namespace: "keelson".to_owned(),
        attempt: 0,
    };
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(asked)),
        privileged: asked.host,
        ..v1::LinuxSandboxSecurityContext::default()
    };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        labels: HashMap::from([(LABEL.to_owned(), id.to_owned())]),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        ..v1::PodSandboxConfig::default()
    }
}

fn container(image: v1::ImageSpec, asked: &DebugRequest) -> v1::ContainerConfig {
    // Looking at the network takes more than a pod may.
    let capabilities = v1::Capability {
        add_capabilities: ["NET_ADMIN", "NET_RAW"].map(str::to_owned).to_vec(),
        ..v1::Capability::default()
    };
    let security = v1::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces(asked)),
        privileged: asked.host,
        capabilities: (!asked.host).then_some(capabilities),
        ..v1::LinuxContainerSecurityContext::default()
    };
    let root = v1::Mount {
        container_path: ROOT.to_owned(),
        host_path: "/".to_owned(),
        propagation: v1::MountPropagation::PropagationHostToContainer.into(),
        ..v1::Mount::default()
    };
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: NAME.to_owned(), attempt: 0 }),
        image: Some(image),
        command: asked.command.clone(),
        mounts: asked.host.then_some(root).into_iter().collect(),
        stdin: true,
        stdin_once: true,
        tty: true,
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(security),
            ..v1::LinuxContainerConfig::default()
        }),
        ..v1::ContainerConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: bool) -> DebugRequest {
        DebugRequest { image: "docker.io/library/busybox:1".to_owned(), seconds: 60, host, ..DebugRequest::default() }
    }

    #[test]
    fn only_those_of_the_host_may_do_everything() {
        for host in [false, true] {
            let asked = asked(host);
            let made = container(v1::ImageSpec::default(), &asked);
            let security = made.linux.unwrap().security_context.unwrap();
            assert_eq!((security.privileged, made.mounts.len()), (host, usize::from(host)));
            assert_eq!(security.capabilities.is_some(), !host);
            let namespaces = security.namespace_options.unwrap();
            assert_eq!(namespaces.network(), v1::NamespaceMode::Node);
            assert_eq!(namespaces.pid() == v1::NamespaceMode::Node, host);
            let sandbox = sandbox("x", &asked);
            assert_eq!(
                sandbox.linux.unwrap().security_context.unwrap().namespace_options.unwrap().pid(),
                namespaces.pid()
            );
            assert_eq!(sandbox.labels.len(), 1, "none of a pod's, by which the kubelet would take it for one");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(check(&asked(true)), Ok(()));
        let table = [
            (DebugRequest { image: String::new(), ..asked(false) }, "no name of an image"),
            (DebugRequest { image: "a b".to_owned(), ..asked(false) }, "no name of an image"),
            (DebugRequest { seconds: 0, ..asked(false) }, "at least a second"),
            (DebugRequest { seconds: 5 * 3600, ..asked(false) }, "at most"),
            (DebugRequest { command: vec!["x".to_owned(); 100], ..asked(false) }, "at most 64 words"),
        ];
        for (asked, expected) in table {
            assert!(check(&asked).unwrap_err().contains(expected), "{asked:?}");
        }
    }

    #[test]
    fn only_what_was_left_behind_is_swept_away() {
        let sandbox = |id: &str, label: &str, created_at: i64| v1::PodSandbox {
            id: id.to_owned(),
            labels: HashMap::from([(label.to_owned(), "x".to_owned())]),
            created_at,
            ..v1::PodSandbox::default()
        };
        let all = [sandbox("old", LABEL, 5), sandbox("own", LABEL, 15), sandbox("pod", "io.kubernetes.pod.uid", 5)];
        let left: Vec<&str> = left_behind(&all, Duration::from_nanos(10)).map(|it| it.id.as_str()).collect();
        assert_eq!(left, ["old"]);
    }
}
