//! A machine that starts beside a manifest that is not for it: it stays what it is, tells so, and what that says mends it.

use anyhow::{Context, Result, ensure};

use super::Outcome;
use super::mishaps::{has, is_over};
use super::network::{apply, manifest};
use super::scene::{SOON, Scene};
use super::upgrade::status;
use crate::plan::Machine;
use crate::wait::until;

const NAME: &str = "ManifestNotTaken";
/// So often it is looked whether the machine stays as it is.
const LOOKS: u32 = 20;
/// The CA that it names is nobody's.
const WORKER: &str = "version = 1\n[machine]\nhostname = \"HOSTNAME\"\nrole = \"worker\"\n[cluster]\n\
                      endpoint = \"https://10.250.0.99:6443\"\ntoken = \"keels0.0123456789abcdef\"\n\
                      ca-hash = \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";
/// Another cluster's.
const SECRET: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let good = manifest(scene, &machine)?;
    let worker = WORKER.replace("HOSTNAME", &machine.name);
    let stranger = good.lines().map(other_secret).collect::<Vec<_>>().join("\n");
    scene.up().await?;

    tells(scene, &machine, (&worker, &good), "is for a worker, and this machine is a master").await?;
    scene.say("a master that finds a worker's manifest stays a master, and tells so");
    apply(scene, &machine, &machine, &good).await?;
    is_over(scene, &machine, NAME).await?;
    start_with(scene, &machine, (&worker, &good)).await?;
    scene.serve().await?;
    let now = status(scene, &machine)?;
    ensure!(has(&now, NAME, "").is_err(), "what was of no account any more is told again: {}", now["conditions"]);
    scene.say("once its own was handed in, the other one is of no account");

    tells(scene, &machine, (&stranger, &good), "is for another cluster").await?;
    let refused = apply(scene, &machine, &machine, &stranger).await.err().map(|error| format!("{error:#}"));
    let refused = refused.context("another cluster's manifest is taken in")?;
    ensure!(refused.contains("another cluster") && refused.contains("keelson reset"), "it is answered with {refused}");
    start_with(scene, &machine, (&good, &good)).await?;
    scene.serve().await?;
    is_over(scene, &machine, NAME).await?;
    scene.say("and so is another cluster's, until it is corrected where it comes from");
    Ok(Outcome::Passed)
}

/// Starts the machine beside this manifest. What the harness reads it for needs the good one, once the machine has read it.
async fn start_with(scene: &mut Scene, machine: &Machine, (offered, good): (&str, &str)) -> Result<()> {
    scene.cluster.stop_machine(&machine.name, false).await?;
    let path = scene.cluster.folder.manifest(&machine.name);
    std::fs::write(&path, offered).context("write a manifest")?;
    scene.start(&machine.name).await?;
    std::fs::write(&path, good).context("write the manifest back")
}

/// Starts the machine beside a manifest that is not for it: it tells, and goes on as it was.
async fn tells(scene: &mut Scene, machine: &Machine, manifests: (&str, &str), why: &str) -> Result<()> {
    start_with(scene, machine, manifests).await?;
    let start = until(NAME, SOON, async || {
        let status = status(scene, machine)?;
        has(&status, NAME, "keelson apply")?;
        ensure!(status["conditions"].to_string().contains(why), "it tells {}", status["conditions"]);
        ensure!(status["ready"] == true, "it lacks {}", status["unmet"]);
        Ok(status["bootId"].clone())
    })
    .await?;
    for _ in 0..LOOKS {
        let status = status(scene, machine)?;
        ensure!(status["bootId"] == start && status["ready"] == true, "it does not stay as it was: {status}");
    }
    scene.serve().await.map(drop)
}

fn other_secret(line: &str) -> String {
    if line.starts_with("secret = ") { format!("secret = \"{SECRET}\"") } else { line.to_owned() }
}
