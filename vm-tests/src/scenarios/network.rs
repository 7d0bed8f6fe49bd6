//! The network of machines that run, changed through their API: links, a tunnel, a firewall, and what cuts one off.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use toml_edit::DocumentMut;

use super::Outcome;
use super::scene::{SHORTLY, SOON, Scene};
use super::upgrade::keelson;
use crate::manifests::uplink_mac;
use crate::observe::Api;
use crate::plan::{Machine, gateway};
use crate::process;
use crate::wait::until;

/// Pairs of keys, for nothing else.
const KEYS: [(&str, &str); 2] = [
    ("WGntFMYraGrVs0Y/ouTUsPzx3zn8ODToeDgRvHhoOFw=", "QEQiOEWS4t9hXniYooZqGMe58EuGcJ7Qmanyg/u1SU4="),
    ("SN2P1ADTXpTOsY1wAej+hCjFw2mwgCfjw2lCixPW0UM=", "uPEnqPTUC6c3l0QGmkmvsbwSGTxwUxnOaqemCDtP8E0="),
];
/// The second part of the addresses of each network beside the cluster's own.
const VLAN: u8 = 77;
const TUNNEL: u8 = 78;
/// A machine gives up what cuts it off after two minutes.
const GIVEN_UP: Duration = Duration::from_secs(300);
const GOES_BACK: &str = "nobody kept the one that was tried, and the one before is back";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].clone();
    scene.up().await?;
    if scene.is_netns() {
        scene.say("a host's kernel may make neither VLANs nor tunnels for its namespaces: they are not tried here");
    } else {
        links(scene, &master, &worker).await?;
    }
    firewall(scene, &master).await?;
    let [a, b, c, _] = worker.address.octets();
    cut_off(scene, &master, &worker, "a wrong address", |manifest| {
        manifest.replace(&format!("{}/24", worker.address), &format!("{a}.{b}.{c}.99/24"))
    })
    .await?;
    let wrong = rules(&format!("action = \"block\", ports = [\"50000\"], from = [\"{}\"]", caller(scene)));
    cut_off(scene, &master, &master, "a firewall against whoever looks after it", |manifest| manifest + &wrong).await?;
    scene.serve().await?;
    Ok(Outcome::Passed)
}

/// A VLAN and a tunnel between the machines, and a bond on one of them.
async fn links(scene: &Scene, master: &Machine, worker: &Machine) -> Result<()> {
    let machines = [(master, KEYS[0].0, worker, KEYS[1].1), (worker, KEYS[1].0, master, KEYS[0].1)];
    for (machine, key, other, peer) in machines {
        let mut manifest = manifest(scene, machine)?;
        if machine.name == worker.name {
            manifest = bonded(&manifest, &uplink_mac(worker))?;
        }
        manifest += &further_links(machine, key, other, peer);
        apply(scene, master, machine, &manifest).await.context(format!("links of {}", machine.name))?;
    }
    for (what, network) in [("VLAN", VLAN), ("tunnel", TUNNEL)] {
        let to = address(network, master);
        until(&format!("a way through the {what}"), SHORTLY, async || {
            ask(scene, master, worker, "check port", &[&to, "50000"]).await.map(drop)
        })
        .await?;
    }
    let interfaces: Value = look(scene, master, worker, "interfaces").await?;
    let named = |name: &str| interfaces.as_array().and_then(|all| all.iter().find(|it| it["name"] == name).cloned());
    let tunnel = named("wg0").context("there is no tunnel")?;
    ensure!(tunnel["tunnel"]["peers"][0]["lastHandshakeSeconds"].is_u64(), "the tunnel is {tunnel}");
    ensure!(!interfaces.to_string().contains(KEYS[1].0), "a secret key is shown");
    let bond = named("bond0").context("there is no bond")?;
    let has_address = bond["addresses"].to_string().contains("10.0.2.");
    ensure!(bond["kind"] == "bond" && bond["hasCarrier"] == true && has_address, "the bond is {bond}");
    scene.say("a VLAN and a WireGuard tunnel carry connections between the machines; a bond has its lease");
    Ok(())
}

fn further_links(machine: &Machine, key: &str, other: &Machine, peer: &str) -> String {
    format!(
        "\n[[network.interfaces]]\nname = \"storage\"\naddresses = [\"{}/24\"]\nrouter-advertisements = false\n\
         vlan = {{ link = \"{}\", id = 100 }}\n\
         \n[[network.interfaces]]\nname = \"wg0\"\naddresses = [\"{}/24\"]\n\
         wireguard = {{ private-key = \"{key}\", listen-port = 51820, peers = [{{ public-key = \"{peer}\", \
         endpoint = \"{}:51820\", allowed = [\"{}/32\"], keepalive = \"5s\" }}] }}\n",
        address(VLAN, machine),
        machine.mac(),
        address(TUNNEL, machine),
        other.address,
        address(TUNNEL, other),
    )
}

fn address(network: u8, machine: &Machine) -> String {
    format!("10.{network}.0.{}", machine.address.octets()[3])
}

