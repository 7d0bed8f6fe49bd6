//! What starts a flashed machine: UEFI firmware, the same with an owner's keys, or a BIOS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use images::secure_boot::SecureBoot;
use images::tools;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const TOOLS: &[tools::Tool] = &[(CODE, "ovmf")];
const OWNER_TOOLS: &[tools::Tool] = &[("openssl", "openssl"), ("virt-fw-vars", "python3-virt-firmware")];
/// Whose keys these are, for the firmware: any number that is the owner's.
const OWNER: &str = "6b65656c-736f-4e00-8000-000000000001";

/// What a machine's firmware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI that starts anything.
    Uefi,
    /// UEFI that starts what the owner has signed, and nothing else.
    SecureBoot,
    /// None that could start an image of ours.
    Bios,
}

impl Firmware {
    /// Makes sure that there is such firmware here. Answers what signs for it.
    pub(crate) fn prepare(self, folder: &Path) -> Result<Option<SecureBoot>> {
        tools::require(TOOLS)?;
        if self != Self::SecureBoot {
            return Ok(None);
        }
        tools::require(OWNER_TOOLS)?;
        let (key, certificate) = pair(folder);
        let mut openssl = tools::command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7300", "-subj", "/CN=keelson test"]);
        tools::run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate)).context("make the owner's key")?;
        SecureBoot::new(&key, &certificate, folder).map(Some)
    }

    /// Gives a machine its variables; with Secure Boot, the owner's certificate is in them.
    pub(crate) fn give_variables(self, cluster: &Path, machine: &Path) -> Result<()> {
        let target = variables_of(machine);
        if self != Self::SecureBoot {
            return fs::copy(VARIABLES, &target).context("copy the firmware's variables").map(drop);
        }
        let (_, certificate) = pair(cluster);
        let mut command = tools::command("virt-fw-vars");
        command.args(["--input", VARIABLES, "--output"]).arg(&target).arg("--secure-boot");
        for key in ["--set-pk", "--add-kek", "--add-db"] {
            command.args([key, OWNER]).arg(&certificate);
        }
        tools::run(&mut command).context("enrol the owner's certificate").map(drop)
    }

    /// How the emulator is given it.
    pub(crate) fn arguments(self, qemu: &mut Command, machine: &Path) {
        let flash = |path: &Path, options: &str| format!("if=pflash,format=raw,file={}{options}", path.display());
        let code = match self {
            // What the emulator takes by itself; it is to speak where it can be read.
            Self::Bios => {
                qemu.args(["-machine", "graphics=off"]);
                return;
            }
            Self::Uefi => CODE,
            Self::SecureBoot => {
                // Only the firmware itself may change its variables.
                qemu.args(["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
                SECURE_CODE
            }
        };
        qemu.args(["-drive", &flash(Path::new(code), ",readonly=on")]);
        qemu.args(["-drive", &flash(&variables_of(machine), "")]);
    }
}

fn pair(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("owner.key"), folder.join("owner.crt"))
}

fn variables_of(machine: &Path) -> PathBuf {
    machine.join("variables.fd")
}
