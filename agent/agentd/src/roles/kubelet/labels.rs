//! `--node-labels`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Labels of Kubernetes' own domains that a node may give itself, as upstream.
const ALLOWED: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Domains below which it may give itself any.
const ALLOWED_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const OWN_DOMAINS: &[&str] = &["kubernetes.io", "k8s.io"];

/// Reads `name=value` words.
pub(super) fn parse(words: &[&str]) -> Result<BTreeMap<String, String>> {
    words
        .iter()
        .map(|word| {
            let (name, value) =
                word.split_once('=').with_context(|| format!("--node-labels: {word:?} is not like name=value"))?;
            ensure!(
                is_allowed(name),
                "--node-labels: {name} is a label of Kubernetes' own that a node cannot give to itself"
            );
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn is_allowed(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return true };
    let is_below = |parent: &&str| domain == *parent || domain.ends_with(&format!(".{parent}"));
    !OWN_DOMAINS.iter().any(is_below) || ALLOWED.contains(&name) || ALLOWED_DOMAINS.iter().any(is_below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_cannot_make_itself_a_master() {
        assert_eq!(parse(&["disk=ssd", "example.com/a="]).unwrap().len(), 2);
        assert!(parse(&["node.kubernetes.io/x=y", "topology.kubernetes.io/zone=a"]).is_ok());
        assert!(parse(&["node-role.kubernetes.io/control-plane="]).is_err());
        assert!(parse(&["k8s.io/x=y"]).is_err());
        assert!(parse(&["novalue"]).is_err());
    }
}
