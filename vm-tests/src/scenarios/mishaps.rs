//! What can happen to a machine, as tables: what is done to it while it is off, what it tells then, and what mends it.

use anyhow::{Context, Result, ensure};
use disk::layout::{DATA_NAME, STATE_NAME};
use images::tools;
use serde_json::Value;

use super::scene::{SOON, Scene, sample_pods};
use super::upgrade::{keelson, status};
use super::{Outcome, early};
use crate::filesystem;
use crate::flash::Medium;
use crate::hardware::Hardware;
use crate::plan::Machine;
use crate::wait::until;

/// Pods of the sample.
const SAMPLES: usize = 3;
/// So often it is looked whether a machine stays as it is, rather than start again and again.
const LOOKS: u32 = 20;

/// Something that happens.
struct Mishap {
    about: &'static str,
    /// What is done while the machine is off.
    happens: fn(&std::path::Path) -> Result<()>,
    /// The name of the condition that it tells, and a part of what helps, by its own words.
    told: (&'static str, &'static str),
    /// Whether it still knows who asks.
    knows: bool,
    mends: Mend,
}

/// What a machine's owner does.
enum Mend {
    /// `keelson reset` of this.
    Reset(&'static [&'static str]),
    /// `keelson apply` of its manifest.
    Apply,
}

const DAMAGE: &[Mishap] = &[
    Mishap {
        about: "a damaged STATE",
        happens: |folder| filesystem::damage(folder, STATE_NAME),
        told: ("DiskUnusable", "--what all"),
        knows: false,
        mends: Mend::Reset(&["--what", "all"]),
    },
    Mishap {
        about: "a damaged DATA",
        happens: |folder| filesystem::damage(folder, DATA_NAME),
        told: ("DiskUnusable", "--what data"),
        knows: true,
        mends: Mend::Reset(&["--what", "data", "--no-drain"]),
    },
    Mishap {
        about: "a damaged manifest",
        happens: |folder| {
            filesystem::replace(folder, STATE_NAME, "manifest.toml", "version = 1\n[machi")?;
            Hardware { is_without_manifest: true, ..Hardware::default() }.give(folder)
        },
        told: ("NoManifest", "keelson apply"),
        knows: false,
        mends: Mend::Apply,
    },
];

const FULL: &[Mishap] = &[
    Mishap {
        about: "a full DATA",
        happens: |folder| filesystem::fill(folder, DATA_NAME),
        told: ("DataFull", "--what data"),
        knows: true,
        mends: Mend::Reset(&["--what", "data", "--no-drain"]),
    },
    Mishap {
        about: "a full STATE",
        happens: |folder| filesystem::fill(folder, STATE_NAME),
        told: ("StateFull", "--what state"),
        knows: true,
        // The only member of etcd goes with it.
        mends: Mend::Reset(&["--what", "state", "--no-drain", "--force"]),
    },
];

/// What lies on the disk is damaged.
pub(super) async fn run_damage(scene: &mut Scene) -> Result<Outcome> {
    run(scene, DAMAGE).await
}

/// The disk is full.
pub(super) async fn run_full(scene: &mut Scene) -> Result<Outcome> {
    run(scene, FULL).await
}

async fn run(scene: &mut Scene, mishaps: &[Mishap]) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    scene.up().await?;
    for mishap in mishaps {
        scene.cluster.stop_machine(&machine.name, false).await?;
        (mishap.happens)(&scene.cluster.folder.machine(&machine.name)).context(mishap.about)?;
        scene.cluster.start_machine(&machine.name)?;
        tells(scene, &machine, mishap).await.context(mishap.about)?;
        mend(scene, &machine, mishap).await.context(mishap.about)?;
        scene.serve().await.context(mishap.about)?;
        is_over(scene, &machine, mishap.told.0).await.context(mishap.about)?;
        scene.say(&format!("{} is told as {}, and what that says mends it", mishap.about, mishap.told.0));
    }
    Ok(Outcome::Passed)
}

/// The power is cut when the first images have just been unpacked: their files are there all the same.
pub(super) async fn run_early_cut(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let api = scene.up().await?;
    scene.restart(&machine.name, true).await?;
    scene.serve().await?;
    sample_pods(&api, SAMPLES).await?;
    scene.say("pods start from images that were unpacked a moment before the power was cut");
    Ok(Outcome::Passed)
}

/// A machine that was started without its disk: nothing begins anew, and with the disk all is there again.
pub(super) async fn run_lost_disk(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let folder = scene.cluster.folder.machine(&machine.name);
    let api = scene.up().await?;
    let before = api.get("/api/v1/namespaces/kube-system").await?["metadata"]["uid"].clone();
    scene.cluster.stop_machine(&machine.name, true).await?;
    Hardware { is_without_disk: true, ..Hardware::default() }.give(&folder)?;
    scene.cluster.start_machine(&machine.name)?;
    told_by_stranger(scene, &machine, ("DiskUnusable", "see that the disk is there")).await?;
    let reset = early::keelson(scene, &machine, &["reset", &machine.name, "--what", "all", "--yes"], "").await?;
    ensure!(!reset.is_success, "a machine without a disk is reset: {reset:?}");
    scene.cluster.stop_machine(&machine.name, true).await?;
    Hardware::default().give(&folder)?;
    scene.cluster.start_machine(&machine.name)?;
    let api = scene.serve().await?;
    let after = api.get("/api/v1/namespaces/kube-system").await?["metadata"]["uid"].clone();
    ensure!(before.is_string() && before == after, "the cluster is another one: {before} and {after}");
    scene.say("without its disk a master starts no new cluster and tells so; with it, it serves as before");
    Ok(Outcome::Passed)
}

