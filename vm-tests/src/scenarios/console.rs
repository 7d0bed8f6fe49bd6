//! A machine whose manifest has a wrong address, mended at its console.

use std::fs;

use anyhow::{Context, Result, ensure};
use toml_edit::{Array, DocumentMut, value};

use super::mishaps::{has, is_over};
use super::scene::{SHORTLY, SOON, Scene};
use super::upgrade::status;
use super::{Outcome, early};
use crate::keyboard::Keyboard;
use crate::manifests::uplink_mac;
use crate::plan::Machine;
use crate::wait::until;

/// Nobody is reached by it.
const WRONG: &str = "198.51.100.7/24";
/// Where the emulator's network tells names.
const RESOLVER: &str = "10.0.2.3";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let path = scene.cluster.folder.manifest(&master.name);
    let good = fs::read_to_string(&path).context("read the manifest")?;
    fs::write(&path, with_wrong_address(&good, &uplink_mac(&master))?)?;
    scene.cluster.start(&scene.progress)?;
    scene.cluster.write_kubeconfig()?.context("there is no administrator's kubeconfig")?;
    tells(scene, &master, 0, "all services are ready").await?;
    ensure!(status(scene, &master).is_err(), "it answers by a wrong address");

    let mut person = Person::come(scene, &master)?;
    person.types("\n", &format!("{}: running", master.name)).await?;
    let line = person.types("1\n", &uplink_mac(&master)).await?;
    let card = line.split_once("] ").and_then(|(_, rest)| rest.split_once(':')).context("no card is named")?.0;
    person.types("3\n", "this machine has a manifest").await?;
    person.types(&format!("2\n{card}\n{WRONG}x\n\n\n"), "nothing was changed").await?;
    person.types(&format!("2\n{card}\ndhcp\n\n"), "the network was set").await?;
    until("NetworkMended", SOON, async || has(&status(scene, &master)?, "NetworkMended", "keelson apply")).await?;
    until("ready", SOON, async || {
        let status = status(scene, &master)?;
        ensure!(status["ready"] == true, "with a concern it is not: {}", status["unmet"]);
        Ok(())
    })
    .await?;
    scene.serve().await?;
    scene.say("an address that was set at the console leads to the machine, which tells so and serves");
    person.tests(&format!("route {RESOLVER}\n"), "the sender's address is 10.0.2.").await?;
    person.tests(&format!("port {} 6443\n", master.address), "takes connections").await?;
    person.tests(&format!("port {} 9\n", master.address), "refused").await?;
    scene.say("routes and ports are tested from there");
    person.types("6\n", "there is no stick to write to").await?;
    drop(person);

    scene.cluster.stop_machine(&master.name, false).await?;
    // What was held back at the form comes on the way out.
    let seen = scene.console(&master.name)?.len();
    scene.cluster.start_machine(&master.name)?;
    tells(scene, &master, seen, "all services are ready").await?;
    ensure!(status(scene, &master).is_err(), "what was set at the console counts after a new start");
    let mut person = Person::come(scene, &master)?;
    person.types("\n", WRONG).await?;
    person.types(&format!("2\n{card}\ndhcp\n\n"), "the network was set").await?;
    until("an answer", SOON, async || status(scene, &master).map(drop)).await?;
    drop(person);
    scene.say("a new start takes the manifest's address, and it is set again");

    fs::write(&path, &good)?;
    let manifest = path.to_str().context("the folder's name is no text")?;
    let kubeconfig = scene.cluster.folder.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("the folder's name is no text")?;
    let applied = early::keelson(scene, &master, &["apply", manifest, "--kubeconfig", kubeconfig], "").await?;
    ensure!(applied.is_success, "a corrected manifest is answered with {applied:?}");
    is_over(scene, &master, "NetworkMended").await?;
    scene.serve().await?;
    scene.say("a corrected manifest takes the place of what was set");
    Ok(Outcome::Passed)
}

/// The manifest with a wrong address of the card with this Ethernet address, by which the host reaches the machine.
fn with_wrong_address(manifest: &str, mac: &str) -> Result<String> {
    let mut document: DocumentMut = manifest.parse().context("read the manifest")?;
    let cards = document["network"]["interfaces"].as_array_of_tables_mut().context("there are no interfaces")?;
    let card = cards.iter_mut().find(|table| table.get("mac").and_then(|it| it.as_str()) == Some(mac));
    let card = card.context("there is no such card")?;
    card.remove("dhcp");
    card["addresses"] = value(Array::from_iter([WRONG]));
    Ok(document.to_string())
}

/// Waits until the console says something after its first `seen` bytes; gives the line.
async fn tells(scene: &Scene, machine: &Machine, seen: usize, part: &str) -> Result<String> {
    // With a card that leads nowhere the machine waits for a time server before it goes on.
    until(&format!("{part:?} at the console"), SOON + SHORTLY, async || {
        let text = scene.console(&machine.name)?;
        let new = text.get(seen..).unwrap_or(&text);
        let line = new.lines().find(|line| line.contains(part)).map(str::to_owned);
        line.with_context(|| format!("it ends with {:?}", new.lines().last().unwrap_or_default()))
    })
    .await
}

/// Whoever stands there.
pub(super) struct Person<'a> {
    scene: &'a Scene,
    machine: &'a Machine,
    keyboard: Keyboard,
}

impl<'a> Person<'a> {
    pub(super) fn come(scene: &'a Scene, machine: &'a Machine) -> Result<Self> {
        let keyboard = Keyboard::open(&scene.cluster.folder.machine(&machine.name))?;
        Ok(Self { scene, machine, keyboard })
    }

    /// Types a test, and reads on until it has said this and is over: only then it is asked what comes next.
    async fn tests(&mut self, text: &str, part: &str) -> Result<()> {
        let seen = self.scene.console(&self.machine.name)?.len();
        self.types(text, part).await?;
        tells(self.scene, self.machine, seen, "tests the network").await.map(drop)
    }

    /// Types, and reads on until a line has this part; gives it.
    pub(super) async fn types(&mut self, text: &str, part: &str) -> Result<String> {
        let seen = self.scene.console(&self.machine.name)?.len();
        self.keyboard.types(text)?;
        tells(self.scene, self.machine, seen, part).await
    }
}
