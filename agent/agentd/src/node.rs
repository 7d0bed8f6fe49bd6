//! The manifest in force and the machine's own addresses: what most roles begin with.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use machine_api::NetworkStatus;
use manifest::Manifest;

use crate::paths;

/// Reads the manifest in force. PID 1 checked it before it put it there.
pub(crate) fn manifest_in_force() -> Result<Manifest> {
    Ok(secrets::in_force(&sys::Linux, Path::new(paths::RUN))?)
}

/// The network that counts before that of the manifest in force. PID 1 checked it; what is no good is as if it were not there.
pub(crate) fn mended_network() -> Option<Manifest> {
    secrets::read(&sys::Linux, Path::new(paths::RUN), Path::new(paths::MENDED)).ok()
}

/// The machine's addresses, the main one first: those of the manifest, else those of the network.
pub(crate) fn addresses(manifest: &Manifest) -> Result<Vec<IpAddr>> {
    if !manifest.kubelet.node_addresses.is_empty() {
        return Ok(manifest.kubelet.node_addresses.clone());
    }
    let network = network()?;
    let found: Vec<IpAddr> = network.primary.into_iter().chain(network.secondary).collect();
    if found.is_empty() {
        bail!("the machine has no address yet; `[[network.interfaces]]` in the manifest gives it one");
    }
    Ok(found)
}

/// What the machine role tells of the network.
pub(crate) fn network() -> Result<NetworkStatus> {
    let text = std::fs::read_to_string(paths::NETWORK).with_context(|| format!("reading {}", paths::NETWORK))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", paths::NETWORK))
}
