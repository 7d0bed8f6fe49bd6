//! The first process of the initramfs: loads the modules that the root's file system needs and the drivers that the
//! machine's devices want, finds the root by its
//! identifier, lets the kernel check every block of it (dm-verity), mounts it read-only and hands over to the agent.
//!
//! It ends only by an error, at which the kernel stops with the reason on the console. If the root could not be reached
//! and there is a system before this one, the machine starts that from then on.

mod arguments;
mod drivers;
mod origin;
mod search;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use ::disk::OnDamage;
use anyhow::{Context, Result};
use install::{FileDevice, OwnDisk};
use nix::mount::{MsFlags, mount};

use crate::arguments::Wanted;
use crate::drivers::Drivers;
use crate::origin::Origin;

const AGENT: &str = "/usr/bin/keelson";
/// The name of the device that is checked as it is read.
const CHECKED: &str = "keelson-root";
/// What the kernel counts in, whatever the disk does.
const SECTOR_BYTES: u64 = 512;

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
    mount(Some("sys"), "/sys", Some("sysfs"), MsFlags::MS_NOSUID, none).context("mount /sys")?;
    let wanted = Wanted::parse(&fs::read_to_string("/proc/cmdline").context("read the kernel's arguments")?)?;
    let mut drivers = Drivers::load()?;
    let origin = Origin::observe();
    reach(&wanted, &origin, &mut drivers).inspect_err(|_why| go_back(&origin))?;
    hand_over()
}

/// Mounts the root.
fn reach(wanted: &Wanted, origin: &Origin, drivers: &mut Drivers) -> Result<()> {
    let found = search::wait_for_root(&wanted.id, origin, drivers)?;
    let device = check(wanted, &found, origin.on_damage())?;
    mount(Some(&device), "/root", Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
        .with_context(|| format!("mount {} of {}", device.display(), found.display()))
}

/// Lets the loader take the system before this one, as it does by itself with one on trial: nobody else would, and the
/// machine would never start again. The kernel leaves word of why.
fn go_back(origin: &Origin) {
    let Origin::Disk { partition, slot, is_trial: false } = origin else { return };
    let abandon = || {
        let disk = search::disk_with(partition)?.context("the disk that the loader was on is gone")?;
        let device = FileDevice::open(&disk).with_context(|| format!("open {}", disk.display()))?;
        Ok::<_, anyhow::Error>(OwnDisk::open(device)?.abandon(*slot)?)
    };
    tell(&match abandon() {
        Ok(before) => format!("keelson: the system of slot {slot} is abandoned; the next start takes {before}"),
        Err(error) => format!("keelson: there is no other system to start: {error:#}"),
    });
}

/// Makes the mounted root the root of all, and becomes its agent.
fn hand_over() -> Result<()> {
    let none = None::<&str>;
    for path in ["/dev", "/proc"] {
        let target = format!("/root{path}");
        mount(Some(path), target.as_str(), none, MsFlags::MS_MOVE, none).with_context(|| format!("move {path}"))?;
    }
    // What stays in the initramfs stays in memory.
    fs::remove_file("/init").ok();
    for folder in ["/usr", "/kernel"] {
        fs::remove_dir_all(folder).ok();
    }
    for mounted in [origin::VARIABLES, "/sys"] {
        nix::mount::umount(mounted).ok();
    }
    nix::unistd::chdir("/root").context("enter the root")?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move the root into place")?;
    nix::unistd::chroot(".").context("change the root")?;
    nix::unistd::chdir("/").context("enter the root")?;
    let arguments = [CString::new("keelson")?, CString::new("init")?];
    nix::unistd::execv(&CString::new(AGENT)?, &arguments).with_context(|| format!("execute {AGENT}"))?;
    Ok(())
}

/// The device to mount: the one that was found, with every block checked if the kernel's arguments say against what.
fn check(wanted: &Wanted, found: &Path, on_damage: OnDamage) -> Result<PathBuf> {
    let Some(verity) = &wanted.verity else { return Ok(found.to_owned()) };
    let mapping = sys::Mapping {
        name: CHECKED,
        sectors: verity.bytes() / SECTOR_BYTES,
        kind: "verity",
        parameters: &verity.parameters(&found.display().to_string(), &wanted.id, on_damage),
    };
    sys::map_read_only(&mapping).with_context(|| format!("check what is read from {}", found.display()))
}
