//! A disk image on a blank disk: nothing more is needed than a manifest.

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;

use super::Outcome;
use super::scene::Scene;
use crate::flash::Medium;

const CONFIG_MAP: &str = "/api/v1/namespaces/default/configmaps";
const FIRST: &str = "first start from";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    run_from(scene, Medium::Disk).await
}

pub(super) async fn run_from_usb(scene: &mut Scene) -> Result<Outcome> {
    run_from(scene, Medium::UsbDisk).await
}

/// What differs is the disk's format, and where the manifest is, so it is only started.
pub(super) async fn run_virtual(scene: &mut Scene) -> Result<Outcome> {
    scene.flash(Medium::VirtualDisk)?;
    scene.up().await?;
    Ok(Outcome::Passed)
}

async fn run_from(scene: &mut Scene, medium: Medium) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    scene.flash(medium)?;
    let api = scene.up().await?;
    let console = scene.console(&master)?;
    ensure!(console.contains(FIRST) && console.contains("KEELSON-DATA"), "the disk got no partitions");
    scene.say("a flashed disk has made its partitions; the cluster serves");

    let kept = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kept" }, "data": { "a": "b" } });
    api.call(Method::POST, CONFIG_MAP, Some(&kept)).await?;
    scene.restart(&master, true).await?;
    let again = scene.console(&master)?.get(console.len()..).unwrap_or_default().to_owned();
    ensure!(!again.contains(FIRST), "the second start changed the partitions again");
    let api = scene.serve().await?;
    let found = api.get(&format!("{CONFIG_MAP}/kept")).await?;
    ensure!(found["data"] == kept["data"], "what was written before the power cut is {}", found["data"]);
    scene.say("after a power cut it has all that it had");
    Ok(Outcome::Passed)
}
