//! The file systems of a machine's disk, changed while it is off: what lies there is damaged, or filled up.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use disk::{Device, Table};
use images::tools;
use install::FileDevice;

use crate::flash::disk_of;

const TOOLS: &[tools::Tool] = &[("debugfs", "e2fsprogs")];
/// The file that takes all the room.
const BALLAST: &str = "ballast";

/// Overwrites the start of a partition: what tells of the file system, its root folder, and many of its files.
pub(crate) fn damage(folder: &Path, name: &str) -> Result<()> {
    const BYTES: usize = 8 << 20;
    let mut device = FileDevice::open(&disk_of(folder)).context("open the machine's disk")?;
    let start = start(&mut device, name)?;
    device.write_at(start, &vec![0xa5; BYTES]).and_then(|()| device.sync()).context("damage the partition")
}

/// Takes all the room in a partition's file system.
pub(crate) fn fill(folder: &Path, name: &str) -> Result<()> {
    let told = debugfs(folder, name, &["show_super_stats -h"])?;
    let free = told.lines().find_map(|line| line.strip_prefix("Free blocks:")).context("its room is not told")?;
    let free: u64 = free.trim().parse().context("its room is no number")?;
    // Some blocks go to what tells where the others are.
    let last = free.saturating_sub(free / 1000 + 16);
    debugfs(folder, name, &[&format!("write /dev/null {BALLAST}"), &format!("fallocate {BALLAST} 0 {last}")])?;
    let told = debugfs(folder, name, &["show_super_stats -h"])?;
    let left = told.lines().find_map(|line| line.strip_prefix("Free blocks:")).unwrap_or_default();
    let left: u64 = left.trim().parse().context("its room is no number")?;
    ensure!(left < free / 100, "{left} of {free} blocks are left");
    Ok(())
}

/// Puts something else in the place of a file.
pub(crate) fn replace(folder: &Path, name: &str, file: &str, content: impl AsRef<[u8]>) -> Result<()> {
    let other = folder.join("other");
    fs::write(&other, content).context("write what replaces a file")?;
    // It makes files where it is, and nowhere else.
    let (within, file) = file.rsplit_once('/').unwrap_or((".", file));
    let steps = [format!("cd {within}"), format!("rm {file}"), format!("write {} {file}", other.display())];
    debugfs(folder, name, &steps.each_ref().map(String::as_str)).map(drop)
}

fn start(device: &mut FileDevice, name: &str) -> Result<u64> {
    let table = Table::read(device)?;
    let (_, partition) = table.named(name).context("the disk has no such partition")?;
    Ok(partition.start())
}

/// Gives commands to e2fsprogs' debugger; what it says to the last of them.
fn debugfs(folder: &Path, name: &str, commands: &[&str]) -> Result<String> {
    tools::require(TOOLS)?;
    let path = disk_of(folder);
    let mut device = FileDevice::open_read_only(&path).context("open the machine's disk")?;
    let place = format!("{}?offset={}", path.display(), start(&mut device, name)?);
    let script = folder.join("debugfs.script");
    fs::write(&script, commands.join("\n") + "\n").context("write what is to be done")?;
    let mut command = tools::command("debugfs");
    tools::run(command.arg("-w").arg("-f").arg(&script).arg(place))
}
