//! File systems of a machine's disks: made, or changed while it is off. What lies there is damaged, or filled up.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use disk::{Device, Table, Window};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use images::tools;
use install::FileDevice;

use crate::flash::disk_of;

const TOOLS: &[tools::Tool] = &[("debugfs", "e2fsprogs")];
const DISC_TOOLS: &[tools::Tool] = &[("xorriso", "xorriso")];
/// The file that takes all the room.
const BALLAST: &str = "ballast";

/// Makes a disk with a file system of this label that has these files, such as a person makes on a stick.
pub(crate) fn make(path: &Path, label: &str, files: &[(&str, &str)]) -> Result<()> {
    const BYTES: u64 = 64 << 20;
    let mut name = [b' '; 11];
    name.iter_mut().zip(label.bytes()).for_each(|(place, byte)| *place = byte);
    let mut device = FileDevice::create(path, BYTES).with_context(|| format!("make {}", path.display()))?;
    fatfs::format_volume(Window::new(&mut device, 0, BYTES), FormatVolumeOptions::new().volume_label(name))
        .context("make its files")?;
    let volume =
        FileSystem::new(Window::new(&mut device, 0, BYTES), FsOptions::new()).context("open what was just made")?;
    for (name, text) in files {
        let mut file = volume.root_dir().create_file(name).with_context(|| format!("make {name}"))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {name}"))?;
    }
    volume.unmount().context("write the disk")
}

/// The name and the content of the first file on such a disk whose name begins so.
pub(crate) fn find(path: &Path, beginning: &str) -> Result<(String, Vec<u8>)> {
    let mut device = FileDevice::open(path).with_context(|| format!("open {}", path.display()))?;
    let bytes = device.bytes();
    let volume = FileSystem::new(Window::new(&mut device, 0, bytes), FsOptions::new()).context("read its files")?;
    let files = volume.root_dir().iter().collect::<std::io::Result<Vec<_>>>().context("list its files")?;
    let names: Vec<String> = files.iter().map(fatfs::DirEntry::file_name).collect();
    let found = files.iter().find(|file| file.file_name().starts_with(beginning));
    let found = found.with_context(|| format!("no file begins with {beginning}, there are {}", names.join(", ")))?;
    let mut content = Vec::new();
    found.to_file().read_to_end(&mut content).with_context(|| format!("read {}", found.file_name()))?;
    Ok((found.file_name(), content))
}

/// Makes an optical medium of this label with these files, as clouds attach them.
pub(crate) fn burn(path: &Path, label: &str, files: &[(&str, &str)]) -> Result<()> {
    tools::require(DISC_TOOLS)?;
    let folder = path.with_extension("files");
    fs::create_dir_all(&folder).context("make room for a disc's files")?;
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    let mut command = tools::command("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-joliet", "-rock", "-volid", label, "-output"]).arg(path).arg(&folder);
    tools::run(&mut command).context("make a disc").map(drop)
}

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
