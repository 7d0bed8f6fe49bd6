//! The network of machines made of namespaces: one namespace holds the bridge, each machine has its own.

use std::path::PathBuf;

use anyhow::Result;
use images::tools::{command, run};

use crate::plan::{Machine, gateway};

/// The bridge in its namespace.
pub(crate) const BRIDGE: &str = "br0";

/// The namespace of a machine in the cluster `cluster`.
#[must_use]
pub fn namespace(cluster: &str, machine: &Machine) -> String {
    format!("{cluster}-{}", machine.name)
}

/// Where a namespace of this name is.
#[must_use]
pub fn path(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

/// Makes the namespace `cluster` with the bridge in it. Nothing leads out.
///
/// # Errors
/// The kernel refuses.
pub fn make_bridge(cluster: &str) -> Result<()> {
    ip(&["netns", "add", cluster])?;
    let address = format!("{}/24", gateway());
    ip(&["-n", cluster, "link", "set", "lo", "up"])?;
    ip(&["-n", cluster, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["-n", cluster, "addr", "add", &address, "dev", BRIDGE])?;
    ip(&["-n", cluster, "link", "set", BRIDGE, "up"])?;
    // An answer at once for what is not here.
    ip(&["-n", cluster, "route", "add", "unreachable", "default"])?;
    set(cluster, "/proc/sys/net/ipv4/ip_forward", "1")
}

/// Makes a machine's namespace with its card, which the machine itself gives its address.
///
/// # Errors
/// The kernel refuses.
pub fn make_card(cluster: &str, machine: &Machine) -> Result<()> {
    let own = namespace(cluster, machine);
    let port = format!("to-{}", machine.name);
    let mac = machine.mac();
    ip(&["netns", "add", &own])?;
    let card = ["type", "veth", "peer", "name", "eth0", "address", &mac, "netns", &own];
    ip(&[&["-n", cluster, "link", "add", &port][..], &card].concat())?;
    ip(&["-n", cluster, "link", "set", &port, "master", BRIDGE, "up"])
}

/// Makes pods reachable from the bridge's namespace.
///
/// # Errors
/// The kernel refuses.
pub fn route_pods(cluster: &str, pods: &str, machine: &Machine) -> Result<()> {
    ip(&["-n", cluster, "route", "replace", pods, "via", &machine.address.to_string()])
}

/// Removes a namespace and all that is in it.
///
/// # Errors
/// The kernel refuses.
pub fn remove(namespace: &str) -> Result<()> {
    if path(namespace).exists() { ip(&["netns", "delete", namespace]) } else { Ok(()) }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(command("ip").args(arguments)).map(drop)
}

fn set(namespace: &str, file: &str, value: &str) -> Result<()> {
    let script = format!("echo {value} > {file}");
    run(command("ip").args(["netns", "exec", namespace, "sh", "-c", &script])).map(drop)
}
