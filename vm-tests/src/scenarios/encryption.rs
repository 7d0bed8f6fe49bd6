//! Encrypted partitions: made, opened by the TPM, and by a passphrase for a TPM that does not know them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use disk::layout::STATE_NAME;
use images::tools;

use super::Outcome;
use super::scene::{SHORTLY, SOON, Scene};
use super::upgrade::keelson;
use crate::flash::{self, Medium};
use crate::plan::Machine;
use crate::wait::until;
use crate::{tpm, visitor};

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
    locked(scene, "is not given yet").await?;
    give(scene, PASSPHRASE).await?;
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
    locked(scene, "another TPM").await?;
    give(scene, "a wrong passphrase").await?;
    locked(scene, "does not fit").await?;
    give(scene, PASSPHRASE).await?;
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
async fn locked(scene: &Scene, why: &str) -> Result<()> {
    until(&format!("a locked machine ({why})"), SOON, async || {
        let (code, status) = call(scene, "GET", "/status", "").await?;
        let is_it = code == 200 && status.contains("\"Locked\"") && status.contains(why);
        if is_it { Ok(()) } else { bail!("it answers {code}: {status}") }
    })
    .await
}

async fn give(scene: &Scene, passphrase: &str) -> Result<()> {
    let taken = call(scene, "PUT", "/unlock", passphrase).await?;
    ensure!(taken.0 == 202, "a passphrase is answered with {taken:?}");
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
    let mut command = keelson(scene, master, "recovery-key")?;
    tokio::task::spawn_blocking(move || tools::run(&mut command)).await.context("wait for the answer")?
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

/// Calls the machine API of a machine in maintenance.
async fn call(scene: &Scene, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let (head, body) = (format!("{method} {path} HTTP/1.1\r\n"), body.to_owned());
    let to = SocketAddr::from(([127, 0, 0, 1], scene.cluster.state.ports.machine));
    tokio::task::spawn_blocking(move || visitor::request(to, &head, &body)).await.context("call")?
}
