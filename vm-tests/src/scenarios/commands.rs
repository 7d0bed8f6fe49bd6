//! The operator's tool at machines that run: each command says what it is asked for, also by way of another machine.

use std::fs::{self, File};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Outcome;
use super::network::ask;
use super::scene::{SAMPLE_IMAGE, SHORTLY, SOON, Scene};
use super::upgrade::keelson;
use crate::plan::Machine;
use crate::process;
use crate::wait::until;

/// What `keelson get` lists, and a word that is in it on a worker that runs the sample.
const VIEWS: &[(&str, &str)] = &[
    ("services", "containerd"),
    ("processes", "keelson"),
    ("cgroups", "kubepods"),
    ("disks", "bytes"),
    ("mounts", "/var/lib"),
    ("interfaces", "worker"),
    ("routes", "default"),
    ("firewall", "["),
    ("connections", "6443"),
    // The cache of its own look-ups.
    ("connections", "127.0.0.53:53"),
    ("time", "now"),
    ("certificates", "kubelet"),
    ("images", "keelson-sample"),
    ("pods", "sample"),
    ("containers", "sample"),
    ("boots", "isCritical"),
    ("manifest", "machine.hostname"),
];
/// Commands that a worker is asked by way of its master, and what they say.
const ASKED: &[(&str, &[&str], &str)] = &[
    ("status", &[], "ready"),
    ("logs", &["kernel", "--tail", "5"], "\n"),
    ("logs", &["init"], "all services are ready"),
    ("logs", &["containerd", "--since", "1h"], "containerd"),
    ("dmesg", &["--tail", "3"], "\n"),
    ("events", &[], "node"),
    ("boot-report", &[], "containerd"),
    ("metrics", &[], "\nkeelson_service_ready{service=\"node\"} 1\n"),
    ("metrics", &[], "\nkeelson_part_up{part=\"control-groups\"} 1\n"),
    ("check dns", &["localhost"], "127.0.0.1"),
    ("manifest show", &[], "role = \"worker\""),
    ("manifest explain", &["--origin", "machine.role"], "worker"),
    ("service restart", &["node"], "node"),
];
/// What a master alone has.
const MASTERS: &[(&str, &[&str], &str)] = &[
    ("etcd status", &[], "leader"),
    ("etcd members", &[], "single-1"),
    ("etcd defrag", &[], ""),
    ("metrics", &[], "\nkeelson_etcd_has_quorum 1\n"),
];
const TYPED: &str = "is anybody there?";
/// Ends what is typed at a terminal.
const END: char = '\u{4}';
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    scene.up().await?;
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].clone();
    for &(view, word) in VIEWS {
        let word = if word == "worker" { worker.address.to_string() } else { word.to_owned() };
        let text = ask(scene, &master, &worker, "get", &[view, "--output", "json"]).await?;
        serde_json::from_str::<Value>(&text).with_context(|| format!("`get {view}` is no JSON"))?;
        ensure!(text.contains(&word), "`get {view}` has no {word:?}: {text}");
        let table = ask(scene, &master, &worker, "get", &[view]).await?;
        ensure!(!table.trim().is_empty(), "`get {view}` says nothing");
    }
    scene.say("it lists what a machine has and does");
    says(scene, (&master, &worker), ASKED).await?;
    says(scene, (&master, &master), MASTERS).await?;
    let port = [master.address.to_string(), "6443".to_owned()];
    ask(scene, &master, &worker, "check port", &[&port[0], &port[1]]).await?;
    let route = ask(scene, &master, &worker, "check route", &[&port[0]]).await?;
    ensure!(route.contains(&worker.address.to_string()), "the way to the master is {route}");
    scene.say("it tells how a machine is, and what happened there");
    files(scene, &master, &worker).await?;
    scene.say("it writes what it captures, a support archive without secrets, and a snapshot");
    debug(scene, &master, &worker).await?;
    events(scene, &master, &worker).await?;
    scene.say("it has containers to look around in, and the events tell who did");
    scene.serve().await?;
    Ok(Outcome::Passed)
}

