//! A machine whose manifest is wrong: it tells, and takes a corrected one.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use super::scene::{SHORTLY, Scene};
use crate::network;
use crate::plan::Machine;
use crate::visitor;
use crate::wait::until;

const PORT: u16 = 50_000;
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

    let status = until("the machine API", SHORTLY, async || call(scene, &master, "GET", "/status", "").await).await?;
    ensure!(status.0 == 200 && status.1.contains(WRONG.1), "the machine API tells {status:?}");
    let refused = call(scene, &master, "PUT", "/manifest", &bad).await?;
    ensure!(refused.0 == 422 && refused.1.contains(WRONG.0), "the bad manifest is answered with {refused:?}");
    let taken = call(scene, &master, "PUT", "/manifest", &good).await?;
    ensure!(taken.0 == 202, "the corrected manifest is answered with {taken:?}");
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

/// Calls the machine API of a machine that may have no address yet but the one that the kernel gives to every card.
async fn call(scene: &Scene, machine: &Machine, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let (head, body) = (format!("{method} {path} HTTP/1.1\r\n"), body.to_owned());
    if !scene.is_netns() {
        let to = SocketAddr::from(([127, 0, 0, 1], scene.cluster.state.ports.machine));
        return tokio::task::spawn_blocking(move || visitor::request(to, &head, &body)).await.context("call")?;
    }
    let [a, b, c, d] = machine.address.octets();
    let own = [0x5054, u16::from_be_bytes([a, 0xff]), u16::from_be_bytes([0xfe, b]), u16::from_be_bytes([c, d])];
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, own[0], own[1], own[2], own[3]);
    scene
        .outside()?
        .run(move || {
            let bridge = nix::net::if_::if_nametoindex(network::BRIDGE).context("find the bridge")?;
            visitor::request(SocketAddrV6::new(address, PORT, 0, bridge).into(), &head, &body)
        })
        .await
}
