//! Entering network namespaces.
//!
//! A thread that has entered another namespace never goes back to a pool: the work runs on a thread of its own that
//! ends with it, so no later work can find itself in the wrong namespace.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

/// Opens a network namespace by its path, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
pub fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).map_err(|source| Error::Refused {
        step: "open network namespace",
        subject: path.display().to_string(),
        source,
    })
}

/// The network namespace of the calling thread.
pub fn current() -> Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Runs `work` inside `namespace`, on a thread of its own, and returns its result. Blocks until it is done.
pub fn within<T, F>(namespace: BorrowedFd<'_>, work: F) -> Result<T>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || -> Result<T> {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Io { step: "enter a network namespace", source: errno.into() })?;
            Ok(work())
        });
        thread.join().map_err(|_panic| Error::ThreadDied)?
    })
}

/// Makes a new, nameless network namespace. It lives as long as the descriptor, a process in it or a mount of it.
pub fn create() -> Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<OwnedFd> {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Io { step: "make a network namespace", source: errno.into() })?;
            current()
        });
        thread.join().map_err(|_panic| Error::ThreadDied)?
    })
}
