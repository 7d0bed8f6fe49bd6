//! The first process of the initramfs: loads the modules that the root's file system needs, finds the root by its
//! identifier on whatever disk it is, mounts it read-only and hands over to the agent.
//!
//! It ends only by an error, at which the kernel stops with the reason on the console.

use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

const AGENT: &str = "/usr/bin/keelson";
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
        println!("keelson: cannot reach the root file system: {error:#}");
    }
}

fn run() -> Result<()> {
    let none = None::<&str>;
    mount(Some("dev"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, none).context("mount /dev")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID, none).context("mount /proc")?;
    let wanted = root_argument(&fs::read_to_string("/proc/cmdline").context("read the kernel's arguments")?)?;
    load_modules()?;
    let device = wait_for_root(&wanted)?;
    let flags = MsFlags::MS_RDONLY;
    mount(Some(&device), "/root", Some("erofs"), flags, none).with_context(|| format!("mount {}", device.display()))?;
    for path in ["/dev", "/proc"] {
        let target = format!("/root{path}");
        mount(Some(path), target.as_str(), none, MsFlags::MS_MOVE, none).with_context(|| format!("move {path}"))?;
    }
    // What stays in the initramfs stays in memory.
    fs::remove_file("/init").ok();
    fs::remove_dir_all("/modules").ok();
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

fn wait_for_root(wanted: &[u8; 16]) -> Result<PathBuf> {
    let start = Instant::now();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).context("watch devices")?;
    watch.add_watch("/dev", AddWatchFlags::IN_CREATE).context("watch devices")?;
    loop {
        if let Some(device) = find_root(wanted)? {
            return Ok(device);
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
