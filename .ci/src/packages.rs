//! Debian packages that the build and the tests need.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What is needed, and by whom.
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "the linker's driver"),
    ("libc6-dev", "static linking"),
    ("protobuf-compiler", "the interfaces of the container runtime, of etcd and of machines"),
    ("libprotobuf-dev", "what those interfaces import"),
    ("nftables", "tests of rule sets in network namespaces"),
    ("iproute2", "tests in network namespaces"),
    ("e2fsprogs", "tests of file systems"),
    ("mount", "tests of PID 1 in namespaces"),
    ("swtpm", "tests with a TPM"),
    ("clevis-luks", "tests of encrypted disks"),
    ("cryptsetup-bin", "tests of encrypted disks"),
    ("tang", "tests of encrypted disks"),
];

/// Installs what is missing.
pub(crate) fn install(_root: &Path) -> Result<()> {
    let missing: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    apt(&["update", "-qq"]).and_then(|()| {
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(&missing);
        apt(&arguments)
    })
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("install ok installed"))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    let status = command.status().context("starting apt-get: this needs Debian")?;
    if status.success() {
        return Ok(());
    }
    let names: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    bail!("apt-get failed; as root, run: apt-get install {}", names.join(" "))
}
