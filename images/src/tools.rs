//! Programs of the building machine: finding, installing and running them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A program and the Debian package that holds it.
pub type Tool = (&'static str, &'static str);

/// Where a root user's programs are, even if the caller's `PATH` lacks the folders for system programs.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Finds a program by its name, or a file by its whole path.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// How a command for people ends: with the whole reason, if it failed.
#[must_use]
pub fn conclude(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Installs the packages of the programs that are missing, or says how to.
///
/// # Errors
/// A package cannot be installed, or the caller is not root.
pub fn require(tools: &[Tool]) -> Result<()> {
    let mut packages: Vec<&str> =
        tools.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!("programs are missing; run: sudo apt-get update && sudo {install}");
    }
    if find("apt-get").is_none() {
        bail!("the packages {} are needed, and this machine has no apt-get to install them", packages.join(", "));
    }
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let arguments = ["install", "-qq", "--yes", "--no-install-recommends"];
    run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments).args(&packages))?;
    if let Some((program, package)) = tools.iter().find(|(program, _)| find(program).is_none()) {
        bail!("{package} is installed, but {program} is still not found");
    }
    Ok(())
}

/// A command for a program found by [`find`].
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it printed; its error output is part of the error.
///
/// # Errors
/// The command cannot be started or fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{}`", shown(command)))?;
    answer(command, &output)
}

/// What a command printed that has ended; its error output is part of the error.
///
/// # Errors
/// It failed.
pub fn answer(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
        bail!("`{}` failed ({}):\n{}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    const SHOWN_BYTES: usize = 200;
    if let Some((end, _)) = line.char_indices().nth(SHOWN_BYTES) {
        line.truncate(end);
        line.push('…');
    }
    line
}
