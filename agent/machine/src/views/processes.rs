//! Processes.

use machine_api::Process;
use sys::System;

use super::{ROWS, pids, text};
use crate::redact::Secrets;

/// The kernel tells times in these parts of a second, on every architecture.
const TICKS: f64 = 100.0;
/// The unit of resident memory.
const PAGE_BYTES: u64 = 4096;
/// Arguments beyond this are cut.
const COMMAND_BYTES: usize = 4096;

pub(super) fn observe(system: &dyn System, secrets: &Secrets) -> Vec<Process> {
    pids(system).into_iter().filter_map(|pid| process(system, pid, secrets)).take(ROWS).collect()
}

/// One of them; `None` if it ended meanwhile.
fn process(system: &dyn System, pid: u32, secrets: &Secrets) -> Option<Process> {
    let mut process = parse_stat(pid, &text(system, format!("/proc/{pid}/stat")))?;
    let words = text(system, format!("/proc/{pid}/cmdline"));
    let words: Vec<&str> = words.split('\0').filter(|word| !word.is_empty()).collect();
    if !words.is_empty() {
        let mut command = secrets.redact(&words.join(" "));
        command.truncate((0..=COMMAND_BYTES).rev().find(|at| command.is_char_boundary(*at)).unwrap_or(0));
        process.command = command;
    }
    process.group = parse_group(&text(system, format!("/proc/{pid}/cgroup")));
    Some(process)
}

/// The line of numbers; the name, in parentheses, may hold anything.
#[allow(clippy::cast_precision_loss, reason = "times have few digits")]
fn parse_stat(pid: u32, stat: &str) -> Option<Process> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of them is the third of proc(5).
    let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: u32::try_from(number(4)?).ok()?,
        state: (*fields.first()?).to_owned(),
        threads: u32::try_from(number(20)?).ok()?,
        cpu_seconds: (number(14)? + number(15)?) as f64 / TICKS,
        resident_bytes: number(24)? * PAGE_BYTES,
        started_seconds: number(22)? as f64 / TICKS,
        group: String::new(),
        command: format!("[{name}]"),
    })
}

/// The one of version 2, or that which counts memory.
fn parse_group(text: &str) -> String {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let unified = lines().find(|(controllers, path)| controllers.is_empty() && *path != "/");
    let memory = || lines().find(|(controllers, _)| controllers.split(',').any(|it| it == "memory"));
    unified.or_else(memory).map_or_else(|| "/".to_owned(), |(_, path)| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn processes_are_read_whatever_they_are_called() {
        let system = FakeSystem::new();
        let rest = "S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 12 0 2345 1000000 256 18446744073709551615";
        system.file("/proc/7/stat", format!("7 (a) (b) {rest}\n"));
        system.file("/proc/7/cmdline", "/usr/bin/x\0--token\0abcdef.0123456789abcdef\0");
        system.file("/proc/7/cgroup", "0::/services/x\n");
        system.file("/proc/2/stat", format!("2 (kthreadd) {rest}\n"));
        system.file("/proc/2/cgroup", "4:cpu:/a\n3:memory,x:/b\n0::/\n");
        system.file("/proc/9/stat", "9 (cut) S 1");
        system.file("/proc/meminfo", "");
        let found = observe(&system, &Secrets::default());
        let expected = Process {
            pid: 7,
            parent: 1,
            state: "S".to_owned(),
            threads: 12,
            cpu_seconds: 2.0,
            resident_bytes: 1 << 20,
            started_seconds: 23.45,
            group: "/services/x".to_owned(),
            command: "/usr/bin/x --token abcdef.<redacted>".to_owned(),
        };
        assert_eq!(found[1], expected);
        assert_eq!((found[0].command.as_str(), found[0].group.as_str(), found.len()), ("[kthreadd]", "/b", 2));
    }
}
