//! The operator's tool at a machine that has no manifest yet, and knows nobody.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::scene::Scene;
use crate::cluster::MACHINE_PORT;
use crate::network;
use crate::plan::Machine;

/// What the tool said.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) is_success: bool,
    pub(super) output: String,
    pub(super) errors: String,
}

/// Runs the tool, with something to read. The machine may have no address yet but the one that the kernel gives to every
/// card.
pub(super) async fn keelson(scene: &Scene, machine: &Machine, words: &[&str], input: &str) -> Result<Told> {
    let mut command = Command::new(scene.cluster.keelson());
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    if !scene.is_netns() {
        let to = SocketAddr::from(([127, 0, 0, 1], scene.cluster.state.ports.machine));
        return tokio::task::spawn_blocking(move || run(command, to, &input)).await.context("call")?;
    }
    let [a, b, c, d] = machine.address.octets();
    let own = [0x5054, u16::from_be_bytes([a, 0xff]), u16::from_be_bytes([0xfe, b]), u16::from_be_bytes([c, d])];
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, own[0], own[1], own[2], own[3]);
    scene
        .outside()?
        .run(move || {
            let bridge = nix::net::if_::if_nametoindex(network::BRIDGE).context("find the bridge")?;
            run(command, SocketAddrV6::new(address, MACHINE_PORT, 0, bridge).into(), &input)
        })
        .await
}

fn run(mut command: Command, to: SocketAddr, input: &str) -> Result<Told> {
    let mut child = command.args(["--endpoint", &to.to_string()]).spawn().context("start the operator's tool")?;
    let mut typed = child.stdin.take().context("the tool reads nothing")?;
    typed.write_all(input.as_bytes()).context("write to the tool")?;
    drop(typed);
    let ended = child.wait_with_output().context("wait for the tool")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Told { is_success: ended.status.success(), output: text(&ended.stdout), errors: text(&ended.stderr) })
}
