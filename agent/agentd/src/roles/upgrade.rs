//! `keelson upgrade` and `rollback`: which system a machine runs.
//!
//! An update is written while the workload runs. Then the machine is drained and starts again, and the command waits
//! until the new system has proved itself or the old one is back. [`fleet`] does so for every machine of a cluster.
//! [`image`] is the update: a file that travels from here, or the address of one that the machines fetch.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use machine_api::{MachineStatus, StartOptions, UpdateState};

use super::drain::{self, Drain};
use super::target::Target;
use crate::process;

mod fleet;
mod image;

use image::{Image, Update};

/// An update over a slow line to a slow disk, a drain, and a system that takes all its time to prove itself, twice.
const UPDATE_WITHIN: Duration = Duration::from_secs(7200);
const WITHIN: Duration = Duration::from_secs(60);
/// How often a machine that starts is asked how far it has come.
const AGAIN: Duration = Duration::from_secs(2);
/// How long it may be silent, from going down to the answers of one of its two systems.
const SILENT: Duration = Duration::from_secs(1800);

/// The update and what to do with it.
#[derive(Args)]
pub(crate) struct Options {
    /// The update: a file (`cargo image --format update`), or where the machine fetches one: `https://…`, or
    /// `oci://REGISTRY/REPOSITORY:TAG` with `@sha256:…` behind it or in the tag's place.
    image: Image,
    /// The SHA-256 of the update file, for one that is fetched. Needed over plain `http://`, unless the machine's image
    /// has a key for updates.
    #[arg(long)]
    sha256: Option<String>,
    /// Take an older version than the one that runs.
    #[arg(long)]
    allow_downgrade: bool,
    /// Take it even if its Kubernetes does not go with what the cluster runs, or if that cannot be found out.
    #[arg(long)]
    any_kubernetes: bool,
    /// Every machine of the kubeconfig's cluster, masters first, one at a time. Machines that run the version already
    /// are left alone, so the command may be given again where it stopped. With an endpoint, the master there forwards.
    #[arg(long, requires = "kubeconfig", conflicts_with_all = ["node", "stage", "no_wait"])]
    all: bool,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    target: Target,
}

/// How to go back.
#[derive(Args)]
pub(crate) struct RollbackOptions {
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    target: Target,
}

/// How the machine starts anew.
#[derive(Args)]
struct Start {
    /// Leave the next start to somebody else.
    #[arg(long)]
    stage: bool,
    #[command(flatten)]
    drain: Drain,
    /// Do not wait for the new system to prove itself.
    #[arg(long, conflicts_with = "stage")]
    no_wait: bool,
    /// Go on even if etcd loses its majority.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.all {
        return process::ask_all(fleet::upgrade(options));
    }
    process::ask(UPDATE_WITHIN, async {
        let update = options.image.look(&options.target, options).await?;
        update.try_on(&options.target, options, options.any_kubernetes).await?;
        change(&options.target, &options.start, Order::Update(&update, options)).await
    })
}

/// Which system a machine is to take.
enum Order<'a> {
    Update(&'a Update, &'a Options),
    RollBack,
}

impl Order<'_> {
    /// Lets the machine take it, and leave its start to us; answers what the machine says.
    async fn give(&self, target: &Target) -> Result<String> {
        match self {
            Self::Update(update, options) => update.give(target, options).await,
            Self::RollBack => {
                let staged = StartOptions { stage: true, ..StartOptions::default() };
                Ok(target.ask(async |machine| machine.roll_back(staged).await).await?.text)
            }
        }
    }
}

pub(crate) fn roll_back(options: &RollbackOptions) -> Result<()> {
    process::ask(UPDATE_WITHIN, change(&options.target, &options.start, Order::RollBack))
}

/// Lets the machine take another system in, and start from it.
async fn change(target: &Target, start: &Start, order: Order<'_>) -> Result<()> {
    let wished = StartOptions { force: start.force, ..StartOptions::default() };
    println!("{}", order.give(target).await?.trim_end());
    if start.stage {
        return Ok(());
    }
    let MachineStatus { hostname: node, boot_id, .. } = observe(target).await?;
    let otherwise = "the machine does not start again now; its next start tries the new system";
    let go = async || target.ask(async |machine| machine.reboot(wished).await).await;
    start.drain.then(target, otherwise, go).await?;
    eprintln!("the machine starts again");
    if start.no_wait {
        return Ok(());
    }
    let state = until_decided(target, &boot_id).await?;
    if let Some(client) = &start.drain.cluster(target)? {
        drain::open_soon(client, &node).await?;
    }
    match state {
        (UpdateState::Good, text) => {
            println!("{text}");
            Ok(())
        }
        (UpdateState::TakenBack | UpdateState::CutShort | UpdateState::Trying, text) => bail!("{text}"),
    }
}

/// Waits until one of the two systems has the last word, in a start after the one named.
async fn until_decided(target: &Target, before: &str) -> Result<(UpdateState, String)> {
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(AGAIN).await;
        match tokio::time::timeout(WITHIN, observe(target)).await.context("the machine does not answer").flatten() {
            Ok(status) => {
                heard = tokio::time::Instant::now();
                let (state, text) = (status.state_of_update(), status.update.unwrap_or_default());
                match state.filter(|_| status.boot_id != before) {
                    Some(UpdateState::Trying) | None => {}
                    // The old system that is back still has to come up.
                    Some(_) if !status.ready => {}
                    Some(state) => return Ok((state, text)),
                }
            }
            Err(error) if heard.elapsed() > SILENT => return Err(error),
            Err(_) => {}
        }
    }
}

async fn observe(target: &Target) -> Result<MachineStatus> {
    target.ask(async |machine| machine.get_status(()).await).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apiserver::Authorization;
    use bytes::Bytes;
    use disk::Kubernetes;
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;

    /// An update says what its system says of itself, and a machine goes by that.
    #[tokio::test]
    async fn what_runs_is_the_kubernetes_that_updates_are_compared_with() {
        let kubelet = kubelet::Config::new("m1", Vec::new(), "/none".into()).version;
        let store = Arc::new(store::Embedded::in_memory().await.unwrap());
        let shutdown = lifecycle::Shutdown::new();
        let config = apiserver::Config { authorization: Authorization::AlwaysAllow, ..apiserver::Config::default() };
        let (server, ready) = apiserver::service(config, store, &shutdown).unwrap();
        ready.await;
        let asked = http::Request::get("/version").body(Full::<Bytes>::default()).unwrap();
        let body = server.oneshot(asked).await.unwrap().into_body().collect().await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        for version in [kubelet.as_str(), told["gitVersion"].as_str().unwrap()] {
            assert_eq!(version.parse(), Ok(Kubernetes::OWN), "{version}");
        }
        shutdown.trigger();
    }
}
