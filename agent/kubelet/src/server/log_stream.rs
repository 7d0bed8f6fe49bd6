//! `/containerLogs`: a container's log as plain text.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::{Runtime, v1};
use hyper::body::Bytes;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::logs::{tail_offset, with_end};

/// Read at a time.
const BLOCK_BYTES: usize = 64 * 1024;
/// A followed log is looked at this often even if the kernel reports nothing, for the container's end.
const FOLLOW_STEP: Duration = Duration::from_secs(1);

/// What is wanted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// The container whose log is sent.
pub(super) struct LogOwner {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) id: String,
}

impl LogOwner {
    async fn is_running(&self) -> bool {
        let status = self.runtime.container_status(&self.id).await;
        status.is_ok_and(|status| status.state() == v1::ContainerState::ContainerRunning)
    }
}

/// Sends a log file's text until its end; when following, until the container's.
pub(super) async fn send_log(
    path: PathBuf,
    options: LogOptions,
    sender: mpsc::Sender<Bytes>,
    owner: LogOwner,
) -> io::Result<()> {
    let mut reader = LogReader::open(&path, options)?;
    let watch = if reader.options.follow { Some(watch_folder(&path)?) } else { None };
    loop {
        let was_running = match &watch {
            Some(_) => owner.is_running().await,
            None => false,
        };
        loop {
            let (piece, is_more) = reader.read_piece()?;
            if !piece.is_empty() && sender.send(Bytes::from(piece)).await.is_err() {
                return Ok(());
            }
            if reader.is_full() {
                return Ok(());
            }
            if !is_more {
                break;
            }
        }
        let Some(watch) = watch.as_ref().filter(|_| was_running) else { return Ok(()) };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            _elapsed_or_told = tokio::time::timeout(FOLLOW_STEP, wait_for_change(watch)) => {}
        }
        reader.follow_rotation(&path)?;
    }
}

/// What tells of changes of a folder's files, to be waited for.
struct FolderWatch(Inotify);

impl AsRawFd for FolderWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch_folder(path: &Path) -> io::Result<AsyncFd<FolderWatch>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(path.parent().unwrap_or(path), flags)?;
    #[allow(deprecated, reason = "the successor is unsafe; the descriptor is owned by what is registered")]
    AsyncFd::new(FolderWatch(inotify))
}

async fn wait_for_change(watch: &AsyncFd<FolderWatch>) {
    if let Ok(mut ready) = watch.readable().await {
        // What exactly changed does not matter: the file is read to its end anyway.
        while watch.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
    }
}

struct LogReader {
    file: File,
    options: LogOptions,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
    sent: u64,
    /// The line before goes on: no time is put before its parts.
    is_within_line: bool,
}

impl LogReader {
    fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let start = match options.tail_lines {
            Some(lines) => tail_offset(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, options, rest: Vec::new(), sent: 0, is_within_line: false })
    }

    /// Text of the next lines, and whether there may be more.
    fn read_piece(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut block = vec![0; BLOCK_BYTES];
        let len = self.file.read(&mut block)?;
        self.rest.extend_from_slice(&block[..len]);
        let complete = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..complete).collect();
        let mut out = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.add_line(line, &mut out);
        }
        if let Some(limit) = self.options.limit_bytes {
            let left = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            out.truncate(left);
        }
        self.sent += out.len() as u64;
        Ok((out, len > 0))
    }

    fn add_line(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = cri::parse_log_line(raw) else { return };
        let is_wanted = if line.is_stderr { self.options.stderr } else { self.options.stdout };
        let is_early = self.options.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|t| t < since));
        if !is_wanted || is_early {
            return;
        }
        if self.options.timestamps && !self.is_within_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        self.is_within_line = line.is_partial;
        with_end(&line, out);
    }

    fn is_full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    /// Goes over to the new file when the log was rotated.
    fn follow_rotation(&mut self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let here = self.file.metadata()?;
        if let Ok(there) = std::fs::metadata(path)
            && (there.ino(), there.dev()) != (here.ino(), here.dev())
            && self.file.stream_position()? >= here.len()
        {
            self.file = File::open(path)?;
        }
        Ok(())
    }
}
