//! A machine that forgets what it was, and joins the cluster as a new one.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Outcome;
use super::scene::{SOON, Scene};
use super::upgrade::keelson;
use crate::flash::Medium;
use crate::observe::Api;
use crate::process;
use crate::wait::until;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].name.clone();
    scene.flash(Medium::Disk)?;
    let api = scene.up().await?;
    let before = identity(&api, &worker).await?;
    let reset = async |machine: &str, further: &[&str]| {
        let mut command = keelson(scene, &master, "reset")?;
        command.args([machine, "--node", &worker, "--what", "all"]).args(further);
        process::run(command).await
    };
    let plan = reset(&worker, &[]).await?;
    ensure!(plan.contains("STATE") && plan.contains("DATA"), "the plan is {plan:?}");
    let refused = reset(&master.name, &["--yes"]).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains(&format!("is called {worker}")), "another machine's name is answered with {refused:?}");
    ensure!(identity(&api, &worker).await? == before, "a plan and a refusal have changed something");
    scene.say("the plan is shown, and a wrong name is refused");

    reset(&worker, &["--yes"]).await?;
    until(&format!("{worker} as a new machine"), SOON, async || {
        let now = identity(&api, &worker).await?;
        if now.0 == before.0 || now.1 == before.1 {
            bail!("its identifiers are {now:?}, and were {before:?}");
        }
        let node = api.get(&format!("/api/v1/nodes/{worker}")).await?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
        ensure!(is_ready && node["spec"]["unschedulable"].is_null(), "its node is {node}");
        Ok(())
    })
    .await?;
    scene.serve().await?;
    scene.say("a machine that was reset joins as a new one, and takes pods");
    Ok(Outcome::Passed)
}

/// What a node's machine calls itself, and this start of it. The first is kept in STATE.
async fn identity(api: &Api, node: &str) -> Result<(Value, Value)> {
    let node = api.get(&format!("/api/v1/nodes/{node}")).await?;
    let info = &node["status"]["nodeInfo"];
    Ok((info["machineID"].clone(), info["bootID"].clone()))
}
