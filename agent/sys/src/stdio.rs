//! Where the first process talks to.

use std::fs::OpenOptions;
use std::path::Path;

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
