//! Somebody who types at a virtual machine's console.

use std::io::{Write, copy, sink};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The keyboard of a machine. While there is one, what the machine prints is still written to its log.
pub(crate) struct Keyboard(UnixStream);

impl Keyboard {
    /// Where a machine's emulator listens for one.
    pub(crate) fn socket(folder: &Path) -> PathBuf {
        folder.join("console")
    }

    /// Connects one to the machine in this folder, which runs.
    ///
    /// # Errors
    /// Its emulator does not answer.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let stream = UnixStream::connect(Self::socket(folder)).context("reach a machine's console")?;
        let mut screen = stream.try_clone().context("read a machine's console")?;
        // A screen that nobody looks at must not make the machine wait. It ends with the keyboard.
        drop(std::thread::spawn(move || copy(&mut screen, &mut sink())));
        Ok(Self(stream))
    }

    /// Types.
    ///
    /// # Errors
    /// The emulator is gone.
    pub(crate) fn types(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes()).context("type at a machine's console")
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
    }
}
