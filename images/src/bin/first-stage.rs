//! The first process of the initramfs: loads the modules that the root's file system needs, finds the root by its
//! identifier, mounts it read-only and hands over to the agent.
//!
//! Where a boot loader has started the kernel from a slot of a disk, the root must be in that slot of that disk. Where
//! the kernel was started directly, it may be on any.
//!
//! It ends only by an error, at which the kernel stops with the reason on the console.

use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::disk::{Entry, Slot, Table};
use anyhow::{Context, Result, bail};
use install::FileDevice;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

const AGENT: &str = "/usr/bin/keelson";
const VARIABLES: &str = "/variables";
/// Disks appear while we run; a machine whose disk has not come by then needs a person.
const ROOT_DEADLINE: Duration = Duration::from_secs(60);
/// Looked for again after this time even if no device was seen to appear.
const RESCAN: Duration = Duration::from_secs(1);

/// erofs: where its superblock is, what it begins with, and where in it the identifier is.
const SUPERBLOCK: u64 = 1024;
const MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const IDENTIFIER: std::ops::Range<usize> = 48..64;

fn main() {
    if let Err(error) = run() {
        tell(&format!("keelson: cannot reach the root file system: {error:#}"));
    }
}

/// Says it on the console, as a line of the kernel: those are kept when the kernel ends, as it will.
fn tell(text: &str) {
    if fs::write("/dev/kmsg", format!("<2>{text}\n")).is_err() {
        println!("{text}");
    }
}

fn run() -> Result<()> {
    let none = None::<&str>;
    mount(Some("dev"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, none).context("mount /dev")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID, none).context("mount /proc")?;
    let wanted = root_argument(&fs::read_to_string("/proc/cmdline").context("read the kernel's arguments")?)?;
    load_modules()?;
    let started = Started::observe();
    let device = wait_for_root(&wanted, started.as_ref())?;
    let flags = MsFlags::MS_RDONLY;
    mount(Some(&device), "/root", Some("erofs"), flags, none).with_context(|| format!("mount {}", device.display()))?;
    for path in ["/dev", "/proc"] {
        let target = format!("/root{path}");
        mount(Some(path), target.as_str(), none, MsFlags::MS_MOVE, none).with_context(|| format!("move {path}"))?;
    }
    // What stays in the initramfs stays in memory.
    fs::remove_file("/init").ok();
    fs::remove_dir_all("/modules").ok();
    nix::mount::umount(VARIABLES).ok();
    nix::unistd::chdir("/root").context("enter the root")?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move the root into place")?;
    nix::unistd::chroot(".").context("change the root")?;
    nix::unistd::chdir("/").context("enter the root")?;
    let arguments = [CString::new("keelson")?, CString::new("init")?];
    nix::unistd::execv(&CString::new(AGENT)?, &arguments).with_context(|| format!("execute {AGENT}"))?;
    Ok(())
}

fn root_argument(line: &str) -> Result<[u8; 16]> {
    let text = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("keelson.root="))
        .context("the kernel's arguments lack keelson.root=IDENTIFIER")?;
    let number = u128::from_str_radix(text, 16).with_context(|| format!("keelson.root={text} is no identifier"))?;
    Ok(number.to_be_bytes())
}

fn load_modules() -> Result<()> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>().context("list the modules")?;
    paths.sort();
    for path in paths {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("load {}", path.display()))?;
    }
    Ok(())
}

/// What the boot loader has started.
struct Started {
    /// The identifier of the partition with the kernel image.
    partition: String,
    /// The slot that the kernel image is for.
    slot: Slot,
}

impl Started {
    /// `None` if it was no boot loader that tells.
    fn observe() -> Option<Self> {
        mount(Some("efivarfs"), VARIABLES, Some("efivarfs"), MsFlags::MS_NOSUID | MsFlags::MS_RDONLY, None::<&str>)
            .ok()?;
        let entry = Entry::parse(&variable("LoaderEntrySelected")?)?;
        Some(Self { partition: variable("LoaderDevicePartUUID")?.to_lowercase(), slot: entry.slot })
    }

    /// The partition of the slot, on the disk that the loader was on.
    fn device(&self) -> Result<Option<PathBuf>> {
        for name in disks()? {
            let path = Path::new("/dev").join(&name);
            let Ok(mut device) = FileDevice::open_read_only(&path) else { continue };
            let Ok(table) = Table::read(&mut device) else { continue };
            if table.partitions.values().all(|partition| partition.id.to_string() != self.partition) {
                continue;
            }
            let Some((number, _)) = table.named(self.slot.partition()) else {
                bail!("the disk {name} has no partition {}", self.slot.partition());
            };
            let between = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
            let device = PathBuf::from(format!("/dev/{name}{between}{number}"));
            return Ok(device.exists().then_some(device));
        }
        Ok(None)
    }
}

/// A variable that the boot loader has set.
fn variable(name: &str) -> Option<String> {
    let bytes = fs::read(format!("{VARIABLES}/{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).ok()?;
    // The first four bytes are its attributes.
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}

fn wait_for_root(wanted: &[u8; 16], started: Option<&Started>) -> Result<PathBuf> {
    let start = Instant::now();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).context("watch devices")?;
    watch.add_watch("/dev", AddWatchFlags::IN_CREATE).context("watch devices")?;
    loop {
        match started.map(Started::device).transpose()? {
            Some(Some(device)) if identifier(&device).is_some_and(|found| found == wanted) => return Ok(device),
            Some(Some(device)) => bail!("{} does not hold the root that this kernel is for", device.display()),
            Some(None) => {}
            None => {
                if let Some(device) = find_root(wanted)? {
                    return Ok(device);
                }
            }
        }
        if start.elapsed() > ROOT_DEADLINE {
            bail!("no disk holds it; disks here: {}", disks()?.join(", "));
        }
        let timeout = c_int::try_from(RESCAN.as_millis()).map(PollTimeout::try_from)??;
        poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout).context("wait for devices")?;
        watch.read_events().ok();
    }
}

fn find_root(wanted: &[u8; 16]) -> Result<Option<PathBuf>> {
    let devices = disks()?.into_iter().map(|name| Path::new("/dev").join(name));
    Ok(devices.into_iter().find(|device| identifier(device).is_some_and(|found| found == wanted)))
}

fn identifier(device: &Path) -> Option<Vec<u8>> {
    let mut block = [0; IDENTIFIER.end];
    File::open(device).ok()?.read_exact_at(&mut block, SUPERBLOCK).ok()?;
    block.starts_with(&MAGIC).then(|| block[IDENTIFIER].to_vec())
}

/// Disks and partitions that the kernel knows.
fn disks() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/partitions").context("list the disks")?;
    Ok(table.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect())
}
