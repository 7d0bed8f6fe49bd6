//! A manifest in parts: one on a disk as clouds attach it, one at an address that the firmware's tables name.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, value};

use super::Outcome;
use super::early;
use super::network::{ask, manifest};
use super::scene::{SOON, Scene};
use crate::files::Files;
use crate::filesystem;
use crate::hardware::Hardware;
use crate::plan::Machine;
use crate::wait::until;

const SERIAL: &str = "RACK-7,UNIT-3";
const DISK: &str = "cidata.iso";
/// What the part on the disk says of the name, which the other one knows better.
const ANY_NAME: &str = "any-machine";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let (common, own) = divide(&manifest(scene, &machine)?, &machine.name)?;
    let folder = scene.cluster.folder.machine(&machine.name);
    filesystem::burn(&folder.join(DISK), "CIDATA", &[("meta-data", ""), ("user-data", &common)])?;
    let files = scene.public_files()?;
    let digest = hex(&Sha256::digest(&own));
    let hardware = Hardware {
        serial: Some(SERIAL.to_owned()),
        maker_word: Some(format!("keelson.manifest={}#sha256={digest}", files.address("/{serial}.toml"))),
        further_disk: Some(DISK.to_owned()),
        is_without_manifest: true,
        ..Hardware::default()
    };
    hardware.give(&folder)?;
    scene.cluster.start(&scene.progress)?;
    not_fetched(scene, &machine, "404").await?;
    let path = format!("/{SERIAL}.toml");
    files.have(&path, own.replace("role", "roll"));
    not_fetched(scene, &machine, "SHA-256").await?;
    scene.say("what is not there, or something else, is told, and nothing is made of half a manifest");

    let address = files.have(&path, own);
    scene.serve().await?;
    origins(scene, &machine, &address).await?;
    scene.say("what is there is fetched by itself; both parts make one manifest, and who set what is told");

    files.lose_all();
    let asked = files.asked().len();
    scene.restart(&machine.name, true).await?;
    scene.serve().await?;
    origins(scene, &machine, &address).await?;
    check_unasked(&files, asked)?;
    scene.say("it is fetched once: the next start has it, and asks nobody");
    Ok(Outcome::Passed)
}

/// Two parts of a manifest, for every machine and for this one.
fn divide(whole: &str, name: &str) -> Result<(String, String)> {
    let mut common: DocumentMut = whole.parse().context("read the manifest")?;
    common["machine"]["hostname"] = value(ANY_NAME);
    let secrets = common.remove("control-plane").context("a master's manifest has no control plane")?;
    let mut own = DocumentMut::new();
    own["machine"]["hostname"] = value(name);
    own["machine"]["role"] = common["machine"]["role"].clone();
    own["control-plane"] = secrets;
    Ok((common.to_string(), own.to_string()))
}

async fn not_fetched(scene: &Scene, machine: &Machine, why: &str) -> Result<()> {
    until(&format!("ManifestNotFetched ({why})"), SOON, async || {
        let status = early::keelson(scene, machine, &["status"], "").await?;
        let is_it = status.output.contains("ManifestNotFetched") && status.output.contains(why);
        if is_it { Ok(()) } else { bail!("it answers {status:?}") }
    })
    .await
}

/// Looks at who set what, as the machine tells it.
async fn origins(scene: &Scene, machine: &Machine, address: &str) -> Result<()> {
    let text = ask(scene, machine, machine, "get", &["manifest"]).await?;
    let from = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    let (hostname, endpoint) = (from("machine.hostname"), from("cluster.endpoint"));
    ensure!(hostname.contains(&machine.name) && hostname.contains(address), "its name is told as {hostname:?}");
    ensure!(endpoint.contains("disk "), "its endpoint is told as {endpoint:?} in\n{text}");
    ensure!(!text.contains(ANY_NAME), "the weaker name is there, too:\n{text}");
    Ok(())
}

fn check_unasked(files: &Files, before: usize) -> Result<()> {
    let asked = files.asked();
    ensure!(asked.len() == before, "it was asked for again: {:?}", asked.get(before..));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
