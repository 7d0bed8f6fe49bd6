//! What this machine is and has, read from the kernel.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

/// What memory there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

/// What a file system holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) total: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The machine's architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

pub(crate) fn memory() -> Memory {
    parse_meminfo(&read("/proc/meminfo"))
}

fn parse_meminfo(text: &str) -> Memory {
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { total: kib("MemTotal:"), available: kib("MemAvailable:") }
}

pub(crate) fn disk(path: &Path) -> Disk {
    let Ok(stat) = statvfs(path) else { return Disk::default() };
    let block = stat.fragment_size();
    Disk {
        total: stat.blocks() * block,
        available: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_available(),
    }
}

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn kernel_release() -> String {
    uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

pub(crate) fn os_image() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned())
}

pub(crate) fn machine_id() -> String {
    read("/etc/machine-id")
}

pub(crate) fn system_uuid() -> String {
    let id = read("/sys/class/dmi/id/product_uuid");
    if id.is_empty() { machine_id() } else { id }
}

pub(crate) fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

/// Free process ids, where the kernel limits them.
pub(crate) fn free_pids() -> Option<u64> {
    let max: u64 = read("/proc/sys/kernel/pid_max").parse().ok()?;
    let load = read("/proc/loadavg");
    let used: u64 = load.split_whitespace().nth(3)?.split('/').nth(1)?.parse().ok()?;
    Some(max.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       1024 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\n";
        assert_eq!(parse_meminfo(text), Memory { total: 1 << 20, available: 1 << 19 });
    }
}
