//! A medium and a blank disk: another disk with the power cut in the middle of it, and an optical disc.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Outcome;
use super::scene::{SHORTLY, Scene};
use crate::flash::{DISK, Medium};
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
