//! Children: those that somebody waits for, and all others.
//!
//! The first process collects every child that ends, and a thread of it may wait for one of its own. Whoever comes first
//! leaves word for the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::Error;
use crate::linux::{Linux, pid_of};
use crate::spawn::{Ended, Spawn, Spawned, spawn};
use crate::system::{Signal, System};

/// The most that is kept of a program's output.
const OUTPUT_BYTES: usize = 64 * 1024;
/// How often it is looked for a program that has closed its output.
const STEP: Duration = Duration::from_millis(20);
/// What one that was killed gets to end: it may hang in the kernel.
const KILLED: Duration = Duration::from_secs(1);

/// Children that somebody waits for, and how those ended that were collected meanwhile.
static AWAITED: Mutex<BTreeMap<u32, Option<Ended>>> = Mutex::new(BTreeMap::new());

fn awaited() -> MutexGuard<'static, BTreeMap<u32, Option<Ended>>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that is waited for.
pub(crate) struct Awaited(Spawned);

/// Starts a child that nobody else gets.
pub(crate) fn begin(spec: &Spawn) -> Result<Awaited, Error> {
    // Nobody collects it before it is known.
    let mut awaited = awaited();
    let spawned = spawn(spec)?;
    awaited.insert(spawned.pid, None);
    Ok(Awaited(spawned))
}

/// The next child that ended and that nobody waits for.
pub(crate) fn reap() -> Option<(u32, Ended)> {
    let mut awaited = awaited();
    loop {
        let (pid, ended) = collect(Pid::from_raw(-1))?;
        match awaited.get_mut(&pid) {
            Some(word) => *word = Some(ended),
            None => return Some((pid, ended)),
        }
    }
}

impl Awaited {
    /// Reads the output until the program closes it, then collects the program. A program that closes its output early
    /// is waited for in short steps; none that this is used for does.
    pub(crate) fn run_to_end(mut self, deadline: Duration) -> io::Result<(Ended, String)> {
        let end = Linux.uptime() + deadline;
        let mut output = self.0.output.take().map(File::from);
        let mut text = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            let left = end.saturating_sub(Linux.uptime());
            if left.is_zero() {
                Linux.kill(self.0.pid, Signal::Kill).ok();
                self.ended_within(KILLED);
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some(file) = output.as_mut() else {
                if let Some(ended) = self.ended_within(STEP.min(left)) {
                    return Ok((ended, String::from_utf8_lossy(&text).into_owned()));
                }
                continue;
            };
            drop(crate::watch::wait_readable(&[file.as_fd()], left));
            match file.read(&mut buffer) {
                Ok(0) => output = None,
                Ok(count) if text.len() < OUTPUT_BYTES => text.extend_from_slice(&buffer[..count]),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How it ended, if it does in time.
    fn ended_within(&self, time: Duration) -> Option<Ended> {
        let until = Linux.uptime() + time;
        loop {
            let word = awaited().get(&self.0.pid).cloned().flatten();
            let ended = word.or_else(|| collect(pid_of(self.0.pid)).map(|(_, ended)| ended));
            let left = until.saturating_sub(Linux.uptime());
            if ended.is_some() || left.is_zero() {
                return ended;
            }
            drop(crate::watch::wait_readable(&[], STEP.min(left)));
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        awaited().remove(&self.0.pid);
    }
}

fn collect(pid: Pid) -> Option<(u32, Ended)> {
    loop {
        return match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Some((u32::try_from(pid.as_raw()).ok()?, Ended::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                Some((u32::try_from(pid.as_raw()).ok()?, Ended::Signal(signal as i32)))
            }
            Ok(WaitStatus::StillAlive) => None,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => None,
        };
    }
}
