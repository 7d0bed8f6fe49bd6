//! Doing something inside another network namespace.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::error::Error;

/// Runs `work` on a thread of its own that has entered the network namespace at `path`, and returns what it returned.
/// The calling thread stays where it is. Sockets that `work` opens keep belonging to that namespace.
///
/// # Errors
/// When the namespace cannot be entered, or `work` panicked.
pub fn in_network_namespace<T, F>(path: &Path, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    let step = || format!("enter network namespace {}", path.display());
    let namespace = File::open(path).map_err(|error| Error::new(step(), error))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| setns(&namespace, CloneFlags::CLONE_NEWNET).map(|()| work()));
        match thread.join() {
            Ok(result) => result.map_err(|error| Error::new(step(), error)),
            Err(_panic) => Err(Error::new(step(), std::io::Error::other("the work inside panicked"))),
        }
    })
}
