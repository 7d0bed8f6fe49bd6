//! The layers: which crates a crate may use. Edges go down; within a layer only those that are named here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Layers from the bottom; a crate may use crates of lower layers, and what [`SIDEWAYS`] names.
const LAYERS: &[(&str, &[&str])] = &[
    ("L0 words", &["stdx", "api", "cel", "machine-api", "manifest", "disk"]),
    ("L1 kernel and wire", &["sys", "tpm", "tang", "cgroups", "netlink", "nft", "cri", "containerd"]),
    (
        "L2 mechanisms",
        &[
            "lifecycle",
            "store",
            "encryption",
            "traces",
            "client",
            "egress",
            "remote",
            "audit",
            "reconcile",
            "pki",
            "etcd",
            "luks",
            "secrets",
            "install",
        ],
    ),
    (
        "L3 components",
        &[
            "init",
            "supervisor",
            "machine",
            "apiserver",
            "scheduler",
            "controllers",
            "kubelet",
            "proxy",
            "podnet",
            "virtual-address",
            "dns",
            "join",
        ],
    ),
    ("L4 binary", &["agentd"]),
];

/// Edges inside a layer.
const SIDEWAYS: &[(&str, &[&str])] = &[
    // Expressions calculate with quantities.
    ("cel", &["api"]),
    // Times are written in one way.
    ("machine-api", &["api"]),
    ("cgroups", &["sys"]),
    ("netlink", &["sys"]),
    ("nft", &["sys"]),
    ("store", &["lifecycle"]),
    ("reconcile", &["client", "lifecycle"]),
    // One list of whom the host trusts, and one way to trust anybody.
    ("remote", &["client"]),
    // What leads a client by a proxy; and whom the host trusts.
    ("egress", &["client"]),
    // Events go to webhooks.
    ("audit", &["client", "lifecycle"]),
    // A store whose values are encrypted is a store.
    ("encryption", &["store", "lifecycle"]),
    // Spans are sent until the end, by the ways of clients.
    ("traces", &["client", "lifecycle"]),
    // A partition may be made encrypted.
    ("install", &["luks"]),
    // PID 1 is its phases plus the services' state machine.
    ("init", &["supervisor"]),
];

/// What stands outside the layers: tools and test harnesses, and what they may use.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("ci", &[]),
    ("images", &["stdx", "manifest", "api", "disk", "install", "sys"]),
    ("vm-tests", &["stdx", "api", "client", "disk", "images", "install", "lifecycle"]),
];

/// Checks every normal and build edge between our crates; those of tests may be any.
pub(crate) fn check(root: &Path) -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("reading the workspace")?;
    let layer_of: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, (_, names))| names.iter().map(move |name| (*name, i))).collect();
    let ours: Vec<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if !layer_of.contains_key(name) && OUTSIDE.iter().all(|(outside, _)| *outside != name) {
            wrong.push(format!("{name} is in no layer: add it to .ci/src/layers.rs"));
        }
        for dependency in package.dependencies.iter().filter(|d| ours.contains(&d.name)) {
            let test_only = dependency.kind == cargo_metadata::DependencyKind::Development;
            if !test_only && !is_allowed(name, &dependency.name, &layer_of) {
                wrong.push(format!("{name} may not use {}", dependency.name));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn is_allowed(from: &str, to: &str, layer_of: &BTreeMap<&str, usize>) -> bool {
    let named = |table: &[(&str, &[&str])]| table.iter().any(|(name, allowed)| *name == from && allowed.contains(&to));
    match (layer_of.get(from), layer_of.get(to)) {
        (Some(from_layer), Some(to_layer)) => to_layer < from_layer || named(SIDEWAYS),
        _ => named(OUTSIDE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(from: &str, to: &str) -> bool {
        let layer_of =
            LAYERS.iter().enumerate().flat_map(|(i, (_, names))| names.iter().map(move |n| (*n, i))).collect();
        is_allowed(from, to, &layer_of)
    }

    #[test]
    fn edges_go_down_and_components_never_meet() {
        assert!(allowed("kubelet", "client"));
        assert!(allowed("agentd", "kubelet"));
        assert!(!allowed("client", "kubelet"));
        assert!(!allowed("kubelet", "scheduler"));
        assert!(!allowed("store", "client"));
        assert!(allowed("reconcile", "client"));
    }
}