async fn says(scene: &Scene, (master, machine): (&Machine, &Machine), rows: &[(&str, &[&str], &str)]) -> Result<()> {
    for (verb, further, word) in rows {
        let what = format!("`{verb} {}`", further.join(" "));
        let word = if *word == "single-1" { machine.name.as_str() } else { word };
        until(&format!("an answer to {what}"), SHORTLY, async || {
            let said = ask(scene, master, machine, verb, further).await?;
            ensure!(said.contains(word), "{what} has no {word:?}: {said}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn files(scene: &Scene, master: &Machine, worker: &Machine) -> Result<()> {
    let at = |name: &str| scene.cluster.folder.path().join(name).display().to_string();
    let (frames, archive, snapshot) = (at("frames.pcapng"), at("support.tar"), at("etcd.db"));
    let interface = if scene.is_netns() { "eth0".to_owned() } else { card(scene, master, worker).await? };
    // A node renews its lease every ten seconds.
    let captured = [&interface, "--duration", "15s", "--filter", "tcp port 6443", "--output", &frames];
    ask(scene, master, worker, "capture", &captured).await?;
    let bytes = fs::read(&frames).context("read what was captured")?;
    ensure!(bytes.starts_with(&PCAPNG) && bytes.len() > 300, "{} bytes were captured", bytes.len());
    ask(scene, master, master, "support", &[&archive]).await?;
    let manifest = super::network::manifest(scene, master)?;
    let secret = manifest.lines().find_map(|line| line.strip_prefix("secret = \"")).context("there is no secret")?;
    let bytes = fs::read(&archive).context("read the support archive")?;
    let text = String::from_utf8_lossy(&bytes);
    ensure!(text.contains("manifest.toml") && text.contains("etcd"), "the archive has not what it should");
    ensure!(!text.contains(secret.trim_end_matches('"')), "the archive has the cluster's secret");
    ensure!(!text.contains("PRIVATE KEY"), "the archive has a key");
    ask(scene, master, master, "etcd snapshot", &[&snapshot]).await?;
    ensure!(fs::metadata(&snapshot).is_ok_and(|file| file.len() > 10_000), "there is no snapshot");
    Ok(())
}

/// The name of the worker's card in the cluster's network.
async fn card(scene: &Scene, master: &Machine, worker: &Machine) -> Result<String> {
    let interfaces = super::network::look(scene, master, worker, "interfaces").await?;
    let all = interfaces.as_array().context("there are no interfaces")?;
    let address = worker.address.to_string();
    let card =
        all.iter().find(|it| it["addresses"].to_string().contains(&address)).context("nothing has its address")?;
    Ok(card["name"].as_str().context("it has no name")?.to_owned())
}

async fn debug(scene: &Scene, master: &Machine, worker: &Machine) -> Result<()> {
    let path = scene.cluster.folder.path().join("typed");
    // Long lines and an end: what is typed before the terminal is there waits for it.
    fs::write(&path, format!("{TYPED}\n{END}")).context("write what is typed")?;
    for further in [&[][..], &["--host"]] {
        let mut command = keelson(scene, master, "debug")?;
        command.args(["--node", &worker.name, "--image", SAMPLE_IMAGE, "--time", "2m"]).args(further);
        command.args(["--", "/sample", "echo"]);
        let input = Stdio::from(File::open(&path).context("read what is typed")?);
        let shown =
            tokio::time::timeout(SOON, process::run_reading(command, input)).await.context("no answer in time")?;
        let shown = shown.with_context(|| format!("debug {}", further.join(" ")))?;
        ensure!(shown.contains(TYPED), "the terminal shows {shown:?}");
    }
    Ok(())
}

/// What happened is told as objects.
async fn events(scene: &Scene, master: &Machine, worker: &Machine) -> Result<()> {
    for (words, kind, count) in [
        (&["--kind", "DebugContainer", "--tail", "4"][..], "DebugContainer", 4),
        (&["--kind", "ServiceRestarting", "--since", "1h"], "ServiceRestarting", 1),
    ] {
        until(&format!("events of kind {kind}"), SHORTLY, async || {
            let text = ask(scene, master, worker, "events", &[words, &["--output", "json"]].concat()).await?;
            let told = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
            ensure!(told.len() >= count, "there are {}:\n{text}", told.len());
            let is_whole = |it: &Value| it["kind"] == kind && it["severity"] == "info" && it["message"] != "";
            ensure!(told.iter().all(is_whole), "the events are:\n{text}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
