//! Nothing is left of a cluster that has ended, however it ended.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Outcome;
use super::scene::{SOON, Scene};
use crate::leftovers;
use crate::state::{Folder, Provider};

/// What the command says at moments it is interrupted at.
const MOMENTS: &[&str] = &["started ", "the API server is ready", "all nodes are Ready"];

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let folder = scene.cluster.folder.clone();
    let name = scene.cluster.state.name.clone();
    scene.up().await?;
    // The check must be able to see what it looks for.
    let kinds: &[&str] = match scene.cluster.state.provider {
        Provider::Netns => &["the folder", "the network namespace", "the control group", "the process"],
        Provider::Qemu => &["the folder", "the process"],
    };
    let there = leftovers::find(&name, folder.path())?;
    for kind in kinds {
        ensure!(there.iter().any(|line| line.starts_with(kind)), "{kind} of a running cluster is not seen");
    }
    crate::cluster::down(&folder).await?;
    expect_nothing(&name, &folder)?;
    scene.say("down leaves nothing");
    for moment in MOMENTS {
        interrupt(scene, moment).await?;
        scene.say(&format!("Ctrl-C after {moment:?} leaves nothing"));
    }
    Ok(Outcome::Passed)
}

fn expect_nothing(name: &str, folder: &Folder) -> Result<()> {
    let left = leftovers::find(name, folder.path())?;
    if left.is_empty() { Ok(()) } else { bail!("these are left:\n{}", left.join("\n")) }
}

/// Starts the command in the foreground and interrupts it as a terminal does.
async fn interrupt(scene: &Scene, moment: &str) -> Result<()> {
    const END: Duration = Duration::from_secs(120);
    let request = &scene.request;
    let name = format!("{}-interrupted", request.name);
    let provider = match request.provider {
        Provider::Netns => "netns",
        Provider::Qemu => "qemu",
    };
    let mut command = tokio::process::Command::new(std::env::current_exe().context("find this program")?);
    command.args(["--name", &name, "up", "--provider", provider, "--mirror", &request.mirror]);
    command.args(["--masters", &request.masters.to_string(), "--workers", &request.workers.to_string()]);
    command.args(request.is_quick_build.then_some("--quick-build"));
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("the command's words")?).lines();
    let heard = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(moment) {
                return Ok(());
            }
        }
        bail!("the command ended without saying {moment:?}")
    };
    tokio::time::timeout(SOON, heard).await.with_context(|| format!("{moment:?} did not come"))??;
    let number = i32::try_from(child.id().context("the command has ended")?)?;
    kill(Pid::from_raw(number), Signal::SIGINT).context("interrupt the command")?;
    let rest = async { while let Ok(Some(_)) = lines.next_line().await {} };
    let (status, ()) = tokio::time::timeout(END, async { tokio::join!(child.wait(), rest) })
        .await
        .context("the command did not end when interrupted")?;
    ensure!(!status?.success(), "the interrupted command says that all went well");
    expect_nothing(&name, &Folder::of(&images::workspace(), &name))
}
