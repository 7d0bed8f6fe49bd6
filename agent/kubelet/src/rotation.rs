//! Keeps containers' logs from filling the disk: a file that is too large is renamed and the runtime goes on in a new
//! one; the oldest are removed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1;

use crate::clock;
use crate::context::NodeContext;

/// How often sizes are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates until the shutdown.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.shutdown.wait() => return,
            _tick = ticks.tick() => rotate_all(&node).await,
        }
    }
}

/// Only folders are read unless a file is too large: the runtime is asked about those alone.
async fn rotate_all(node: &NodeContext) {
    let large = large_logs(&node.config.pod_logs_dir, node.config.log_max_bytes);
    if large.is_empty() {
        return;
    }
    let containers = match node.runtime.list_containers(HashMap::new()).await {
        Ok(list) => list,
        Err(error) => {
            tracing::warn!(%error, "logs not rotated");
            return;
        }
    };
    for container in containers.iter().filter(|c| c.state() == v1::ContainerState::ContainerRunning) {
        let Ok(status) = node.runtime.container_status(&container.id).await else { continue };
        let path = PathBuf::from(&status.log_path);
        if large.contains(&path)
            && let Err(why) = rotate(node, &container.id, &path).await
        {
            tracing::warn!(path = %path.display(), why, "log not rotated");
        }
    }
}

/// Current logs (`ROOT/POD/CONTAINER/N.log`) above the limit.
fn large_logs(root: &Path, limit: u64) -> Vec<PathBuf> {
    let mut large = Vec::new();
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    for file in list(root).iter().flat_map(|pod| list(pod)).flat_map(|container| list(&container)) {
        let is_current = file.extension().is_some_and(|extension| extension == "log");
        if is_current && fs::metadata(&file).is_ok_and(|m| m.len() > limit) {
            large.push(file);
        }
    }
    large
}

async fn rotate(node: &NodeContext, id: &str, path: &Path) -> Result<(), String> {
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(clock::now())).unwrap_or_default();
    let rotated = PathBuf::from(format!("{}.{}", path.display(), stamp.strftime("%Y%m%d-%H%M%S")));
    fs::rename(path, &rotated).map_err(|error| error.to_string())?;
    if let Err(error) = node.runtime.reopen_log(id).await {
        // The runtime writes on into the renamed file: give it its name back.
        fs::rename(&rotated, path).map_err(|back| format!("{error}; {back}"))?;
        return Err(error.to_string());
    }
    let keep = usize::try_from(node.config.log_max_files).unwrap_or(1).saturating_sub(1).max(1);
    remove_oldest(path, keep).map_err(|error| error.to_string())
}

/// Removes rotated files of a log but the newest ones.
fn remove_oldest(path: &Path, keep: usize) -> io::Result<()> {
    let Some((dir, name)) = path.parent().zip(path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated: Vec<PathBuf> = fs::read_dir(dir)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    rotated.sort();
    let surplus = rotated.len().saturating_sub(keep);
    rotated.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rotated_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "0.log.20260103-000000"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        remove_oldest(&log, 1).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260103-000000"]);
    }
}
