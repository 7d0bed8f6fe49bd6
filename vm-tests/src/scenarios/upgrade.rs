//! Updates: a good one stays, one may go back, bad ones are taken back, and the machine tells why.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use disk::{Kubernetes, Part, Slot, StateFormats, Update};
use images::{Image, VERSION, tools};
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
    /// A part of a manifest that its kernel hands in, which counts before all others.
    manifest: &'static str,
    /// What is wrong with it beside that.
    flaw: Flaw,
    /// What the machine must say about it afterwards.
    told: &'static str,
}

/// What is wrong with an update.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Nothing but what its kernel is told.
    None,
    /// This is damaged of its slot before its first start.
    Damaged(Damage),
    /// Its agent is a program that ends at once.
    Exits,
}

/// A good one.
const GOOD: Bad = Bad { about: "", version: "", arguments: "", manifest: "", flaw: Flaw::None, told: "" };

const BAD: &[Bad] = &[
    Bad {
        about: "a first process that hangs",
        version: "0.8.3",
        // What it takes for the manifest never ends.
        arguments: "keelson.trial=60 keelson.manifest=/proc/kmsg",
        told: "failed; the machine stood still, and its watchdog started it again",
        ..GOOD
    },
    Bad {
        about: "a first process that ends",
        version: "0.8.7",
        flaw: Flaw::Exits,
        told: "the kernel ended: Kernel panic - not syncing: Attempted to kill init",
        ..GOOD
    },
    Bad {
        about: "a kernel that panics",
        version: "0.8.0",
        arguments: "rdinit=/absent",
        told: "started 2 times and never got as far as its agent",
        ..GOOD
    },
    Bad {
        about: "a slot that is damaged",
        version: "0.8.1",
        flaw: Flaw::Damaged(Damage::Start),
        // The first stage refuses it, and the kernel keeps its words when it ends.
        told: "does not hold the root that this kernel is for",
        ..GOOD
    },
    Bad {
        about: "a slot with one wrong bit",
        version: "0.8.4",
        flaw: Flaw::Damaged(Damage::Bit),
        told: "failed; the kernel ended: Kernel panic - not syncing: dm-verity",
        ..GOOD
    },
    Bad {
        about: "a kernel without the disk's driver",
        version: "0.8.5",
        arguments: "module_blacklist=nvme",
        told: "failed; the kernel ended: keelson: cannot reach the root file system: no disk holds it; disks here: none",
        ..GOOD
    },
    Bad {
        about: "a system whose network is broken",
        version: "0.8.6",
        arguments: "keelson.trial=30 module_blacklist=virtio_net",
        told: "it was not ready within 30 s",
        ..GOOD
    },
    Bad {
        about: "a system that has no time to get ready",
        version: "0.8.2",
        arguments: "keelson.trial=20",
        told: "it was not ready within 20 s",
        ..GOOD
    },
    Bad {
        about: "a control plane that is never ready",
        version: "0.8.8",
        arguments: "keelson.trial=60",
        // The form is that of such a document. What the API server makes of it, it says when it starts, and ends.
        manifest: "[control-plane]\nauthentication = \"\"\"\napiVersion: apiserver.config.k8s.io/v1\n\
                   kind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'http://issuer.example.com', audiences: [a]}\n\
                   \x20 claimMappings: {username: {claim: sub, prefix: ''}}\n\"\"\"\n",
        told: "control-plane",
        ..GOOD
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
    let mut arguments = bad.arguments.to_owned();
    if !bad.manifest.is_empty() {
        arguments += &format!(" keelson.manifest=data:{}", STANDARD.encode(bad.manifest));
    }
    let update = (bad.version, arguments.as_str());
    match bad.flaw {
        Flaw::Damaged(damage) => {
            upgrade(scene, master, update, &["--stage"]).await?;
            scene.cluster.stop_machine(&master.name, false).await?;
            let folder = scene.cluster.folder.machine(&master.name);
            flash::damage(&folder, Slot::B, scene.cluster.image(), damage)?;
            scene.cluster.start_machine(&master.name)?;
        }
        Flaw::Exits => {
            let agent = scene.cluster.sample().to_owned();
            let image = scene.cluster.image_with_agent(&scene.request, &agent, &scene.progress)?;
            let refused = upgrade_to(scene, master, (&image, update), &["--no-drain"]).await.err();
            check_told(bad, refused)?;
        }
        Flaw::None => check_told(bad, upgrade(scene, master, update, &["--no-drain"]).await.err())?,
    }
    running(scene, master, version, "a", bad.told).await?;
    scene.serve().await?;
    scene.say(&format!("{} is taken back, and why is told", bad.about));
    Ok(())
}

/// Whether whoever updates is told why.
fn check_told(bad: &Bad, refused: Option<anyhow::Error>) -> Result<()> {
    let refused = refused.map(|error| format!("{error:#}")).context("the bad update counts as a good one")?;
    ensure!(refused.contains(bad.told), "why it was taken back is not told, but {refused:?}");
    Ok(())
}

/// What is plainly no update, or nobody's business, changes nothing.
fn check_refusals(scene: &Scene, master: &Machine) -> Result<()> {
    let path = scene.cluster.folder.path().join("bad.update");
    let refuses = |file: &[u8], further: &[&str], told: &str| {
        std::fs::write(&path, file).context("write the bad update")?;
        let said = tools::run(keelson(scene, master, "upgrade")?.args(further).arg(&path));
        let said = said.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains(told), "instead of {told:?} it is answered with {said:?}");
        Ok(())
    };
    let version = scene.cluster.flashed()?.write_update(scene.cluster.image(), "0.0.1", "", &path)?;
    let whole = std::fs::read(&path).context("read the update")?;
    refuses(&whole, &[], &format!("the update is version {version}, older than"))?;
    let head = Update::parse_head(&whole)?.context("the update has no metadata")?;
    let newer = Update { version: "9.0.0".to_owned(), ..head.update };
    let parts = &whole[head.bytes..];
    let with_parts = |update: &Update, parts: &[u8]| anyhow::Ok([&update.head(|_| String::new())?, parts].concat());
    for (update, told) in [
        // Of a system that came about after others that this machine never had.
        (Update { state: StateFormats { format: 9, oldest: 8 }, ..newer.clone() }, "reads STATE of format 8 to 9"),
        (
            Update { kubernetes: Kubernetes::OWN.newer_by(2), ..newer.clone() },
            "API servers are at most one minor version apart",
        ),
        (Update { architecture: "aarch64".to_owned(), ..newer.clone() }, "is for keelson for aarch64"),
    ] {
        refuses(&with_parts(&update, parts)?, &[], told)?;
    }
    // Its size is right, and no machine holds so much.
    let (kernel, root) = (Part { bytes: LARGE as u64, sha256: String::new() }, Part::of(b"root"));
    refuses(
        &with_parts(&Update { kernel, root, ..newer.clone() }, &vec![0; LARGE + 4])?,
        &[],
        "the kernel of the update has",
    )?;
    let mut unread = newer;
    let parts = without_key(parts, &mut unread, "machine.hostname")?;
    refuses(&with_parts(&unread, &parts)?, &[], "which has machine.hostname")?;
    refuses(&whole[..whole.len() - 1], &["--allow-downgrade"], "bytes, not")?;
    let back = tools::run(&mut keelson(scene, master, "rollback")?);
    let refused = back.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("nothing to go back to"), "a rollback to nothing is answered with {refused:?}");
    scene.say(
        "refused are an older version, other formats of STATE, another architecture, a Kubernetes too new, one that is too \
         large or cut short, one that cannot read the manifest, and a rollback to nothing",
    );
    Ok(())
}

