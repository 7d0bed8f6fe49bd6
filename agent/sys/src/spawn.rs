//! Starting children: their own session, their control groups, what they give up, one pipe for what they print.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use nix::fcntl::OFlag;

use crate::confine::{Confinement, Prepared, prepare};
use crate::error::Error;

/// A child to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spawn {
    /// The program (absolute) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// `cgroup.procs` files the child writes itself into before it runs.
    pub cgroup_procs: Vec<PathBuf>,
    /// What it gives up before it runs.
    pub confinement: Confinement,
}

/// A child that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, also its session id.
    pub pid: u32,
    /// The reading end of its standard output and error; does not block.
    pub output: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Ended {
    /// Whether it returned 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(signal) => write!(f, "signal {}", signal.as_str()),
                Err(_unknown) => write!(f, "signal {signal}"),
            },
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.code().unwrap_or(-1)),
        }
    }
}

pub(crate) fn spawn(spawn: &Spawn) -> Result<Spawned, Error> {
    let step = || format!("start {}", spawn.argv.first().map_or("a program without a name", String::as_str));
    let Some((program, arguments)) = spawn.argv.split_first() else {
        return Err(Error::new(step(), io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let (output, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| Error::new(step(), error))?;
    set_nonblocking(&output).map_err(|error| Error::new(step(), error))?;
    let second = write_end.try_clone().map_err(|error| Error::new(step(), error))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spawn.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::from(write_end)).stderr(Stdio::from(second)).current_dir("/");
    let groups: Vec<CString> =
        spawn.cgroup_procs.iter().filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok()).collect();
    let prepared = prepare(&spawn.confinement).map_err(|error| Error::new(step(), error))?;
    // SAFETY: `prepare_child` runs between fork and exec and calls only async-signal-safe functions (sigprocmask,
    // setsid, open, write, close, prctl, capget, capset, seccomp); it allocates nothing, its strings and its filter were
    // made before the fork. There is no safe form of code between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || prepare_child(&groups, prepared.as_ref()));
    }
    let child = command.spawn().map_err(|error| Error::new(step(), error))?;
    // The child is reaped through `System::reap`; std's handle neither waits nor kills when dropped.
    Ok(Spawned { pid: child.id(), output: Some(output) })
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_GETFL)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn prepare_child(cgroup_procs: &[CString], prepared: Option<&Prepared>) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    for path in cgroup_procs {
        let file =
            nix::fcntl::open(path.as_c_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
        nix::unistd::write(&file, b"0")?;
    }
    // Last: the groups may not be writable any more.
    prepared.map_or(Ok(()), Prepared::apply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_child_leads_its_session_and_prints_into_the_pipe() {
        let spawned = spawn(&Spawn {
            argv: ["/bin/sh", "-c", "echo $A; echo err >&2"].map(String::from).to_vec(),
            env: vec![("A".into(), "b".into())],
            ..Spawn::default()
        })
        .unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(spawned.pid).unwrap());
        nix::sys::wait::waitpid(pid, None).unwrap();
        let mut text = String::new();
        std::fs::File::from(spawned.output.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "b\nerr\n");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = spawn(&Spawn { argv: vec!["/no/such".into()], ..Spawn::default() }).unwrap_err();
        assert_eq!(error.to_string(), "start /no/such");
        assert!(error.is_not_found());
    }
}
