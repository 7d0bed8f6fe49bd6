//! A medium and a blank disk: another disk with the power cut in the middle of it, and an optical disc.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Outcome;
use super::network::ask;
use super::scene::{SHORTLY, Scene};
use crate::flash::{DISK, MEDIUM, Medium};
use crate::wait::until;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = begin(scene, Medium::Stick)?;
    until("the plan on the console", SHORTLY, async || {
        let console = scene.console(&master)?;
        ensure!(console.contains("installs from") && console.contains("KEELSON-DATA"), "it is not there");
        Ok(())
    })
    .await?;
    // The power goes while it is at it; the medium begins again.
    scene.cluster.stop_machine(&master, true).await?;
    scene.say("the power was cut in the middle of the installation");
    let seen = scene.console(&master)?.len();
    scene.cluster.start_machine(&master)?;
    scene.serve().await?;
    check(scene, &master, seen)?;
    scene.restart(&master, false).await?;
    scene.serve().await?;
    scene.say("it starts from its disk again, with the medium still there");
    wipe(scene).await?;
    scene.serve().await?;
    scene.say("the medium is wiped, and the machine's own disk is not");
    Ok(Outcome::Passed)
}

pub(super) async fn run_from_disc(scene: &mut Scene) -> Result<Outcome> {
    let master = begin(scene, Medium::Disc)?;
    scene.serve().await?;
    check(scene, &master, 0)?;
    Ok(Outcome::Passed)
}

pub(super) async fn run_from_usb(scene: &mut Scene) -> Result<Outcome> {
    let master = begin(scene, Medium::UsbStick)?;
    scene.serve().await?;
    check(scene, &master, 0)?;
    Ok(Outcome::Passed)
}

/// Nobody needs the medium any more.
async fn wipe(scene: &Scene) -> Result<()> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let disks = async || super::network::look(scene, &master, &master, "disks").await;
    let named = |all: &Value, what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
        let found = all.iter().find(|disk| disk["kind"] == "disk" && is_it(disk));
        found.and_then(|disk| disk["name"].as_str().map(str::to_owned)).with_context(|| format!("there is no {what}"))
    };
    let before = disks().await?;
    let medium = named(&before, "medium", &|disk| disk["serial"] == MEDIUM)?;
    let own = named(&before, "disk of its own", &|disk| disk["isOwn"] == true)?;
    let parts = |all: &Value| all.to_string().matches(&format!("\"{medium}")).count();
    ensure!(parts(&before) > 1, "the medium {medium} has no partitions: {before}");
    let wipe = async |words: &[&str]| ask(scene, &master, &master, "wipe", words).await;
    let refused =
        wipe(&[&master.name, &own, "--yes"]).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("was started from"), "the wish to wipe its own disk is answered with {refused:?}");
    let refused =
        wipe(&["another", &medium, "--yes"]).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("is called"), "another machine's name is answered with {refused:?}");
    let plan = wipe(&[&master.name, &medium]).await?;
    ensure!(plan.contains(&medium) && plan.contains("zeros"), "the plan is {plan}");
    ensure!(parts(&disks().await?) == parts(&before), "a plan and a refusal have changed something");
    wipe(&[&master.name, &medium, "--yes"]).await?;
    let after = disks().await?;
    ensure!(parts(&after) == 1, "of the medium {medium} there is left {after}");
    // The first process takes what is told when it comes to that.
    let is_told = async || {
        let words = ["--kind", "DiskWiped", "--output", "json"];
        let told = ask(scene, &master, &master, "events", &words).await?;
        let told =
            told.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context("read the events")?;
        ensure!(told.len() == 2 && told.iter().all(|event| event["subject"] == medium), "the events tell {told:?}");
        Ok(())
    };
    until("the events tell of the wipe", SHORTLY, is_told).await
}

/// Starts the machines from the medium, with manifests that name their disk. Returns the master's name.
fn begin(scene: &mut Scene, medium: Medium) -> Result<String> {
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    scene.flash(medium)?;
    for running in &scene.cluster.state.machines {
        let path = scene.cluster.folder.manifest(&running.machine.name);
        let plain = fs::read_to_string(&path).context("read the manifest")?;
        fs::write(&path, format!("{plain}\n[install]\ndisk = \"serial:{DISK}\"\n"))?;
    }
    scene.cluster.start(&scene.progress)?;
    Ok(master)
}

/// What the machine has said since then: it was installed, and runs from its disk.
fn check(scene: &Scene, master: &str, since: usize) -> Result<()> {
    let console = scene.console(master)?.get(since..).unwrap_or_default().to_owned();
    ensure!(console.contains("is installed"), "the machine does not say that it was installed");
    ensure!(!console.contains("first start from"), "the installed disk lacked partitions");
    scene.say("the machine was installed and started from its disk; the cluster serves");
    Ok(())
}
