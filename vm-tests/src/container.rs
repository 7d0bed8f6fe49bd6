//! A machine made of namespaces: what QEMU is for a virtual one. [`keep`] makes the namespaces and stays outside as the
//! machine's parent; [`enter`] is the first process inside, gives it its file systems and becomes the agent.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

const AGENT: &str = "/usr/bin/keelson";
const NONE: Option<&str> = None;

/// The folder of a machine, and what is in it.
pub struct Layout(PathBuf);

impl Layout {
    /// In the folder `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Laid over the image: the machine's own manifest.
    #[must_use]
    pub fn layer(&self) -> PathBuf {
        self.0.join("layer")
    }

    /// What the machine keeps: its writable folders, at their paths in the machine.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.0.join("kept")
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// The number of the machine's first process, as the host counts.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn prepare(&self) -> Result<()> {
        let folders = [self.layer(), self.root(), self.kept().join("state"), self.kept().join("var")];
        folders
            .iter()
            .try_for_each(|folder| fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display())))
    }
}

/// Makes namespaces for the machine in `folder`, starts [`enter`] in them by way of this same program, and waits until
/// the machine ends.
///
/// # Errors
/// The kernel refuses a namespace or a control group.
pub fn keep(folder: &Path, tree: &Path, network: &Path, group: &str) -> Result<()> {
    let layout = Layout::new(folder);
    let network = File::open(network).with_context(|| format!("open {}", network.display()))?;
    let mut before = join_groups(group)?;
    setns(network, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    let namespaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).context("make namespaces")?;
    let own = std::env::current_exe().context("find this program")?;
    // Nothing comes through the pipe; its end tells the child whether this process lives.
    let (alive, _held_until_the_end) = io::pipe().context("make a pipe")?;
    let mut command = Command::new(own);
    command.arg("machine-root").arg(folder).arg(tree).stdin(alive);
    // The first child is the first process of the new process namespace.
    let mut child = command.spawn().context("start the machine")?;
    // This process is no part of the machine, so it must not count as one of its processes.
    for procs in &mut before {
        procs.write_all(b"0").ok();
    }
    fs::write(layout.pid_file(), child.id().to_string()).context("write the machine's process number")?;
    let status = child.wait().context("wait for the machine")?;
    println!("[the machine has ended: {status}]");
    Ok(())
}

/// Mounts the image read-only with the machine's layer over it, and the writable folders; then becomes the agent.
///
/// # Errors
/// A mount fails. On success it does not return.
pub fn enter(folder: &Path, tree: &Path) -> Result<()> {
    // The machine ends with its keeper, as a virtual one ends with its emulator.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("tie the machine to its keeper")?;
    if is_forsaken().context("look for the machine's keeper")? {
        bail!("the machine's keeper has ended");
    }
    let nothing = File::open("/dev/null").context("open /dev/null")?;
    nix::unistd::setsid().context("leave the terminal")?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("part the mounts from the host's")?;
    let layout = Layout::new(folder);
    let root = layout.root();
    // No upper layer: it is read-only, as the root of a machine is.
    let layers = format!("lowerdir={}:{}", layout.layer().display(), tree.display());
    mount(Some("keelson"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .context("mount the root")?;
    for name in ["state", "var"] {
        let source = layout.kept().join(name);
        mount(Some(&source), &root.join(name), NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("mount /{name}"))?;
    }
    nix::unistd::chdir(&root).context("enter the root")?;
    nix::unistd::pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the host's files")?;
    nix::unistd::chdir("/").context("enter the root")?;
    let mut agent = Command::new(AGENT);
    agent.arg0("keelson").arg("init").stdin(nothing).env_clear().env("PATH", "/usr/sbin:/usr/bin");
    let error = agent.exec();
    Err(error).with_context(|| format!("execute {AGENT}"))
}

/// Whether the keeper ended before this process could ask for a signal at its end: then its end of the pipe is closed.
fn is_forsaken() -> nix::Result<bool> {
    let stdin = io::stdin();
    let mut end = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    poll(&mut end, PollTimeout::ZERO)?;
    Ok(end[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// The control group hierarchies of the host: each v1 controller's, or the one of v2.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let mounted = |kind: &str| -> Vec<PathBuf> {
        let rows = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        rows.filter(|row| row.get(2) == Some(&kind)).filter_map(|row| row.get(1).map(PathBuf::from)).collect()
    };
    let legacy = mounted("cgroup");
    let found = if legacy.is_empty() { mounted("cgroup2") } else { legacy };
    if found.is_empty() {
        bail!("this machine has no control groups mounted");
    }
    Ok(found)
}

/// Moves this process into the group `group` of every hierarchy. Returns the way back: the files that take a process
/// into the groups it was in before.
fn join_groups(group: &str) -> Result<Vec<File>> {
    let membership = fs::read_to_string("/proc/self/cgroup").context("read the control groups")?;
    let mut before = Vec::new();
    for root in hierarchies()? {
        before.extend(
            own_group(&root, &membership)
                .and_then(|folder| File::options().write(true).open(folder.join("cgroup.procs")).ok()),
        );
        let mut folder = root.clone();
        for part in group.split('/') {
            let parent = folder.clone();
            folder.push(part);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            inherit(&parent, &folder).with_context(|| format!("prepare {}", folder.display()))?;
        }
        let procs = folder.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("join {}", folder.display()))?;
    }
    Ok(before)
}

fn own_group(root: &Path, membership: &str) -> Option<PathBuf> {
    let name = root.file_name()?.to_str()?;
    let line = membership.lines().find(|line| {
        let names = line.split(':').nth(1).unwrap_or_default();
        names.split(',').any(|controller| controller == name || controller.strip_prefix("name=") == Some(name))
            || (names.is_empty() && root.join("cgroup.controllers").exists())
    })?;
    Some(root.join(line.splitn(3, ':').nth(2)?.trim_start_matches('/')))
}

/// A new group can use what its parent can: v2 wants controllers enabled, v1 copies nothing into a cpuset.
fn inherit(parent: &Path, folder: &Path) -> io::Result<()> {
    if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            // The host may keep one to itself.
            fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).ok();
        }
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(values) = fs::read_to_string(parent.join(file)) {
            fs::write(folder.join(file), values.trim())?;
        }
    }
    Ok(())
}

/// Removes the group `group` with all below it from every hierarchy; no process may be left in them.
///
/// # Errors
/// A group is in use.
pub fn remove_groups(group: &str) -> Result<()> {
    for root in hierarchies()? {
        let folder = root.join(group);
        if folder.is_dir() {
            remove_group(&folder).with_context(|| format!("remove the control group {}", folder.display()))?;
        }
    }
    Ok(())
}

fn remove_group(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
