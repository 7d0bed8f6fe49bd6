//! Further disks of a machine become volumes for pods: made once, found wherever they are, and never made of a disk that
//! holds something else.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use install::FileDevice;
use serde_json::Value;

use super::Outcome;
use super::mishaps::{has, is_over};
use super::network::{apply, ask, look, manifest};
use super::scene::{SHORTLY, SOON, Scene, end_of_command, place_command};
use super::upgrade::status;
use crate::filesystem;
use crate::flash::Medium;
use crate::hardware::{Hardware, data_disk_of};
use crate::observe::Api;
use crate::plan::Machine;
use crate::wait::until;

/// The disk of the first volume, which is called the same, and one that holds photos.
const PODS: &str = "pods";
const PHOTOS: &str = "photos";
const BYTES: u64 = 4 << 30;
const NOT_MOUNTED: &str = "VolumeNotMounted";
/// So often it is looked whether a pod without its volume waits.
const LOOKS: u32 = 10;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let folder = scene.cluster.folder.machine(&machine.name);
    scene.flash(Medium::Disk)?;
    FileDevice::create(&data_disk_of(&folder, PODS), BYTES).context("make a blank disk")?;
    filesystem::make(&data_disk_of(&folder, PHOTOS), "PHOTOS", &[("one.txt", "a photo")])?;
    let one = manifest(scene, &machine)? + &volume(PODS, PODS);
    std::fs::write(scene.cluster.folder.manifest(&machine.name), &one).context("write the manifest")?;
    give(&folder, &[PODS])?;
    let api = scene.up().await?;
    ensure!(scene.console(&machine.name)?.contains("makes the volume pods on"), "the console does not tell of it");
    let device = mounted(scene, &machine, PODS).await?;
    command(&api, &machine, PODS, &["write", "/volume/kept", "kept"]).await?;
    scene.say("a blank disk becomes a volume, and a pod writes to it");

    let seen = scene.console(&machine.name)?.len();
    scene.restart(&machine.name, true).await?;
    holds(scene, &machine, PODS).await?;
    stop_with(scene, &machine, &[PHOTOS, PODS]).await?;
    let other = holds(scene, &machine, PODS).await?;
    ensure!(device != other, "with another disk before it the volume is still on {device}");
    let new = scene.console(&machine.name)?.get(seen..).unwrap_or_default().to_owned();
    ensure!(!new.contains("makes the volume"), "it was made again");
    scene.say("a power cut and another order of disks leave what it holds as it was");

    missing(scene, &machine).await?;
    foreign(scene, &machine, &one).await?;
    leave(scene, &machine).await?;
    Ok(Outcome::Passed)
}

fn volume(name: &str, serial: &str) -> String {
    format!("\n[[storage.volumes]]\nname = \"{name}\"\ndisk = \"serial:{serial}\"\n")
}

/// Gives a machine that is off these disks, in this order.
fn give(folder: &Path, disks: &[&str]) -> Result<()> {
    let data_disks = disks.iter().map(|&disk| disk.to_owned()).collect();
    Hardware { data_disks, ..Hardware::default() }.give(folder)
}

/// Starts the machine again, with these disks.
async fn stop_with(scene: &mut Scene, machine: &Machine, disks: &[&str]) -> Result<()> {
    scene.cluster.stop_machine(&machine.name, false).await?;
    give(&scene.cluster.folder.machine(&machine.name), disks)?;
    scene.start(&machine.name).await
}

/// What the status says of a volume.
fn told(status: &Value, name: &str) -> Result<Value> {
    let volumes = status["volumes"].as_array().context("the status has no volumes")?;
    let found = volumes.iter().find(|volume| volume["name"] == name && volume["mountedAt"].is_string());
    found.cloned().with_context(|| format!("the status tells of {}", status["volumes"]))
}

/// Waits until a volume is mounted; its partition.
async fn mounted(scene: &Scene, machine: &Machine, name: &str) -> Result<String> {
    let place = format!("/mnt/{name}");
    let device = until(&format!("the volume {name}"), SOON, async || {
        let volume = told(&status(scene, machine)?, name)?;
        ensure!(volume["mountedAt"] == place, "it is {volume}");
        volume["device"].as_str().map(str::to_owned).context("it has no device")
    })
    .await?;
    let mounts = look(scene, machine, machine, "mounts").await?;
    let mounts = mounts.as_array().map(Vec::as_slice).unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount["target"] == place).context("it is not among the mounts")?;
    let options = mount["options"].as_str().unwrap_or_default();
    ensure!(["rw", "nosuid", "nodev"].iter().all(|word| options.split(',').any(|it| it == *word)), "it is {mount}");
    let around = mounts.iter().find(|mount| mount["target"] == "/mnt").context("its folder is not among the mounts")?;
    ensure!(around["options"].as_str().is_some_and(|it| it.starts_with("ro")), "its folder can be written: {around}");
    let disks = look(scene, machine, machine, "disks").await?.to_string();
    ensure!(disks.contains(&format!("keelson-volume-{name}")), "the disks are {disks}");
    Ok(device)
}

/// Runs a command of the sample in a pod that has a volume.
async fn command(api: &Api, machine: &Machine, name: &str, arguments: &[&str]) -> Result<String> {
    place_command(api, &machine.name, arguments, Some(&format!("/mnt/{name}"))).await?;
    end_of_command(api, &machine.name, arguments).await
}

