//! Snapshots by schedule that are kept in a store, too.
//!
//! What is in the folder and what is in the store say what is to be done: nothing else is remembered, so that a new
//! start forgets nothing. A store that cannot be reached is tried again for ever, and told of meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use machine_api::{Condition, EtcdSnapshot};
use remote::{Store, Stored};
use stdx::{Backoff, chain};

use super::schedule::is_ours;
use super::{Etcd, Snapshots};

const AGAIN: Backoff =
    Backoff { initial: Duration::from_secs(10), factor: 2.0, max: Duration::from_secs(900), jitter: 0.0 };
/// Its text does not keep the machine from being ready: a store that is down must not take an update back.
pub(super) const CONDITION: &str = "conditions/etcd-store.concern";

/// Where snapshots are kept beside the master's own disk.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The store, below the master's name.
    pub store: Store,
    /// Its bucket, of S3.
    pub bucket: Option<String>,
    /// So many are kept there.
    pub keep: usize,
}

/// What is to be done so that the newest snapshots are in the store, and no more than may be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The newest first: it is worth the most.
    put: Vec<String>,
    delete: Vec<String>,
}

fn plan(local: &[(String, u64)], stored: &[Stored], keep: usize) -> Plan {
    let ours = stored.iter().filter(|stored| is_ours(&stored.name));
    // Their names begin with the time.
    let all: BTreeSet<&str> =
        local.iter().map(|(name, _)| name.as_str()).chain(ours.map(|stored| stored.name.as_str())).collect();
    let (wanted, old): (Vec<_>, Vec<_>) = all.into_iter().rev().enumerate().partition(|(place, _)| *place < keep);
    let size_there = |name: &str| stored.iter().find(|stored| stored.name == name).map(|stored| stored.bytes);
    let size_here = |name: &str| local.iter().find(|(known, _)| known == name).map(|(_, bytes)| *bytes);
    let is_missing = |name: &&str| size_here(name).is_some_and(|bytes| size_there(name) != Some(bytes));
    let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Plan {
        put: own(wanted.into_iter().map(|(_, name)| name).filter(is_missing).collect()),
        delete: own(old.into_iter().map(|(_, name)| name).filter(|name| size_there(name).is_some()).collect()),
    }
}

fn names(local: &[EtcdSnapshot]) -> Vec<(String, u64)> {
    let name = |snapshot: &EtcdSnapshot| snapshot.path.rsplit('/').next().unwrap_or_default().to_owned();
    local.iter().map(|snapshot| (name(snapshot), snapshot.bytes)).collect()
}

impl Etcd {
    /// Sends what is missing whenever there is a new one, until dropped.
    pub(super) async fn keep_elsewhere(&self, snapshots: &Snapshots, kept: &Kept) {
        // Where the store does not tell what it has.
        let mut sent = BTreeSet::new();
        let mut attempt = 0;
        loop {
            match send(snapshots, kept, &mut sent).await {
                Ok(()) => {
                    attempt = 0;
                    self.tell(CONDITION, None);
                    self.taken.notified().await;
                }
                Err(error) => {
                    let why = format!("a snapshot is not in {}: {}", remote::shown(&kept.store.url), chain(&error));
                    tracing::warn!(reason = why, "etcd: the store does not have all snapshots");
                    let fix = "it is tried again by itself; `etcd.snapshots.store` in the manifest says where and as \
                               whom, and `keelson check port` whether the store can be reached";
                    self.tell(CONDITION, Some(&Condition::new("EtcdSnapshotNotStored", why, fix)));
                    tokio::time::sleep(AGAIN.base(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
            }
        }
    }
}

/// Brings the store to where it should be.
async fn send(snapshots: &Snapshots, kept: &Kept, sent: &mut BTreeSet<String>) -> Result<(), remote::Error> {
    let local = names(&snapshots.list());
    let stored = stored(&local, kept, sent).await?;
    let todo = plan(&local, &stored, kept.keep);
    for name in &todo.put {
        kept.store.put(name, &snapshots.folder.join(name)).await?;
        sent.insert(name.clone());
        tracing::info!(name, to = remote::shown(&kept.store.url), "etcd: a snapshot is in the store");
    }
    if !todo.put.is_empty() {
        // What a store took, it must have, before anything older goes.
        let now = self::stored(&local, kept, sent).await?;
        if let Some(name) = plan(&local, &now, kept.keep).put.first() {
            let reason = format!("it took {name}, and does not have it, or not whole");
            return Err(remote::Error::Answer { url: remote::shown(&kept.store.url), reason });
        }
    }
    for name in &todo.delete {
        kept.store.delete(name).await?;
    }
    Ok(())
}

/// What the store has; of a web server that does not tell, what it took.
async fn stored(local: &[(String, u64)], kept: &Kept, sent: &BTreeSet<String>) -> Result<Vec<Stored>, remote::Error> {
    let names: Vec<String> = local.iter().map(|(name, _)| name.clone()).collect();
    let mut stored = kept.store.list(&names).await?;
    if kept.bucket.is_none() {
        let is_told = |name: &str| stored.iter().any(|stored| stored.name == name);
        let untold: Vec<Stored> = local
            .iter()
            .filter(|(name, _)| sent.contains(name) && !is_told(name))
            .map(|(name, bytes)| Stored { name: name.clone(), bytes: *bytes })
            .collect();
        stored.extend(untold);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests;
