//! Processes that outlive the command which started them: found again by number and start time, so that a number used
//! anew is never taken for ours.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use images::tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Processes end at once when killed, unless a disk hangs.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
const CHECK: Duration = Duration::from_millis(20);

/// A process of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it does, for people.
    pub name: String,
    /// Its number on this machine.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub start: u64,
}

impl Process {
    /// Describes the running process `pid`.
    ///
    /// # Errors
    /// There is no such process.
    pub fn observe(name: &str, pid: i32) -> Result<Self> {
        let start = start_time(pid).with_context(|| format!("{name} has ended already"))?;
        Ok(Self { name: name.to_owned(), pid, start })
    }

    /// Whether it still runs; one that has ended and was not collected does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        self.gone(KILL_DEADLINE).await
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    /// It is still there after `time`.
    pub async fn gone(&self, time: Duration) -> Result<()> {
        let wait = async {
            while self.is_alive() {
                tokio::time::sleep(CHECK).await;
            }
        };
        match tokio::time::timeout(time, wait).await {
            Ok(()) => Ok(()),
            Err(_) => bail!("{} (process {}) did not end within {} s", self.name, self.pid, time.as_secs()),
        }
    }
}

/// Starts a command that goes on when this one ends; what it prints is appended to `log`.
///
/// # Errors
/// It cannot be started.
pub fn start_detached(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let output = open().with_context(|| format!("open {}", log.display()))?;
    let errors = output.try_clone().context("share the log")?;
    // A group of its own: Ctrl-C in the terminal is meant for the command in the foreground.
    let command = command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    let pid = i32::try_from(child.id()).context("process number")?;
    // Not waited for here: it becomes the first process's child when this one ends.
    Process::observe(name, pid)
}

/// Runs a command to its end and returns what it printed. It is killed when nobody waits for its end any more, as after
/// a scenario's deadline.
///
/// # Errors
/// The command cannot be started or fails.
pub async fn run(command: Command) -> Result<String> {
    run_reading(command, Stdio::null()).await
}

/// The same, with something to read.
///
/// # Errors
/// As [`run`].
pub async fn run_reading(mut command: Command, input: Stdio) -> Result<String> {
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut waited: tokio::process::Command = command.into();
    let child = waited.kill_on_drop(true).spawn().with_context(|| format!("start {waited:?}"))?;
    let output = child.wait_with_output().await.context("wait for its end")?;
    tools::answer(waited.as_std(), &output)
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    const AFTER_STATE: usize = 18;
    fields.nth(AFTER_STATE)?.parse().ok()
}

/// The last lines of a text file, for error messages; empty if there is none.
#[must_use]
pub fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ended_process_is_known_by_its_start_time() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let process =
            start_detached("cat", Command::new("sh").args(["-c", "echo hi; exec tail -f /dev/null"]), &log).unwrap();
        assert!(process.is_alive());
        let other = Process { start: process.start + 1, ..process.clone() };
        assert!(!other.is_alive());
        other.end().await.unwrap();
        assert!(process.is_alive());
        process.end().await.unwrap();
        assert!(!process.is_alive());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg("exec 3>$0; echo here >&3; exec tail -f /dev/null").arg(&pipe);
        let started = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&pipe).unwrap();
        let mut lines = tokio::io::BufReader::new(started);
        let mut line = String::new();
        tokio::select! {
            ended = run(command) => panic!("{ended:?}"),
            read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line) => read.unwrap(),
        };
        // The pipe's other end is closed when the process is gone.
        let mut rest = String::new();
        let rest = tokio::io::AsyncReadExt::read_to_string(&mut lines, &mut rest);
        assert_eq!(tokio::time::timeout(KILL_DEADLINE, rest).await.unwrap().unwrap(), 0);
        let said = run(Command::new("true")).await.unwrap();
        assert_eq!(said, "");
        assert!(run(Command::new("false")).await.is_err());
    }
}
