//! A disk image on a blank disk: nothing more is needed than a manifest.

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;

use super::Outcome;
use super::console::Person;
use super::scene::Scene;
use crate::filesystem;
use crate::flash::{Medium, config_of};

const CONFIG_MAP: &str = "/api/v1/namespaces/default/configmaps";
const FIRST: &str = "first start from";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    run_from(scene, Medium::Disk).await
}

pub(super) async fn run_from_usb(scene: &mut Scene) -> Result<Outcome> {
    run_from(scene, Medium::UsbDisk).await?;
    take_away(scene).await?;
    Ok(Outcome::Passed)
}

/// Whoever stands at the console takes what helps to find out what is wrong away on the stick with the manifest.
async fn take_away(scene: &Scene) -> Result<()> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let mut person = Person::come(scene, &master)?;
    person.types("\n", "6 writes").await?;
    let told = person.types("6\n", "take the stick out").await?;
    let (name, content) =
        filesystem::find(&config_of(&scene.cluster.folder.machine(&master.name)), "keelson-support-")?;
    let is_told = told.contains(&format!("{name}: {} bytes", content.len()));
    ensure!(is_told && name.contains(&master.name), "{name} has {} bytes, and it was said: {told}", content.len());
    let holds = |part: &[u8]| content.windows(part.len()).any(|it| it == part);
    ensure!(holds(b"support/services.json") && holds(b"support/logs/machine.log"), "{name} lacks something");
    scene.say("the console writes the support archive to the stick with the manifest");
    Ok(())
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
