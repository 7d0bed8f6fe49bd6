//! A manifest without secrets: they lie on STATE, or only the machine's TPM opens them.

use std::fs::{self, File};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use toml_edit::{DocumentMut, value};

use super::Outcome;
use super::mishaps::{has, is_over};
use super::network::{apply, ask, manifest};
use super::scene::{SHORTLY, SOON, Scene};
use super::upgrade::{keelson, status};
use crate::flash::Medium;
use crate::plan::Machine;
use crate::wait::until;
use crate::{process, tpm};

const NAME: &str = "SecretMissing";
const REGISTRY: &str = "r.example.com";
const KEY: &str = "outbound.servers.\"r.example.com\".password";
const PASSWORD: &str = "a-word-that-nobody-says";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    // Where the emulator places the image's files itself, a TPM's log has no room.
    scene.flash(Medium::Disk)?;
    tpm::attach(&mut scene.cluster, &machine.name, true)?;
    scene.up().await?;
    let plain = manifest(scene, &machine)?;
    let document: DocumentMut = plain.parse().context("read the manifest")?;
    let secret = document["control-plane"]["secret"].as_str().context("the manifest has no secret")?;
    let kept = give(scene, &machine, "secret put", "cluster", secret).await?;
    apply(scene, &machine, &machine, &sealed(scene, &machine, &plain, &kept).await?).await?;
    unseen(scene, &machine, secret).await?;
    restart(scene, &machine, false).await?;
    unseen(scene, &machine, secret).await?;
    is_over(scene, &machine, NAME).await?;
    scene.say("secrets on STATE and sealed by the TPM are had at each start, and nothing shows them");

    restart(scene, &machine, true).await?;
    until(NAME, SOON, async || {
        let status = status(scene, &machine)?;
        has(&status, NAME, "keelson secret")?;
        let told = status["conditions"].to_string();
        ensure!(told.contains(REGISTRY) && !told.contains("control-plane"), "it tells {told}");
        Ok(())
    })
    .await?;
    scene.say("another TPM opens nothing: which key that is, is told, and all else works");

    apply(scene, &machine, &machine, &sealed(scene, &machine, &plain, &kept).await?).await?;
    is_over(scene, &machine, NAME).await?;
    restart(scene, &machine, false).await?;
    is_over(scene, &machine, NAME).await?;
    scene.say("sealed anew, it is had again");
    Ok(Outcome::Passed)
}

/// Stops the machine and starts it with its TPM or with another one.
async fn restart(scene: &mut Scene, machine: &Machine, with_other_tpm: bool) -> Result<()> {
    scene.cluster.stop_machine(&machine.name, false).await?;
    tpm::attach(&mut scene.cluster, &machine.name, with_other_tpm)?;
    scene.start(&machine.name).await?;
    scene.serve().await.map(drop)
}

/// The manifest with references in the place of secrets: one to what was kept, one sealed by the TPM that is there.
async fn sealed(scene: &Scene, machine: &Machine, plain: &str, kept: &str) -> Result<String> {
    let reference = give(scene, machine, "secret seal", KEY, PASSWORD).await?;
    let mut document: DocumentMut = plain.parse().context("read the manifest")?;
    document["control-plane"]["secret"] = kept.trim().parse().context("what `secret put` prints is no value")?;
    let mut server = toml_edit::Table::new();
    server["username"] = value("keelson");
    server["password"] = reference.trim().parse().context("what `secret seal` prints is no value")?;
    document["outbound"]["servers"][REGISTRY] = toml_edit::Item::Table(server);
    Ok(document.to_string())
}

/// Hands a secret to the machine; what stands for it in a manifest.
async fn give(scene: &Scene, machine: &Machine, verb: &str, name: &str, secret: &str) -> Result<String> {
    let path = scene.cluster.folder.path().join("secret");
    fs::write(&path, format!("{secret}\n")).context("write a secret")?;
    let mut command = keelson(scene, machine, verb)?;
    command.arg(name);
    let input = Stdio::from(File::open(&path).context("read a secret")?);
    let printed =
        tokio::time::timeout(SOON, process::run_reading(command, input)).await.context("no answer in time")?;
    fs::remove_file(&path).context("forget a secret")?;
    printed
}

/// Looks for the secrets where manifests are shown.
async fn unseen(scene: &Scene, machine: &Machine, secret: &str) -> Result<()> {
    for verb in ["get", "manifest show"] {
        let further: &[&str] = if verb == "get" { &["manifest"] } else { &[] };
        // What was applied a moment ago may not count yet.
        let shown = until(&format!("the manifest in `{verb}`"), SHORTLY, async || {
            let shown = ask(scene, machine, machine, verb, further).await?;
            ensure!(shown.contains(REGISTRY), "it shows another one:\n{shown}");
            Ok(shown)
        })
        .await?;
        ensure!(!shown.contains(secret) && !shown.contains(PASSWORD), "`{verb}` shows a secret");
    }
    Ok(())
}
