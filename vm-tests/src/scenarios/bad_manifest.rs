//! A machine whose manifest is wrong: it tells, and takes a corrected one.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use super::early::{Told, keelson};
use super::scene::{SHORTLY, Scene};
use crate::plan::Machine;
use crate::wait::until;

/// What is wrong, and what is said about it.
const WRONG: (&str, &str) = ("hostname", "hostnaem");

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let path = scene.cluster.folder.manifest(&master.name);
    let good = fs::read_to_string(&path).context("read the manifest")?;
    let bad = good.replacen(WRONG.0, WRONG.1, 1);
    fs::write(&path, &bad)?;
    scene.cluster.start(&scene.progress)?;
    diagnosed(scene, &master, &bad, 0).await?;
    // What the harness reads it for needs the good one. Not earlier: the machine reads it at its start.
    fs::write(&path, &good)?;
    scene.say("the console tells what is wrong, where, and what was meant");

    until("the machine API", SHORTLY, async || {
        let status = keelson(scene, &master, &["status"], "").await?;
        ensure!(status.output.contains(WRONG.1), "the machine API tells {status:?}");
        Ok(())
    })
    .await?;
    let refused = apply(scene, &master, &bad).await?;
    let is_told = refused.errors.contains("InvalidArgument") && refused.errors.contains(WRONG.0);
    ensure!(!refused.is_success && is_told, "the bad manifest is answered with {refused:?}");
    let taken = apply(scene, &master, &good).await?;
    let is_taken = taken.is_success && taken.output.contains("taken in");
    ensure!(is_taken, "the corrected manifest is answered with {taken:?}");
    scene.serve().await?;
    scene.say("the corrected manifest was taken; the cluster serves");

    // Another bad one lies where the machine starts from; the last good one counts. The first one it would not even
    // tell of: it knows that the corrected one came after it.
    let bad = format!("{bad}# Written anew.\n");
    let seen = scene.console(&master.name)?.len();
    scene.cluster.stop_machine(&master.name, false).await?;
    fs::write(&path, &bad)?;
    scene.start(&master.name).await?;
    diagnosed(scene, &master, &bad, seen).await?;
    fs::write(&path, &good)?;
    scene.serve().await?;
    scene.say("started again with another bad manifest, it tells, and goes on with the last good one");
    Ok(Outcome::Passed)
}

/// Waits for the diagnostics of the manifest `bad` on the console after its first `seen` bytes.
async fn diagnosed(scene: &Scene, machine: &Machine, bad: &str, seen: usize) -> Result<()> {
    let place = bad.lines().position(|line| line.starts_with(WRONG.1)).context("the manifest is good")?;
    let wanted =
        [format!("unknown key `{}`", WRONG.1), format!(":{}:1", place + 1), format!("did you mean `{}`", WRONG.0)];
    until("the diagnostics on the console", SHORTLY, async || {
        let text = scene.console(&machine.name)?;
        let text = text.get(seen..).unwrap_or(&text);
        match wanted.iter().find(|words| !text.contains(*words)) {
            None => Ok(()),
            Some(words) => bail!("it does not say {words:?}"),
        }
    })
    .await
}

/// Hands a manifest in.
async fn apply(scene: &Scene, machine: &Machine, manifest: &str) -> Result<Told> {
    let path = scene.cluster.folder.machine(&machine.name).join("handed-in.toml");
    fs::write(&path, manifest).context("write a manifest")?;
    let path = path.to_str().context("the folder's name is no text")?;
    keelson(scene, machine, &["apply", path], "").await
}
