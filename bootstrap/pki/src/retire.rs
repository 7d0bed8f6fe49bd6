//! A machine that is no master any more: its keys of the cluster go, those of its node stay.

use std::fs;
use std::path::Path;

use crate::Error;
use crate::apply::observe;
use crate::plan::Observed;

/// What a machine without a control plane has.
const OF_A_NODE: [&str; 6] =
    ["ca.crt", "kubelet.crt", "kubelet.key", "kubelet.conf", "kubelet-server.crt", "kubelet-server.key"];

impl Observed {
    /// The files that only masters have.
    pub fn of_masters(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| !OF_A_NODE.contains(name) && !name.ends_with("-pending.key"))
    }
}

/// Removes the keys and certificates of a master. Answers how many there were.
///
/// # Errors
/// When a file cannot be removed; those before it are gone.
pub fn retire(dir: &Path) -> Result<usize, Error> {
    let observed = observe(dir)?;
    let names: Vec<&str> = observed.of_masters().collect();
    for name in &names {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
    }
    if !names.is_empty() {
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| Error::Write { path: dir.to_owned(), source })?;
    }
    Ok(names.len())
}