/// Clocks that are ten years off: one that is behind goes on from the last time it knew; of one that is ahead the machine
/// tells.
pub(super) async fn run_clock(scene: &mut Scene) -> Result<Outcome> {
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let folder = scene.cluster.folder.machine(&machine.name);
    let set = |clock: Option<&str>| Hardware { clock: clock.map(str::to_owned), ..Hardware::default() }.give(&folder);
    scene.up().await?;
    scene.cluster.stop_machine(&machine.name, false).await?;
    set(Some("2016-01-31T12:00:00"))?;
    scene.cluster.start_machine(&machine.name)?;
    // By keys that are younger than its clock.
    scene.serve().await.context("ten years behind")?;
    until("ClockDoubtful", SOON, async || has(&status(scene, &machine)?, "ClockDoubtful", "ntp-servers")).await?;
    until("ready", SOON, async || {
        let status = status(scene, &machine)?;
        ensure!(status["ready"] == true, "with a clock that was set it is not: {}", status["unmet"]);
        Ok(())
    })
    .await?;
    scene.say("a clock ten years behind is set to the last time that the machine knew, and told of");

    scene.cluster.stop_machine(&machine.name, false).await?;
    set(Some("2036-12-31T12:00:00"))?;
    let seen = scene.console(&machine.name)?.len();
    scene.cluster.start_machine(&machine.name)?;
    // Nobody's keys are good there but its own: it is told at the console.
    until("ClockDoubtful at the console", SOON, async || {
        let console = scene.console(&machine.name)?;
        let new = console.get(seen..).unwrap_or_default();
        ensure!(new.contains("unmet: ClockDoubtful"), "it ends with {}", new.lines().last().unwrap_or_default());
        ensure!(new.contains("all services are ready"), "it does not come to run");
        Ok(())
    })
    .await
    .context("ten years ahead")?;
    scene.cluster.stop_machine(&machine.name, false).await?;
    set(None)?;
    scene.cluster.start_machine(&machine.name)?;
    scene.serve().await.context("back from ten years ahead")?;
    is_over(scene, &machine, "ClockDoubtful").await?;
    scene.say("one ten years ahead is told of; once it is right the machine serves, with keys of the right time");
    Ok(Outcome::Passed)
}

/// Waits until the machine tells of it, and looks whether it stays as it is.
async fn tells(scene: &Scene, machine: &Machine, mishap: &Mishap) -> Result<()> {
    if !mishap.knows {
        return told_by_stranger(scene, machine, mishap.told).await;
    }
    let (name, fix) = mishap.told;
    let start = until(name, SOON, async || {
        let status = status(scene, machine)?;
        has(&status, name, fix)?;
        Ok(status["bootId"].clone())
    })
    .await?;
    for _ in 0..LOOKS {
        let status = status(scene, machine)?;
        ensure!(status["bootId"] == start, "it started again");
    }
    Ok(())
}

/// The same of a machine that knows nobody.
async fn told_by_stranger(scene: &Scene, machine: &Machine, (name, fix): (&str, &str)) -> Result<()> {
    let ask = async || -> Result<Value> {
        let told = early::keelson(scene, machine, &["status", "--output", "json"], "").await?;
        serde_json::from_str(&told.output).with_context(|| format!("it answers {told:?}"))
    };
    let start = until(name, SOON, async || {
        let status = ask().await?;
        has(&status, name, fix)?;
        Ok(status["bootId"].clone())
    })
    .await?;
    for _ in 0..LOOKS {
        ensure!(ask().await?["bootId"] == start, "it started again");
    }
    Ok(())
}

/// Whether a status tells a condition, and what helps.
pub(super) fn has(status: &Value, name: &str, fix: &str) -> Result<()> {
    let conditions = status["conditions"].as_array().context("it has no conditions")?;
    let found = conditions.iter().find(|condition| condition["name"] == name);
    let found = found.with_context(|| format!("it tells {}", status["conditions"]))?;
    ensure!(found["fix"].as_str().is_some_and(|told| told.contains(fix)), "what helps is told as {}", found["fix"]);
    Ok(())
}

async fn mend(scene: &Scene, machine: &Machine, mishap: &Mishap) -> Result<()> {
    let manifest = scene.cluster.folder.manifest(&machine.name).display().to_string();
    let words: Vec<&str> = match &mishap.mends {
        Mend::Reset(further) => ["reset", &machine.name, "--yes"].iter().chain(*further).copied().collect(),
        Mend::Apply => vec!["apply", &manifest],
    };
    if mishap.knows {
        let mut command = keelson(scene, machine, words[0])?;
        command.args(&words[1..]);
        return tokio::task::spawn_blocking(move || tools::run(&mut command)).await.context("wait")?.map(drop);
    }
    let told = early::keelson(scene, machine, &words, "").await?;
    ensure!(told.is_success, "it answers {told:?}");
    Ok(())
}

/// Waits until the machine no longer tells of it, and lacks nothing.
pub(super) async fn is_over(scene: &Scene, machine: &Machine, name: &str) -> Result<()> {
    until(&format!("the end of {name}"), SOON, async || {
        let status = status(scene, machine)?;
        ensure!(has(&status, name, "").is_err() && status["ready"] == true, "it lacks {}", status["unmet"]);
        Ok(())
    })
    .await
}
