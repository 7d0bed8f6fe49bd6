//! Where the first process talks to.

use std::fs::OpenOptions;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::error::Error;

/// Makes a device the standard input, output and error of this process.
///
/// # Errors
/// When it cannot be opened.
pub fn redirect_stdio(device: &Path) -> Result<(), Error> {
    let step = || format!("talk to {}", device.display());
    let file = OpenOptions::new().read(true).write(true).open(device).map_err(|error| Error::new(step(), error))?;
    nix::unistd::dup2_stdin(&file)
        .and_then(|()| nix::unistd::dup2_stdout(&file))
        .and_then(|()| nix::unistd::dup2_stderr(&file))
        .map_err(|error| Error::new(step(), error))
}

/// Whether what is typed at standard input, a terminal, is shown there.
///
/// # Errors
/// It is no terminal.
pub fn show_typed(is_shown: bool) -> Result<(), Error> {
    let failed = |error| Error::new("change what the terminal shows", error);
    let terminal = std::io::stdin();
    let mut attributes = tcgetattr(&terminal).map_err(failed)?;
    attributes.local_flags.set(LocalFlags::ECHO, is_shown);
    tcsetattr(&terminal, SetArg::TCSANOW, &attributes).map_err(failed)
}
