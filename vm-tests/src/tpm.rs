//! Emulated TPMs of virtual machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use images::tools;

use crate::cluster::Cluster;
use crate::wait;

const TOOLS: &[tools::Tool] = &[("swtpm", "swtpm")];

/// Where a machine's TPM keeps what it knows.
fn folder(machine: &Path) -> PathBuf {
    machine.join("tpm")
}

fn socket(machine: &Path) -> PathBuf {
    folder(machine).join("socket")
}

/// Gives a machine a TPM, for its next start: the one that it had, or one that knows nothing.
///
/// # Errors
/// The emulator does not start.
pub(crate) fn attach(cluster: &mut Cluster, machine: &str, is_new: bool) -> Result<()> {
    tools::require(TOOLS)?;
    let machine_folder = cluster.folder.machine(machine);
    let own = folder(&machine_folder);
    if is_new && own.exists() {
        fs::remove_dir_all(&own).context("take the machine's TPM out")?;
    }
    fs::create_dir_all(&own).context("make room for the machine's TPM")?;
    fs::remove_file(socket(&machine_folder)).ok();
    let mut command = tools::command("swtpm");
    command.args(["socket", "--tpm2", "--terminate", "--tpmstate", &format!("dir={}", own.display())]);
    command.args(["--ctrl", &format!("type=unixio,path={}", socket(&machine_folder).display())]);
    cluster.start_helper("tpm", command)?;
    // A machine that starts before the socket is there has no TPM, and does not start.
    const TRIES: u32 = 500;
    for _ in 0..TRIES {
        if socket(&machine_folder).exists() {
            return Ok(());
        }
        wait::pause_blocking();
    }
    bail!("the TPM of {machine} did not start")
}

/// How the emulator reaches it, if the machine has one.
pub(crate) fn arguments(qemu: &mut Command, machine: &Path) {
    if folder(machine).exists() {
        qemu.args(["-chardev", &format!("socket,id=tpm,path={}", socket(machine).display())]);
        qemu.args(["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"]);
    }
}
