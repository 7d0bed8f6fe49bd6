//! A wait for others to stall for want of memory, which the kernel ends (PSI): nobody has to look again and again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;

/// A trigger that is armed as long as it lives. Its descriptor has priority data (`POLLPRI`) each time that all processes it
/// watches at once stalled too long, at most once in a window.
#[derive(Debug)]
pub struct PressureTrigger(File);

impl PressureTrigger {
    /// Arms a trigger on a file of PSI, such as `/proc/pressure/memory` or a control group's `memory.pressure`: all stalled
    /// for `stall` within `window`. A window of whole 2 s needs no right, others from half a second to 10 s do.
    ///
    /// # Errors
    /// When the kernel has no such file, or refuses.
    pub fn arm(file: &Path, stall: Duration, window: Duration) -> Result<Self, Error> {
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(file);
        let armed = open.and_then(|mut open| {
            // The kernel wants its zero at the end.
            let text = format!("full {} {}\0", stall.as_micros(), window.as_micros());
            open.write_all(text.as_bytes()).map(|()| open)
        });
        armed.map(Self).map_err(|error| Error::new(format!("wait for {}", file.display()), error))
    }
}

impl AsFd for PressureTrigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PressureTrigger {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/proc/pressure/memory";
    const WINDOW: Duration = Duration::from_secs(2);

    #[test]
    fn the_kernel_takes_a_trigger_and_refuses_nonsense() {
        let armed = PressureTrigger::arm(Path::new(FILE), Duration::from_millis(200), WINDOW);
        if let Err(error) = &armed
            && (error.is_not_found() || error.kind() != std::io::ErrorKind::InvalidInput)
        {
            println!("SKIPPED: this host has no use of PSI: {error}");
            return;
        }
        assert!(armed.is_ok(), "{armed:?}");
        // Nobody can stall longer than the window is.
        assert!(PressureTrigger::arm(Path::new(FILE), WINDOW * 2, WINDOW).is_err());
    }
}
