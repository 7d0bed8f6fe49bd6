//! Snapshots by schedule: when, where, how many. Their files alone tell what was done, so that a new start forgets
//! nothing.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd::Error;
use machine_api::EtcdSnapshot;

use super::upload::Kept;

/// After a snapshot that failed, the next one is not put off for longer.
const RETRY: Duration = Duration::from_secs(60);
/// Beginning and end of a snapshot's name; what is called otherwise is somebody else's.
const NAME: (&str, &str) = ("etcd-", ".db");

/// Snapshots by schedule.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// From one to the next.
    pub interval: Duration,
    /// So many are kept.
    pub keep: usize,
    /// Where they are.
    pub folder: PathBuf,
    /// Where they are kept, too.
    pub kept: Option<Kept>,
}

/// Whether something is called as our snapshots are.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(NAME.0) && name.ends_with(NAME.1)
}

impl Snapshots {
    /// All that are there, oldest first.
    pub(super) fn list(&self) -> Vec<EtcdSnapshot> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(is_ours);
            if let (true, Ok(metadata)) = (is_ours, entry.metadata()) {
                let taken = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                found.push(EtcdSnapshot {
                    path: entry.path().display().to_string(),
                    bytes: metadata.len(),
                    taken: taken.map_or(0, |taken| taken.as_secs()),
                });
            }
        }
        // Their names begin with the time.
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// How long until the next one. One that seems to come from the future says nothing.
    pub(super) fn due_in(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let newest = self.list().into_iter().map(|snapshot| Duration::from_secs(snapshot.taken)).max();
        match newest.and_then(|newest| now.checked_sub(newest)) {
            Some(passed) => self.interval.saturating_sub(passed),
            None => Duration::ZERO,
        }
    }

    /// How long to wait after one that failed.
    pub(super) fn retry(&self) -> Duration {
        self.interval.min(RETRY)
    }

    /// Where the next one goes.
    pub(super) fn next_path(&self, now: SystemTime) -> Result<PathBuf, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| Error::File { step: "make", path: self.folder.clone(), source })?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let time = api::time::format_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)).replace(':', "");
        Ok(self.folder.join(format!("{}{time}{}", NAME.0, NAME.1)))
    }

    /// Removes the oldest of those that are too many.
    pub(super) fn remove_old(&self) {
        let all = self.list();
        for old in &all[..all.len().saturating_sub(self.keep)] {
            if let Err(error) = fs::remove_file(&old.path) {
                tracing::warn!(path = old.path, %error, "an old snapshot stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_says_when_the_next_is_due_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let snapshots = Snapshots { interval: hour, keep: 2, folder: folder.path().join("snapshots"), kept: None };
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        assert_eq!(snapshots.due_in(now), Duration::ZERO);
        for number in 0..4 {
            let time = now + hour * number;
            let path = snapshots.next_path(time).unwrap();
            fs::File::create(&path).unwrap().set_modified(time).unwrap();
            snapshots.remove_old();
        }
        let foreign = snapshots.folder.join("notes.txt");
        fs::write(&foreign, "").unwrap();
        snapshots.remove_old();
        let left: Vec<u64> = snapshots.list().iter().map(|snapshot| snapshot.taken).collect();
        assert_eq!(left, [1_790_007_200, 1_790_010_800]);
        assert!(foreign.exists());
        assert_eq!(snapshots.due_in(now + hour * 3 + hour / 4), hour * 3 / 4);
        assert_eq!(snapshots.due_in(now + hour * 9), Duration::ZERO);
        // The clock was wrong, then or now.
        assert_eq!(snapshots.due_in(now), Duration::ZERO);
    }
}
