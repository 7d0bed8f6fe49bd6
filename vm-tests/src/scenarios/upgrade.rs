//! Updates: a good one stays, one may go back, bad ones are taken back, and the machine tells why.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use disk::{Slot, StateFormats, Update};
use images::{VERSION, tools};
use serde_json::Value;

use super::Outcome;
use super::network::{apply, ask, manifest};
use super::scene::{SHORTLY, SOON, Scene};
use crate::files::PASSWORD;
use crate::flash::{self, Damage, Medium};
use crate::observe::Api;
use crate::plan::Machine;
use crate::process;
use crate::wait::until;

/// An update that must be taken back.
struct Bad {
    about: &'static str,
    version: &'static str,
    /// What its kernel is told.
    arguments: &'static str,
    /// What is damaged of its slot before its first start.
    damage: Option<Damage>,
    /// What the machine must say about it afterwards.
    told: &'static str,
}

const BAD: &[Bad] = &[
    Bad {
        about: "a first process that hangs",
        version: "0.8.3",
        // What it takes for the manifest never ends.
        arguments: "keelson.trial=60 keelson.manifest=/proc/kmsg",
        damage: None,
        told: "failed; the machine stood still, and its watchdog started it again",
    },
    Bad {
        about: "a kernel that panics",
        version: "0.8.0",
        arguments: "rdinit=/absent",
        damage: None,
        told: "started 2 times and never got as far as its agent",
    },
    Bad {
        about: "a slot that is damaged",
        version: "0.8.1",
        arguments: "",
        damage: Some(Damage::Start),
        // The first stage refuses it, and the kernel keeps its words when it ends.
        told: "does not hold the root that this kernel is for",
    },
    Bad {
        about: "a slot with one wrong bit",
        version: "0.8.4",
        arguments: "",
        damage: Some(Damage::Bit),
        told: "failed; the kernel ended: Kernel panic - not syncing: dm-verity",
    },
    Bad {
        about: "a kernel without the disk's driver",
        version: "0.8.5",
        arguments: "module_blacklist=nvme",
        damage: None,
        told: "failed; the kernel ended: keelson: cannot reach the root file system: no disk holds it; disks here: none",
    },
    Bad {
        about: "a system whose network is broken",
        version: "0.8.6",
        arguments: "keelson.trial=30 module_blacklist=virtio_net",
        damage: None,
        told: "it was not ready within 30 s",
    },
    Bad {
        about: "a system that is never ready",
        version: "0.8.2",
        arguments: "keelson.trial=20",
        damage: None,
        told: "it was not ready within 20 s",
    },
];

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    scene.up().await?;
    check_refusals(scene, &master)?;

    let version = upgrade(scene, &master, ("0.7.0", ""), &[]).await?;
    running(scene, &master, &version, "b", "proved itself").await?;
    scene.serve().await?;
    scene.say("a good update stays");
    let flashed = scene.cluster.flashed()?.version(scene.cluster.image(), VERSION);
    tell(scene, &master, "rollback").await?;
    running(scene, &master, &flashed, "a", "proved itself").await?;
    scene.say("and can be gone back from");
    for bad in BAD {
        check_bad(scene, &master, bad, &flashed).await?;
    }
    check_reboot(scene, &master).await?;
    Ok(Outcome::Passed)
}

/// A system that ran well until its disk forgot it: the one before it runs again, and for good.
pub(super) async fn run_lost(scene: &mut Scene) -> Result<Outcome> {
    const TOLD: &str = "it had proved itself, but its root could not be reached any more; the kernel ended";
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    scene.up().await?;
    let before = scene.cluster.flashed()?.version(scene.cluster.image(), VERSION);
    let version = upgrade(scene, &master, ("0.7.0", ""), &[]).await?;
    running(scene, &master, &version, "b", "proved itself").await?;
    for start in ["after the damage", "once more"] {
        scene.cluster.stop_machine(&master.name, false).await?;
        if start == "after the damage" {
            let folder = scene.cluster.folder.machine(&master.name);
            flash::damage(&folder, Slot::B, scene.cluster.image(), Damage::Start)?;
        }
        scene.cluster.start_machine(&master.name)?;
        running(scene, &master, &before, "a", TOLD).await.context(start)?;
    }
    scene.serve().await?;
    scene.say("a system whose root is lost gives way to the one before it");
    Ok(Outcome::Passed)
}

/// Every machine of a cluster by one command, which a master passes on to the others.
pub(super) async fn run_all(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    let api = scene.up().await?;
    let version = upgrade(scene, &master, ("0.7.0", ""), &["--all"]).await?;
    check_all(scene, &api, &master, &version).await?;
    upgrade(scene, &master, ("0.7.0", ""), &["--all"]).await.context("once more")?;
    Ok(Outcome::Passed)
}

