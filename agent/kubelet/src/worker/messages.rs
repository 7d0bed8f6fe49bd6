//! The last words of ended containers.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::PodWorker;
use crate::logs::tail_text;
use crate::observed::{Life, SeenContainer, keys};
use crate::runtime_config::DEFAULT_MESSAGE_PATH;

/// The most of a message file that is reported.
const MESSAGE_BYTES: u64 = 4096;
/// The most of a log that stands in for a message.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

impl PodWorker {
    /// Reads the messages of containers that have ended since the last time.
    pub(super) async fn read_messages(&mut self) {
        let seen = self.seen.clone();
        self.messages.retain(|id, _| seen.containers.iter().any(|c| c.id == *id));
        for container in seen.containers.iter().filter(|c| c.life == Life::Exited) {
            if !self.messages.contains_key(&container.id) {
                let message = read_message(container);
                self.messages.insert(container.id.clone(), message);
            }
        }
    }
}

fn read_message(container: &SeenContainer) -> String {
    let status = &container.status;
    let path = match status.annotations.get(keys::MESSAGE_PATH).map(String::as_str) {
        None | Some("") => DEFAULT_MESSAGE_PATH,
        Some(path) => path,
    };
    let file = status.mounts.iter().find(|m| m.container_path == path).map(|m| m.host_path.clone());
    let own = file.and_then(|file| read_end(Path::new(&file)).ok()).unwrap_or_default();
    let falls_back = status.annotations.get(keys::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if own.is_empty() && falls_back && status.exit_code != 0 {
        return tail_text(Path::new(&status.log_path), LOG_LINES, LOG_BYTES).unwrap_or_default();
    }
    own
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MESSAGE_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