/// More than a kernel image may have.
const LARGE: usize = 81 << 20;

/// The parts of an update whose kernel image tells that its system does not know a key of manifests. Its metadata are made
/// to fit.
fn without_key(parts: &[u8], update: &mut Update, key: &str) -> Result<Vec<u8>> {
    let mut parts = parts.to_vec();
    let kernel = usize::try_from(update.kernel.bytes)?;
    let line = format!("\n{key}\n");
    let place = parts[..kernel].windows(line.len()).position(|bytes| bytes == line.as_bytes());
    parts[place.context("the kernel image does not tell its keys")? + 1] = b'#';
    update.kernel = Part::of(&parts[..kernel]);
    Ok(parts)
}

/// Makes an update and hands it to the machine; answers its whole version.
pub(super) async fn upgrade(scene: &Scene, master: &Machine, what: (&str, &str), further: &[&str]) -> Result<String> {
    upgrade_to(scene, master, (scene.cluster.image(), what), further).await
}

/// The same, of this image.
async fn upgrade_to(
    scene: &Scene,
    master: &Machine,
    (image, what): (&Image, (&str, &str)),
    further: &[&str],
) -> Result<String> {
    let path = scene.cluster.folder.path().join("machine.update");
    let version = scene.cluster.flashed()?.write_update(image, what.0, what.1, &path)?;
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
