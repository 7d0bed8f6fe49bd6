//! What `cargo cluster test` runs: each scenario gets a cluster that serves.

use anyhow::{Result, bail};
use http::Method;

use crate::cluster::Cluster;
use crate::observe::Api;
use crate::progress::Progress;

/// A scenario's row.
pub struct Scenario {
    /// As on the command line.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
}

/// All scenarios, in the order they run.
pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: "boot", about: "machines boot, form a cluster and run the sample" }];

/// Runs one scenario.
///
/// # Errors
/// Something is not as it must be.
pub async fn run(name: &str, _cluster: &mut Cluster, api: &Api, progress: &Progress) -> Result<()> {
    match name {
        "boot" => boot(api, progress).await,
        _ => bail!("no scenario is called {name}"),
    }
}

/// The cluster serves when it gets here; what is left is that the API means what it says.
async fn boot(api: &Api, progress: &Progress) -> Result<()> {
    let version = api.get("/version").await?;
    progress.say(&format!("the API server is {}", version["gitVersion"].as_str().unwrap_or("of no version")));
    let pods = api.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dsample").await?;
    let running = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["status"]["phase"] == "Running");
    if running.count() == 0 {
        bail!("the sample answers, but the API knows of no running pod of it");
    }
    let (status, _) = api.send(Method::GET, "/api/v1/namespaces/default/pods/absent", None).await?;
    if status != http::StatusCode::NOT_FOUND {
        bail!("an absent pod is answered with {status}");
    }
    Ok(())
}