/// The card gives its lease to a bond of which it is the member.
fn bonded(manifest: &str, card: &str) -> Result<String> {
    let mut document: DocumentMut = manifest.parse().context("read the manifest")?;
    let cards = document["network"]["interfaces"].as_array_of_tables_mut().context("there are no interfaces")?;
    let table = cards.iter_mut().find(|table| table.get("mac").and_then(|mac| mac.as_str()) == Some(card));
    table.context("there is no such card")?.remove("dhcp");
    let bond = format!(
        "\n[[network.interfaces]]\nname = \"bond0\"\ndhcp = \"ipv4\"\nrequired = false\nbond.members = [\"{card}\"]\n"
    );
    Ok(document.to_string() + &bond)
}

/// Blocks the API server for whoever looks from outside, and for nobody else.
async fn firewall(scene: &Scene, master: &Machine) -> Result<()> {
    let before = manifest(scene, master)?;
    let blocks =
        rules(&format!("action = \"block\", protocol = \"tcp\", ports = [\"6443\"], from = [\"{}\"]", caller(scene)));
    apply(scene, master, master, &(before.clone() + &blocks)).await.context("apply the firewall")?;
    // A connection that was there before goes on: each look takes a new one.
    let look_at_api = async || Api::new(&scene.cluster.folder.kubeconfig())?.check_ready().await;
    ensure!(look_at_api().await.is_err(), "the API server answers through the firewall");
    let rows = look(scene, master, master, "firewall").await?;
    let blocked = rows[0]["packets"].as_u64().unwrap_or_default();
    ensure!(rows[0]["action"] == "block" && blocked > 0, "the firewall has {rows}");
    scene.say(&format!("the firewall keeps callers from the API server: {blocked} packets were blocked"));
    apply(scene, master, master, &before).await.context("take the firewall back")?;
    until("the API server without a firewall", SHORTLY, look_at_api).await?;
    // Had the firewall kept the worker out, its node would not be Ready.
    scene.serve().await?;
    scene.say("without it they reach it, and the nodes did all the time");
    Ok(())
}

/// A firewall that blocks, with a rule before what machines need.
fn rules(rule: &str) -> String {
    format!("\n[network.firewall]\ningress = \"block\"\nrules = [{{ {rule} }}]\n")
}

/// Where callers from the host seem to be, to a machine.
fn caller(scene: &Scene) -> String {
    if scene.is_netns() { format!("{}/32", gateway()) } else { "10.0.2.0/24".to_owned() }
}

/// Applies what cuts the machine off: it comes back by itself, as it was, and tells.
async fn cut_off(
    scene: &Scene,
    master: &Machine,
    machine: &Machine,
    about: &str,
    change: impl FnOnce(String) -> String,
) -> Result<()> {
    let before = manifest(scene, machine)?;
    let seen = events(scene, master, machine).await?.matches(GOES_BACK).count();
    let error = apply(scene, master, machine, &change(before)).await.err().map(|error| format!("{error:#}"));
    let error = error.with_context(|| format!("{about} does not cut {} off", machine.name))?;
    ensure!(error.contains("goes back to the manifest before"), "{about} is answered with {error}");
    until(&format!("{} as it was", machine.name), GIVEN_UP, async || {
        let told = events(scene, master, machine).await?;
        ensure!(told.matches(GOES_BACK).count() > seen, "its events do not tell that it went back");
        let status = ask(scene, master, machine, "status", &["--output", "json"]).await?;
        let status: Value = serde_json::from_str(&status).context("read the status")?;
        ensure!(status["manifestTriedUntil"].is_null(), "it still tries: {status}");
        Ok(())
    })
    .await?;
    scene.say(&format!("{about} cuts {} off; it came back by itself, and its events tell why", machine.name));
    Ok(())
}

async fn events(scene: &Scene, master: &Machine, machine: &Machine) -> Result<String> {
    ask(scene, master, machine, "events", &[]).await
}

/// The manifest that a machine started with.
pub(super) fn manifest(scene: &Scene, machine: &Machine) -> Result<String> {
    let path = scene.cluster.folder.manifest(&machine.name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Applies a manifest, as an operator does who says nothing else.
pub(super) async fn apply(scene: &Scene, master: &Machine, machine: &Machine, manifest: &str) -> Result<String> {
    let path = scene.cluster.folder.path().join("applied.toml");
    std::fs::write(&path, manifest).with_context(|| format!("write {}", path.display()))?;
    ask(scene, master, machine, "apply", &[&path.display().to_string()]).await
}

pub(super) async fn look(scene: &Scene, master: &Machine, machine: &Machine, view: &str) -> Result<Value> {
    let text = ask(scene, master, machine, "get", &[view, "--output", "json"]).await?;
    serde_json::from_str(&text).with_context(|| format!("read {view}"))
}

/// Asks a machine, if need be through the master.
pub(super) async fn ask(
    scene: &Scene,
    master: &Machine,
    machine: &Machine,
    verb: &str,
    arguments: &[&str],
) -> Result<String> {
    let mut command: Command = keelson(scene, master, verb)?;
    command.args(arguments);
    if machine.name != master.name {
        command.args(["--node", &machine.name]);
    }
    tokio::time::timeout(SOON, process::run(command)).await.context("no answer in time")?
}