/// Whether a volume holds what was written to it; its partition.
async fn holds(scene: &Scene, machine: &Machine, name: &str) -> Result<String> {
    let api = scene.serve().await?;
    let device = mounted(scene, machine, name).await?;
    let read = command(&api, machine, name, &["read", "/volume/kept"]).await?;
    ensure!(read == "kept", "it holds {read:?}");
    Ok(device)
}

/// Its disk is missing: the machine serves without, tells of it, and a pod that asks for it waits until it is back.
async fn missing(scene: &mut Scene, machine: &Machine) -> Result<()> {
    const READ: &[&str] = &["read", "/volume/kept"];
    stop_with(scene, machine, &[PHOTOS]).await?;
    let api = scene.serve().await?;
    let start = until(NOT_MOUNTED, SOON, async || {
        let status = status(scene, machine)?;
        has(&status, NOT_MOUNTED, "attach the disk")?;
        ensure!(status["ready"] == true, "the machine is not ready: {}", status["unmet"]);
        Ok(status["bootId"].clone())
    })
    .await?;
    place_command(&api, &machine.name, READ, Some(&format!("/mnt/{PODS}"))).await?;
    let pod = format!("/api/v1/namespaces/default/pods/visitor-on-{}", machine.name);
    until("what the pod waits for", SHORTLY, async || {
        let events = api.get("/api/v1/namespaces/default/events").await?.to_string();
        ensure!(events.contains(&format!("/mnt/{PODS}")), "no event tells of it");
        Ok(())
    })
    .await?;
    for _ in 0..LOOKS {
        let phase = api.get(&pod).await?["status"]["phase"].clone();
        ensure!(phase == "Pending", "without its volume the pod is {phase}");
    }
    ensure!(status(scene, machine)?["bootId"] == start, "it started again");
    scene.say("without its disk the machine serves and tells of it, and a pod that asks for the volume waits");
    stop_with(scene, machine, &[PHOTOS, PODS]).await?;
    let api = scene.serve().await?;
    let read = end_of_command(&api, &machine.name, READ).await?;
    ensure!(read == "kept", "it holds {read:?}");
    is_over(scene, machine, NOT_MOUNTED).await?;
    scene.say("once the disk is back the pod starts by itself, and finds what was there");
    Ok(())
}

/// A disk that holds something else is left as it is, and what the machine says mends it.
async fn foreign(scene: &Scene, machine: &Machine, one: &str) -> Result<()> {
    let file = data_disk_of(&scene.cluster.folder.machine(&machine.name), PHOTOS);
    let before = std::fs::read(&file).context("read the disk with photos")?;
    let two = one.to_owned() + &volume(PHOTOS, PHOTOS);
    let applied = apply(scene, machine, machine, &two).await?;
    ensure!(applied.contains("holds a file system (vfat)"), "it is applied with {applied}");
    std::fs::write(scene.cluster.folder.manifest(&machine.name), &two).context("write the manifest")?;
    let disk = until(NOT_MOUNTED, SOON, async || {
        let status = status(scene, machine)?;
        has(&status, NOT_MOUNTED, "keelson wipe")?;
        let told = status["conditions"].to_string();
        let (_, words) = told.split_once(&format!("`keelson wipe {} ", machine.name)).context("it names no disk")?;
        words.split('`').next().map(str::to_owned).context("it names no disk")
    })
    .await?;
    ensure!(std::fs::read(&file).context("read it again")? == before, "the disk with photos was changed");
    ask(scene, machine, machine, "wipe", &[&machine.name, &disk, "--yes"]).await?;
    mounted(scene, machine, PHOTOS).await?;
    is_over(scene, machine, NOT_MOUNTED).await?;
    let api = scene.serve().await?;
    command(&api, machine, PHOTOS, &["write", "/volume/kept", "kept"]).await?;
    holds(scene, machine, PODS).await?;
    scene.say(
        "a disk with photos is left as it is and told of; once it is wiped, as is told, it becomes the volume at once",
    );
    Ok(())
}

/// What the manifest does not name any more stays as it is from the next start on, and so does all of it in a reset.
async fn leave(scene: &mut Scene, machine: &Machine) -> Result<()> {
    let reset = ask(scene, machine, machine, "reset", &[&machine.name, "--what", "all", "--force"]).await?;
    ensure!(reset.contains("volumes stay as they are: pods (/dev/"), "the plan of a reset is {reset}");
    let text = manifest(scene, machine)?;
    let without = text.replace(&volume(PHOTOS, PHOTOS), "");
    ensure!(without != text, "the manifest has no volume {PHOTOS}");
    let applied = apply(scene, machine, machine, &without).await?;
    ensure!(applied.contains("needs a new start"), "it is applied with {applied}");
    std::fs::write(scene.cluster.folder.manifest(&machine.name), &without).context("write the manifest")?;
    scene.restart(&machine.name, false).await?;
    scene.serve().await?;
    until("the volume that is left alone", SOON, async || {
        let volume = told(&status(scene, machine)?, PHOTOS)?;
        ensure!(volume["mountedAt"] == "", "it is {volume}");
        Ok(())
    })
    .await?;
    let applied = apply(scene, machine, machine, &text).await?;
    ensure!(applied.contains("keeps what it holds"), "it is applied with {applied}");
    holds(scene, machine, PHOTOS).await?;
    scene.say("a volume that the manifest does not name stays as it is, and is there again when it does");
    Ok(())
}
