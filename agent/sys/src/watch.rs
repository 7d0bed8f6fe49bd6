//! Waiting: for descriptors, and for changes of files.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::error::Error;

/// Waits until one of `fds` can be read (or was closed at its other end), at most `timeout`. Returns a flag for each.
/// An interruption counts as a timeout.
#[must_use]
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> Vec<bool> {
    // Rounded up, so that a deadline has passed when the wait for it returns.
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, timeout) {
        Ok(count) if count > 0 => polled.iter().map(|fd| fd.any().unwrap_or(false)).collect(),
        Ok(_) | Err(_) => vec![false; fds.len()],
    }
}

/// Tells when files in watched folders were written or put in place.
#[derive(Debug)]
pub struct FileWatch(Inotify);

impl FileWatch {
    /// A watch of nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self, Error> {
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map(Self)
            .map_err(|error| Error::new("watch files", error))
    }

    /// Also watches the files of this folder.
    ///
    /// # Errors
    /// When the folder does not exist.
    pub fn add_folder(&self, folder: &Path) -> Result<(), Error> {
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        self.0
            .add_watch(folder, flags)
            .map(|_descriptor| ())
            .map_err(|error| Error::new(format!("watch {}", folder.display()), error))
    }

    /// Also watches a file that grows, and is moved away in the end.
    ///
    /// # Errors
    /// When the file does not exist.
    pub fn add_file(&self, file: &Path) -> Result<(), Error> {
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF;
        self.0
            .add_watch(file, flags)
            .map(|_descriptor| ())
            .map_err(|error| Error::new(format!("watch {}", file.display()), error))
    }

    /// Names (without their folders) that changed since the last call. Never waits.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        let events = self.0.read_events().unwrap_or_default();
        events.into_iter().filter_map(|event| event.name).map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_put_in_place_wakes_the_watch() {
        let folder = std::env::temp_dir().join(format!("sys-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let watch = FileWatch::new().unwrap();
        watch.add_folder(&folder).unwrap();
        assert_eq!(wait_readable(&[watch.as_fd()], Duration::ZERO), [false]);
        std::fs::write(folder.join("a"), "1").unwrap();
        assert_eq!(wait_readable(&[watch.as_fd()], Duration::from_secs(5)), [true]);
        assert_eq!(watch.changed(), ["a"]);
        watch.add_file(&folder.join("a")).unwrap();
        let file = std::fs::OpenOptions::new().append(true).open(folder.join("a"));
        std::io::Write::write_all(&mut file.unwrap(), b"2").unwrap();
        assert_eq!(wait_readable(&[watch.as_fd()], Duration::from_secs(5)), [true]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