/// Whether all machines run a version that proved itself, and take pods.
pub(super) async fn check_all(scene: &Scene, api: &Api, master: &Machine, version: &str) -> Result<()> {
    for name in scene.cluster.names() {
        let mut command = keelson(scene, master, "status")?;
        let output = command.args(["--node", &name, "--output", "json"]).output().context("ask for the status")?;
        let status: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("{name} does not answer through {}: {}", master.name, String::from_utf8_lossy(&output.stderr))
        })?;
        let update = status["update"].as_str().unwrap_or_default();
        ensure!(status["hostname"] == *name, "{name} answers as {}", status["hostname"]);
        ensure!(status["version"] == version && update.contains("proved itself"), "{name}: {update}");
        until(&format!("{name} open for pods"), SOON, async || {
            let node = api.get(&format!("/api/v1/nodes/{name}")).await?;
            ensure!(node["spec"]["unschedulable"].is_null(), "it is closed: {}", node["metadata"]["annotations"]);
            Ok(())
        })
        .await?;
    }
    scene.serve().await?;
    scene.say("every machine took the update, and takes pods again");
    Ok(())
}

/// An update that the machine fetches: whoever it does not believe, and what is not what it should be, changes nothing;
/// where the server breaks off it goes on.
pub(super) async fn run_url(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    scene.up().await?;
    let files = scene.files().await?;
    let path = scene.cluster.folder.path().join("machine.update");
    let version = scene.cluster.flashed()?.write_update(scene.cluster.image(), "0.7.0", "", &path)?;
    let update = std::fs::read(&path).context("read the update")?;
    let middle = update.len() / 2;
    let mut damaged = update.clone();
    // Within the root, which comes last.
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let short = files.have("/short.update", update[..last].to_vec());
    let damaged = files.have("/damaged.update", damaged);
    let source = files.have("/machine.update", update);
    let fetch = async |further: &[&str]| ask(scene, &master, &master, "upgrade", further).await;
    let refused = async |further: &[&str], told: &str| {
        // A manifest that was applied a moment ago counts once the service that answers has started again.
        until(&format!("{told:?} for {further:?}"), SHORTLY, async || {
            let said = fetch(further).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(said.contains(told), "it is answered with {said:?}");
            Ok(())
        })
        .await
    };
    refused(&[&source], "speak TLS").await.context("a server that is not believed")?;
    let before = manifest(scene, &master)?;
    let stranger = before.clone() + &files.manifest().replace(PASSWORD, "another");
    apply(scene, &master, &master, &stranger).await?;
    refused(&[&source], "401").await.context("a server that does not know the machine")?;
    apply(scene, &master, &master, &(before + &files.manifest())).await?;
    refused(&[&short], "bytes").await?;
    refused(&[&damaged], "root of the update is damaged").await?;
    refused(&[&source, "--sha256", &"0".repeat(64)], "has the SHA-256").await?;
    let now = status(scene, &master)?;
    ensure!(now["slot"] == "a" && now["update"].is_null(), "a refused update changed something: {now}");
    scene.say("who is not believed, a wrong password, a short file, a wrong bit and a wrong digest change nothing");

    files.cut(middle);
    fetch(&[&source]).await?;
    running(scene, &master, &version, "b", "proved itself").await?;
    let asked = files.asked();
    ensure!(asked.iter().any(|(_, path, from)| path == "/machine.update" && *from > 0), "it was asked for {asked:?}");
    scene.serve().await?;
    scene.say("the machine fetched an update itself, going on where the server broke off");
    Ok(Outcome::Passed)
}

/// A new start by command: the machine comes back by itself.
async fn check_reboot(scene: &Scene, master: &Machine) -> Result<()> {
    let seen = scene.console(&master.name)?.len();
    tell(scene, master, "reboot").await?;
    until("the new start", SOON, async || {
        let console = scene.console(&master.name)?.get(seen..).unwrap_or_default().to_owned();
        ensure!(
            console.contains("all services are ready"),
            "it ends with {}",
            console.lines().last().unwrap_or_default()
        );
        Ok(())
    })
    .await?;
    scene.serve().await?;
    scene.say("the machine starts again when it is told to");
    Ok(())
}

/// Gives the machine a command that needs nothing more.
async fn tell(scene: &Scene, master: &Machine, verb: &str) -> Result<()> {
    let said = process::run(keelson(scene, master, verb)?).await?;
    scene.say(said.trim());
    Ok(())
}

