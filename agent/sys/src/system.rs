//! The trait: what code asks of the machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::mapper::FileMapping;
use crate::spawn::{Ended, Spawn, Spawned};

/// One mount to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// A device, a folder (for binds) or a word the file system ignores.
    pub source: String,
    /// Where; must exist.
    pub target: PathBuf,
    /// The file system type; empty for binds and remounts.
    pub kind: String,
    /// Flags that are not words of one file system.
    pub flags: MountFlags,
    /// The file system's own options, comma separated.
    pub options: String,
}

/// Mount flags by the names of mount(8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags(u32);

impl MountFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Set-user-id bits have no effect.
    pub const NOSUID: Self = Self(1);
    /// Device nodes have no effect.
    pub const NODEV: Self = Self(1 << 1);
    /// Nothing can be executed.
    pub const NOEXEC: Self = Self(1 << 2);
    /// Nothing can be written.
    pub const READ_ONLY: Self = Self(1 << 3);
    /// Bind a folder or file elsewhere.
    pub const BIND: Self = Self(1 << 4);
    /// Apply to everything below, too.
    pub const RECURSIVE: Self = Self(1 << 5);
    /// Change an existing mount.
    pub const REMOUNT: Self = Self(1 << 6);
    /// Mounts propagate to and from copies.
    pub const SHARED: Self = Self(1 << 7);
    /// Mounts propagate nowhere.
    pub const PRIVATE: Self = Self(1 << 8);
    /// Access times are kept only relative to changes.
    pub const RELATIME: Self = Self(1 << 9);
    /// Mounts propagate into copies but not out of them.
    pub const SLAVE: Self = Self(1 << 10);

    /// Whether all of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl MountFlags {
    /// Both, also in constants.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for MountFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

/// How to take a mount away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmountFlags {
    /// Fail if busy.
    Plain,
    /// Out of the tree at once; the file system goes when its last user does.
    Lazy,
}

/// What the machine does at the very end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Power off.
    Off,
    /// Start again.
    Reboot,
    /// Stop the processors, leave the power on.
    Halt,
}

/// The signals this project sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Terminate,
    /// End now.
    Kill,
    /// Read your configuration again.
    Hangup,
}

/// What code asks of the machine. Paths are absolute; every call is synchronous and bounded.
pub trait System: Send + Sync {
    /// Makes a mount.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn mount(&self, mount: &Mount) -> Result<(), Error>;
    /// Takes a mount away.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn unmount(&self, target: &Path, flags: UnmountFlags) -> Result<(), Error>;
    /// Makes a folder and its parents; fine if it exists. `mode` is set on the last one if it was made.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn make_dir(&self, path: &Path, mode: u32) -> Result<(), Error>;
    /// Makes `link` point to `target`, replacing a link or file that is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn symlink(&self, target: &Path, link: &Path) -> Result<(), Error>;
    /// Makes a character device node; fine if it exists.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn make_char_device(&self, path: &Path, mode: u32, number: (u64, u64)) -> Result<(), Error>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> bool;
    /// A whole file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error>;
    /// At most `len` bytes from `offset`; fewer at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error>;
    /// Names in a folder, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, path: &Path) -> Result<Vec<String>, Error>;
    /// Where a link points.
    ///
    /// # Errors
    /// When it is none.
    fn read_link(&self, path: &Path) -> Result<PathBuf, Error>;
    /// Writes in place (kernel files; does not create anything).
    ///
    /// # Errors
    /// When the kernel refuses.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error>;
    /// Creates or replaces a file so that a reader, and a machine that loses power, sees the old or the new content.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn replace(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), Error>;
    /// Gives a file another name, in the place of one that has it; it has one of the two whenever the power is lost.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error>;
    /// Gives a file a second name.
    ///
    /// # Errors
    /// When the kernel refuses, or there is a file of that name.
    fn hard_link(&self, file: &Path, name: &Path) -> Result<(), Error>;
    /// Removes a file; fine if it does not exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_file(&self, path: &Path) -> Result<(), Error>;
    /// Removes an empty folder; fine if it does not exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_dir(&self, path: &Path) -> Result<(), Error>;
    /// Sets the host name.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set_hostname(&self, name: &str) -> Result<(), Error>;
    /// Sets the real-time clock of the system.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set_clock(&self, now: SystemTime) -> Result<(), Error>;
    /// Lets the clock run a little faster or slower until it has caught up with `offset` (forward if positive).
    ///
    /// # Errors
    /// When the kernel refuses.
    fn slew_clock(&self, offset_micros: i64) -> Result<(), Error>;
    /// Raises the number of files that this process and its children may open.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set_open_files_limit(&self, limit: u64) -> Result<(), Error>;
    /// Loads a kernel module from a file (plain or compressed); fine if it is loaded.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn load_module(&self, file: &Path, parameters: &str) -> Result<(), Error>;
    /// Makes a partition of a disk known that was added to its table: its number, start and size in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn add_partition(&self, disk: &Path, number: u32, place: (u64, u64)) -> Result<(), Error>;
    /// Makes the partitions known that a disk has now, none of which is in use.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn read_partitions(&self, disk: &Path) -> Result<(), Error>;
    /// Makes a device of a part of a file, which can only be read, and answers its node.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn map_file(&self, mapping: &FileMapping<'_>) -> Result<PathBuf, Error>;
    /// Takes a device away that was made so.
    ///
    /// # Errors
    /// When it is still in use.
    fn unmap(&self, name: &str) -> Result<(), Error>;
    /// The release of the running kernel, as in `/lib/modules`.
    fn kernel_release(&self) -> String;
    /// Starts a child process.
    ///
    /// # Errors
    /// When it cannot be executed.
    fn spawn(&self, spawn: &Spawn) -> Result<Spawned, Error>;
    /// Runs a program to its end and returns how it ended and what it printed. Kills it after `deadline`.
    ///
    /// # Errors
    /// When it cannot be executed or did not end in time.
    fn run(&self, argv: &[&str], deadline: Duration) -> Result<(Ended, String), Error>;
    /// The next child that ended, if one did: never waits.
    fn reap(&self) -> Option<(u32, Ended)>;
    /// Signals one process; fine if it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn kill(&self, pid: u32, signal: Signal) -> Result<(), Error>;
    /// Signals every process but this one.
    fn kill_all(&self, signal: Signal);
    /// The session a process belongs to; a spawned child leads its own.
    fn session_of(&self, pid: u32) -> Option<u32>;
    /// Writes everything to the disks.
    fn sync(&self);
    /// Ends the machine. Returns only when the kernel refuses.
    fn power(&self, power: Power) -> Error;
    /// Time since boot, sleep included.
    fn uptime(&self) -> Duration;
    /// The calendar time.
    fn now(&self) -> SystemTime;
}
