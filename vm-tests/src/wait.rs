//! Waiting for a cluster to become what it should be. The harness looks from outside, where there is nothing to be
//! woken by, so it looks again and again; each wait has a deadline and says what was missing.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::network;
use crate::observe::{self, Api};
use crate::process::{Process, last_lines};
use crate::progress::Progress;
use crate::state::Provider;

const INTERVAL: Duration = Duration::from_millis(100);
/// Each step, on a machine under emulation, with room.
const STEP_DEADLINE: Duration = Duration::from_secs(300);
/// What is shown of a machine's console when it fails.
const CONSOLE_LINES: usize = 25;

/// Lets a moment pass.
#[allow(clippy::disallowed_methods, reason = "for what is done within milliseconds and cannot be waited on")]
pub(crate) fn pause_blocking() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Tries until it works, for at most `time`.
///
/// # Errors
/// The last error.
pub async fn until_ok<T>(time: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = tokio::time::Instant::now() + time;
    loop {
        match attempt() {
            Err(error) if tokio::time::Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(INTERVAL).await,
            done => return done,
        }
    }
}

/// Tries until `attempt` gives a value, for at most `time`.
///
/// # Errors
/// It took too long; the error tells what was waited for and why it had not come.
pub async fn until<T>(what: &str, time: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = tokio::time::Instant::now() + time;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if tokio::time::Instant::now() > end {
            return Err(error.context(format!("{what} did not come within {} s", time.as_secs())));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks at a cluster until it serves its users.
pub struct Watcher<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Where to tell.
    pub progress: &'a Progress,
}

impl Watcher<'_> {
    /// Waits until the API answers, all nodes are Ready and the sample application answers.
    ///
    /// # Errors
    /// A machine ends, or a step takes too long; the error tells what was waited for and the consoles' last lines.
    pub async fn serve(&self) -> Result<Api> {
        let kubeconfig = self.step("the administrator's certificate", async || self.cluster.write_kubeconfig()).await?;
        let api = Api::new(&kubeconfig)?;
        self.step("the API server", async || api.check_ready().await.map(Some)).await?;
        self.progress.say("the API server is ready");
        self.nodes(&api).await?;
        self.progress.say("all nodes are Ready");
        let sample = images::workspace().join("configs/sample.yaml");
        self.step("the sample application's objects", async || api.create_all(&sample).await.map(Some)).await?;
        let port = self.cluster.state.ports.sample;
        let name = match self.step("the sample application", async || observe::ask(port).await.map(Some)).await {
            Ok(name) => name,
            Err(error) => bail!("{error:#}\n--- what the API tells of it:\n{}", sample_as_told(&api).await),
        };
        self.progress.say(&format!("the sample application answers: {name}"));
        Ok(api)
    }

    async fn nodes(&self, api: &Api) -> Result<()> {
        let nodes = self
            .step("nodes", async || {
                let nodes = api.nodes().await?;
                for name in self.cluster.names() {
                    let node = nodes.iter().find(|node| node.name == name);
                    let node = node.with_context(|| format!("{name} has not joined"))?;
                    if !node.is_ready {
                        bail!("{name} is not Ready: {}", node.message);
                    }
                }
                Ok(Some(nodes))
            })
            .await?;
        if self.cluster.state.provider == Provider::Netns {
            for running in &self.cluster.state.machines {
                let node = nodes.iter().find(|node| node.name == running.machine.name);
                if let Some(pods) = node.and_then(|node| node.pod_cidr.as_deref()) {
                    network::route_pods(&self.cluster.state.name, pods, &running.machine)?;
                }
            }
        }
        Ok(())
    }

    /// Tries `attempt` until it gives a value. Errors and `None` mean: not yet.
    async fn step<T>(&self, what: &str, attempt: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        let end = tokio::time::Instant::now() + STEP_DEADLINE;
        loop {
            let missing = match attempt().await {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            self.progress.waiting(&format!("{what}{missing}"));
            let ended = self
                .cluster
                .state
                .machines
                .iter()
                .find(|running| !running.process.as_ref().is_some_and(Process::is_alive));
            if let Some(running) = ended {
                let name = &running.machine.name;
                bail!("{name} has ended while {what} was waited for{missing}\n{}", self.console(name));
            }
            if tokio::time::Instant::now() > end {
                let consoles: Vec<String> = self.cluster.names().iter().map(|name| self.console(name)).collect();
                let seconds = STEP_DEADLINE.as_secs();
                bail!("{what} did not come within {seconds} s{missing}\n{}", consoles.join("\n"));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn console(&self, name: &str) -> String {
        let path = self.cluster.folder.machine(name).join("console.log");
        format!("--- the console of {name} ({}) ends with:\n{}", path.display(), last_lines(&path, CONSOLE_LINES))
    }
}

/// What the cluster says of the sample application, for whoever wonders why it does not answer.
async fn sample_as_told(api: &Api) -> String {
    const PLACES: [&str; 3] = [
        "/api/v1/namespaces/default/pods?labelSelector=app%3Dsample",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=app%3Dsample",
        "/api/v1/namespaces/default/events?fieldSelector=type%3DWarning",
    ];
    let mut told = Vec::new();
    for place in PLACES {
        told.push(match api.text(place).await {
            Ok(text) => format!("{place}\n{text}"),
            Err(error) => format!("{place}\n{error:#}"),
        });
    }
    told.join("\n")
}
