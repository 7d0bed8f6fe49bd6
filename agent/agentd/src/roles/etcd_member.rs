//! `keelson etcd-member`: becomes etcd, after it was decided what this start of it is.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd::{Access, Config};
use manifest::Manifest;

use crate::{node, paths, process};

/// The other masters are asked at once, each with a deadline of its own.
const WITHIN: Duration = Duration::from_secs(120);
/// etcd writes its data for itself alone; its configuration names no secret.
const MODE: u32 = 0o644;

pub(crate) fn run() -> Result<()> {
    process::start_logs();
    let manifest = node::manifest_in_force()?;
    let address = *node::addresses(&manifest)?.first().context("the machine has no address")?;
    let mut config = config(&manifest, address);
    let access = Access::load(Path::new(paths::PKI)).context("reading the certificates for etcd")?;
    let done = process::ask(WITHIN, async {
        etcd::prepare(&mut config, Path::new(paths::STATE), &access).await.context("preparing the start of etcd")
    })?;
    if let Some(done) = done {
        tracing::warn!("this master's member of etcd {done}");
    }
    let file = Path::new(paths::ETCD_CONFIG);
    pki::write_file(file, config.render().as_bytes(), MODE).context("writing etcd's configuration")?;
    let error = Command::new(paths::ETCD).args(Config::argv(file)).exec();
    bail!("executing {}: {error}", paths::ETCD)
}

/// The configuration of this machine's member, as far as the manifest tells it.
pub(super) fn config(manifest: &Manifest, address: IpAddr) -> Config {
    Config::new(manifest, address, Path::new(paths::STATE))
}

/// What the machine role needs to know of etcd. It only reaches the member, at any address of this machine.
pub(super) fn master(manifest: &Manifest) -> Option<machine::Master> {
    let snapshots = manifest.etcd.snapshots.as_ref().map(|snapshots| machine::Snapshots {
        interval: snapshots.interval.duration(),
        keep: usize::try_from(snapshots.keep).unwrap_or(usize::MAX),
        folder: snapshots.folder.as_str().into(),
    });
    let config = config(manifest, Ipv4Addr::LOCALHOST.into());
    let master = machine::Master { config, state: paths::STATE.into(), snapshots };
    manifest.machine.role.has_control_plane().then_some(master)
}
