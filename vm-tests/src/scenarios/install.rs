//! A medium and a blank disk.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Outcome;
use super::scene::{SHORTLY, Scene};
use crate::flash::DISK;
use crate::wait::until;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    scene.flash_media()?;
    let path = scene.cluster.folder.manifest(&master);
    let plain = fs::read_to_string(&path).context("read the manifest")?;
    fs::write(&path, format!("{plain}\n[install]\ndisk = \"serial:{DISK}\"\n"))?;
    scene.cluster.start(&scene.progress)?;
    until("the plan on the console", SHORTLY, async || {
        let console = scene.console(&master)?;
        ensure!(console.contains("installing from") && console.contains("KEELSON-DATA"), "it is not there");
        Ok(())
    })
    .await?;
    // The power goes while it is at it; the medium begins again.
    scene.cluster.stop_machine(&master, true).await?;
    scene.say("the power was cut in the middle of the installation");
    let seen = scene.console(&master)?.len();
    scene.cluster.start_machine(&master)?;
    scene.serve().await?;
    let console = scene.console(&master)?.get(seen..).unwrap_or_default().to_owned();
    ensure!(console.contains("is installed"), "the machine does not say that it was installed");
    ensure!(!console.contains("first start from"), "the installed disk lacked partitions");
    scene.say("the machine was installed and started from its disk; the cluster serves");
    scene.restart(&master, false).await?;
    scene.serve().await?;
    scene.say("it starts from its disk again, with the medium still there");
    Ok(Outcome::Passed)
}
