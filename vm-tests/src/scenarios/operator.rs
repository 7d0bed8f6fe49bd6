//! An operator on upstream's libraries, with webhooks and conversion of its own, beside a cluster.

use anyhow::{Context, Result, ensure};
use images::tools;

use super::Outcome;
use super::scene::Scene;
use crate::clients::{Client, Go};
use crate::plan::gateway;

/// What the program says last if all is as it should be.
const HELD: &str = "all checks held";
/// It has deadlines of its own for each of its steps.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(900);

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let go = match Go::find() {
        Ok(go) => go,
        Err(error) => return Ok(Outcome::Skipped(format!("there is no Go to build the operator with: {error:#}"))),
    };
    scene.say("building the operator");
    let program = Client::Operator.build(&go)?;
    scene.up().await?;
    let mut command = tools::command("ip");
    // The API server has to reach its webhooks, so it is where the machines are.
    command.args(["netns", "exec", &scene.cluster.state.name]).arg(program);
    command.arg("--kubeconfig").arg(scene.cluster.folder.inner_kubeconfig());
    command.arg("--address").arg(gateway().to_string());
    let ended = tokio::process::Command::from(command).kill_on_drop(true).output();
    let ended = tokio::time::timeout(PATIENCE, ended).await.context("the operator does not end")??;
    let said = String::from_utf8_lossy(&ended.stdout);
    said.lines().for_each(|line| scene.say(line));
    let errors = String::from_utf8_lossy(&ended.stderr);
    let why = errors.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or_else(|| errors.trim());
    ensure!(ended.status.success() && said.ends_with(&format!("{HELD}\n")), "the operator: {why}");
    Ok(Outcome::Passed)
}
