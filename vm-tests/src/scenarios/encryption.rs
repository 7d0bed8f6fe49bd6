//! Encrypted partitions: made, opened by the TPM, and by a passphrase for a TPM that does not know them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use disk::layout::STATE_NAME;
use images::tools;

use super::scene::{SHORTLY, SOON, Scene};
use super::upgrade::keelson;
use super::{Outcome, early};
use crate::flash::{self, Medium};
use crate::plan::Machine;
use crate::process;
use crate::tpm;
use crate::wait::until;

const TOOLS: &[tools::Tool] = &[("cryptsetup", "cryptsetup-bin")];
const PASSPHRASE: &str = "correct horse battery";
const WANTED: &str = "\n[[install.encryption]]\nvolumes = [\"state\", \"data\"]\ntpm = true\npassphrase = \"ask\"\n";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    tools::require(TOOLS)?;
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let path = scene.cluster.folder.manifest(&master.name);
    let plain = fs::read_to_string(&path).context("read the manifest")?;
    fs::write(&path, plain + WANTED)?;
    scene.flash(Medium::Disk)?;
    tpm::attach(&mut scene.cluster, &master.name, true)?;
    scene.cluster.start(&scene.progress)?;
    locked(scene, &master, "is not given yet").await?;
    give(scene, &master, PASSPHRASE, true).await?;
    scene.serve().await?;
    scene.say("its partitions were made with the passphrase that it asked for; the cluster serves");

    let recovery = take_recovery_key(scene, &master).await?;
    scene.cluster.stop_machine(&master.name, false).await?;
    check_header(scene, &master, &recovery)?;
    scene.say("cryptsetup knows its header, and the recovery key fits");

    tpm::attach(&mut scene.cluster, &master.name, false)?;
    scene.start(&master.name).await?;
    scene.serve().await?;
    scene.say("started again, its TPM opens them");

    scene.cluster.stop_machine(&master.name, true).await?;
    tpm::attach(&mut scene.cluster, &master.name, true)?;
    scene.cluster.start_machine(&master.name)?;
    locked(scene, &master, "another TPM").await?;
    give(scene, &master, "a wrong passphrase", false).await?;
    locked(scene, &master, "does not fit").await?;
    give(scene, &master, PASSPHRASE, true).await?;
    scene.serve().await?;
    scene.say("another TPM opens nothing, and is told of; the passphrase does");

    scene.cluster.stop_machine(&master.name, false).await?;
    tpm::attach(&mut scene.cluster, &master.name, false)?;
    scene.start(&master.name).await?;
    scene.serve().await?;
    scene.say("from then on the other TPM opens them");
    Ok(Outcome::Passed)
}

/// Waits until the machine says that it is locked, and why.
pub(super) async fn locked(scene: &Scene, master: &Machine, why: &str) -> Result<()> {
    until(&format!("a locked machine ({why})"), SOON, async || {
        let status = early::keelson(scene, master, &["status"], "").await?;
        let is_it = status.output.contains("unmet: Locked") && status.output.contains(why);
        if is_it { Ok(()) } else { bail!("it answers {status:?}") }
    })
    .await
}

/// Gives a passphrase, which is the right one or not.
pub(super) async fn give(scene: &Scene, master: &Machine, passphrase: &str, is_right: bool) -> Result<()> {
    let told = early::keelson(scene, master, &["unlock"], passphrase).await?;
    ensure!(told.is_success == is_right, "a passphrase is answered with {told:?}");
    Ok(())
}

/// The recovery key of STATE, which is given out once.
async fn take_recovery_key(scene: &Scene, master: &Machine) -> Result<String> {
    let told = until("the recovery keys", SHORTLY, async || ask_recovery_keys(scene, master).await).await?;
    let key = told.lines().find_map(|line| line.strip_prefix("STATE: ")).context("there is none of STATE")?;
    ensure!(ask_recovery_keys(scene, master).await.is_err(), "the recovery keys are given out twice");
    Ok(key.to_owned())
}

async fn ask_recovery_keys(scene: &Scene, master: &Machine) -> Result<String> {
    process::run(keelson(scene, master, "recovery-key")?).await
}

/// Looks at STATE of a machine that does not run, as a rescue system would.
fn check_header(scene: &Scene, master: &Machine, recovery: &str) -> Result<()> {
    let folder = scene.cluster.folder.machine(&master.name);
    let header = folder.join("state.header");
    flash::copy_start(&folder, STATE_NAME, &header)?;
    let cryptsetup = |words: &[&str], file: &PathBuf| {
        let mut command: Command = tools::command("cryptsetup");
        tools::run(command.args(words).arg(file))
    };
    let dump = cryptsetup(&["luksDump"], &header)?;
    for wanted in ["keelson-tpm", "keelson-passphrase", "keelson-recovery", "aes-xts-plain64"] {
        ensure!(dump.contains(wanted), "the header has no {wanted}:\n{dump}");
    }
    let key = folder.join("recovery.key");
    fs::write(&key, recovery).context("write the recovery key")?;
    let fits = ["open", "--test-passphrase", "--key-slot=0", "--key-file"];
    let words = [&fits[..], &[key.to_str().context("the folder's name is no text")?]].concat();
    cryptsetup(&words, &header).context("the recovery key").map(drop)
}
