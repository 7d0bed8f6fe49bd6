//! What a cluster has left on the host: nothing, once it is down.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::container;
use crate::network;

/// Everything that belongs to the cluster `name` with its files in `folder`, one line each.
///
/// # Errors
/// The host cannot be looked at.
pub fn find(name: &str, folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if folder.exists() {
        found.push(format!("the folder {}", folder.display()));
    }
    for namespace in fs::read_dir(network::path("")).into_iter().flatten().flatten() {
        let namespace = namespace.file_name().to_string_lossy().into_owned();
        if is_of(name, &namespace) {
            found.push(format!("the network namespace {namespace}"));
        }
    }
    for hierarchy in container::hierarchies()? {
        let group = hierarchy.join(name);
        if group.exists() {
            found.push(format!("the control group {}", group.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let here = folder.display().to_string();
    found.extend(mounts.lines().filter(|line| mentions(line, &here)).map(|line| format!("the mount {line}")));
    found.extend(processes(name, &here)?);
    Ok(found)
}

fn is_of(cluster: &str, namespace: &str) -> bool {
    let machine = namespace.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-'));
    let roles = ["master-", "worker-", "single-"];
    namespace == cluster || machine.is_some_and(|machine| roles.iter().any(|role| machine.starts_with(role)))
}

/// Whether a path is named, and not merely another one that begins alike.
fn mentions(text: &str, path: &str) -> bool {
    text.match_indices(path)
        .any(|(at, _)| !text[at + path.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '-'))
}

fn processes(name: &str, folder: &str) -> Result<Vec<String>> {
    let group = format!(":/{name}/");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read the processes")?.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if !number.bytes().all(|byte| byte.is_ascii_digit()) || number == std::process::id().to_string() {
            continue;
        }
        // It may end while it is looked at.
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        if groups.contains(&group) || mentions(&command, folder) {
            found.push(format!("the process {number}: {}", command.trim()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_that_begin_alike_are_told_apart() {
        assert!(is_of("keelson", "keelson") && is_of("keelson", "keelson-worker-2"));
        assert!(!is_of("keelson", "keelson-test") && !is_of("keelson", "keelson-test-worker-1"));
        assert!(mentions("overlay /a/cluster/root x", "/a/cluster") && !mentions("/a/cluster-test", "/a/cluster"));
    }

    #[test]
    fn what_is_there_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let found = find("no-such-cluster", folder.path()).unwrap();
        assert_eq!(found, [format!("the folder {}", folder.path().display())]);
    }
}