/// A bad update: the machine comes back as it was, and says what was wrong.
async fn check_bad(scene: &mut Scene, master: &Machine, bad: &Bad, version: &str) -> Result<()> {
    let update = (bad.version, bad.arguments);
    if let Some(damage) = bad.damage {
        upgrade(scene, master, update, &["--stage"]).await?;
        scene.cluster.stop_machine(&master.name, false).await?;
        let folder = scene.cluster.folder.machine(&master.name);
        flash::damage(&folder, Slot::B, scene.cluster.image(), damage)?;
        scene.cluster.start_machine(&master.name)?;
    } else {
        let refused = upgrade(scene, master, update, &["--no-drain"]).await.err().map(|error| format!("{error:#}"));
        let refused = refused.context("the bad update counts as a good one")?;
        ensure!(refused.contains(bad.told), "why it was taken back is not told, but {refused:?}");
    }
    running(scene, master, version, "a", bad.told).await?;
    scene.serve().await?;
    scene.say(&format!("{} is taken back, and why is told", bad.about));
    Ok(())
}

/// What is plainly no update, or nobody's business, changes nothing.
fn check_refusals(scene: &Scene, master: &Machine) -> Result<()> {
    let path = scene.cluster.folder.path().join("bad.update");
    let version = scene.cluster.flashed()?.write_update(scene.cluster.image(), "0.0.1", "", &path)?;
    let older = tools::run(keelson(scene, master, "upgrade")?.arg(&path));
    let refused = older.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(
        refused.contains("older than") && refused.contains(&version),
        "an older version is answered with {refused:?}"
    );
    let whole = std::fs::read(&path).context("read the update")?;
    let head = Update::parse_head(&whole)?.context("the update has no metadata")?;
    // One whose system came about after others that this machine never had.
    let late = Update { version: "9.0.0".to_owned(), state: StateFormats { format: 9, oldest: 8 }, ..head.update };
    std::fs::write(&path, [late.head(|_| String::new())?.as_slice(), &whole[head.bytes..]].concat())?;
    let unreadable = tools::run(keelson(scene, master, "upgrade")?.arg(&path));
    let refused = unreadable.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("reads STATE of format 8 to 9"), "an update without a way is answered with {refused:?}");
    let mut damaged = whole;
    damaged.pop();
    std::fs::write(&path, &damaged).context("damage the update")?;
    let short = tools::run(keelson(scene, master, "upgrade")?.arg("--allow-downgrade").arg(&path));
    let refused = short.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("bytes, not"), "a shortened update is answered with {refused:?}");
    let back = tools::run(&mut keelson(scene, master, "rollback")?);
    let refused = back.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("nothing to go back to"), "a rollback to nothing is answered with {refused:?}");
    scene.say("an older version, one that cannot read STATE, a shortened update and a rollback to nothing are refused");
    Ok(())
}

/// Makes an update and hands it to the machine; answers its whole version.
pub(super) async fn upgrade(scene: &Scene, master: &Machine, what: (&str, &str), further: &[&str]) -> Result<String> {
    let path = scene.cluster.folder.path().join("machine.update");
    let version = scene.cluster.flashed()?.write_update(scene.cluster.image(), what.0, what.1, &path)?;
    let mut command = keelson(scene, master, "upgrade")?;
    command.args(further).arg(&path);
    process::run(command).await?;
    Ok(version)
}

/// Waits until the machine is ready with this version in this slot, and says `told` about the last update.
pub(super) async fn running(scene: &Scene, master: &Machine, version: &str, slot: &str, told: &str) -> Result<()> {
    until(&format!("version {version} in slot {slot}"), SOON, async || {
        let status = status(scene, master)?;
        let update = status["update"].as_str().unwrap_or_default();
        if status["version"] != version || status["slot"] != slot || status["ready"] != true || !update.contains(told) {
            bail!(
                "it runs {} in slot {}, lacks {}, and says of the last update: {update}",
                status["version"],
                status["slot"],
                status["unmet"]
            );
        }
        Ok(())
    })
    .await
}

pub(super) fn status(scene: &Scene, master: &Machine) -> Result<Value> {
    // It ends with another code while the machine is not ready.
    let output = keelson(scene, master, "status")?.args(["--output", "json"]).output().context("ask for the status")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the machine does not answer: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The operator's tool, pointed at the machine.
pub(super) fn keelson(scene: &Scene, master: &Machine, verb: &str) -> Result<Command> {
    let mut command = Command::new(scene.cluster.keelson());
    let port = scene.cluster.state.ports.machine;
    command.args(verb.split(' ')).args(["--endpoint", &format!("127.0.0.1:{port}")]);
    command.arg("--kubeconfig").arg(scene.cluster.folder.kubeconfig());
    // The host's port leads there, but is in nobody's certificate.
    command.args(["--server-name", &master.name]);
    Ok(command)
}
