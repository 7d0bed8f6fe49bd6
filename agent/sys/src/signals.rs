//! Signals as something to wait on.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;

/// What a first process listens to: SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPWR. They are blocked for
/// this thread and those it starts later; children start with nothing blocked.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self, Error> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGPWR,
        ] {
            set.add(signal);
        }
        set.thread_block()
            .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
            .map(Self)
            .map_err(|error| Error::new("listen to signals", error))
    }

    /// The name of the next signal that arrived (`"SIGTERM"`). Never waits.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        let info = self.0.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Signal::try_from(number).ok().map(Signal::as_str)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes Ctrl-Alt-Del a SIGINT to the first process instead of an immediate reset.
///
/// # Errors
/// When the kernel refuses (namespaces may not decide this).
pub fn ignore_ctrl_alt_del_reboot() -> Result<(), Error> {
    nix::sys::reboot::set_cad_enabled(false).map_err(|error| Error::new("take over Ctrl-Alt-Del", error))
}
