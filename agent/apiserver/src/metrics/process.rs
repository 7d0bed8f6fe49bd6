//! What the kernel says of this process.

use std::fs;

use super::Text;

/// Ticks per second in the kernel's tables: the same on all machines.
const TICKS: f64 = 100.0;

/// When the process was started, in seconds since 1970, if the kernel tells.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "a fraction of a second does not matter")]
pub fn process_start() -> Option<i64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let after = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok();
    started(after).map(|seconds| seconds as i64)
}

/// The time of a number of ticks after the start of the machine.
fn started(after: Option<f64>) -> Option<f64> {
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    Some(booted + after? / TICKS)
}

/// Writes the families of the process; those that cannot be read are left out.
pub(super) fn write(out: &mut Text) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        out.single(("process_cpu_seconds_total", "counter"), "Seconds on processors.", (user + system) / TICKS);
    }
    if let Some(started) = started(field(19)) {
        let name = ("process_start_time_seconds", "gauge");
        out.single(name, "When the process was started, since 1970.", started);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, name, help) in [
        ("VmRSS:", "process_resident_memory_bytes", "Memory that is in use."),
        ("VmSize:", "process_virtual_memory_bytes", "Memory that is mapped."),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        if let Some(kilobytes) = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok()) {
            out.single((name, "gauge"), help, kilobytes * 1024);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.single(("process_open_fds", "gauge"), "Open files and sockets.", open.count());
    }
}
