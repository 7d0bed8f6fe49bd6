//! The hardware watchdog: once opened, it starts the machine again unless it is petted in time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;

nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);

/// A watchdog that runs. It goes on running when this is dropped; [`Watchdog::disarm`] ends it.
#[derive(Debug)]
pub struct Watchdog(File);

impl Watchdog {
    /// Opens it, which starts it with a timeout of its driver's choice.
    ///
    /// # Errors
    /// There is none, or another process has it.
    pub fn open(device: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new().write(true).open(device);
        file.map(Self).map_err(|error| Error::new(format!("open {}", device.display()), error))
    }

    /// How long it waits for the next [`Watchdog::pet`], beginning now. Answers what the hardware made of it.
    ///
    /// # Errors
    /// The hardware cannot wait so long.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<Duration, Error> {
        let mut seconds = libc::c_int::try_from(timeout.as_secs().max(1)).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open, and the number lives until the call returns.
        #[allow(unsafe_code)]
        unsafe { set_timeout(self.0.as_raw_fd(), &raw mut seconds) }
            .map_err(|error| Error::new("set the watchdog's timeout", error))?;
        self.pet()?;
        Ok(Duration::from_secs(seconds.unsigned_abs().into()))
    }

    /// Lets it wait anew.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn pet(&mut self) -> Result<(), Error> {
        self.0.write_all(b".").map_err(|error| Error::new("pet the watchdog", error))
    }

    /// Stops it, where the hardware can be stopped.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn disarm(mut self) -> Result<(), Error> {
        // The one letter after which closing means stopping.
        self.0.write_all(b"V").map_err(|error| Error::new("stop the watchdog", error))
    }
}
