//! Control groups: what they use, what they may use, and what they wait for.

use cgroups::{Controller, Group, Hierarchy};
use machine_api::ControlGroup;
use stdx::chain;
use sys::System;

use super::{ROWS, text};

pub(super) fn observe(system: &dyn System) -> Result<Vec<ControlGroup>, String> {
    let hierarchy = Hierarchy::detect(system).map_err(|error| chain(&error).to_string())?;
    let mut found = Vec::new();
    let mut left = vec![hierarchy.group("")];
    while let Some(group) = left.pop() {
        found.push(usage(system, &group));
        if found.len() == ROWS {
            break;
        }
        left.extend(group.children(system).into_iter().rev());
    }
    Ok(found)
}

#[allow(clippy::cast_precision_loss, reason = "seconds have few digits")]
fn usage(system: &dyn System, group: &Group) -> ControlGroup {
    let usage = group.usage(system);
    let file = |controller: Controller, name: &str| {
        group.folder(controller).map(|folder| text(system, folder.join(name))).unwrap_or_default()
    };
    // Of version 1, whose limits nobody sets are numbers near the largest.
    let limit = |name: &str| file(Controller::Memory, name).trim().parse::<u64>().ok().filter(|bytes| bytes >> 60 == 0);
    let pressure = |name: &str| parse_pressure(&file(Controller::Memory, name));
    ControlGroup {
        path: group.path().to_owned(),
        memory_bytes: usage.memory_bytes,
        working_set_bytes: usage.working_set_bytes,
        memory_limit_bytes: limit("memory.max").or_else(|| limit("memory.limit_in_bytes")),
        memory_kept_bytes: limit("memory.min").filter(|bytes| *bytes > 0),
        memory_kills: parse_kills(&file(Controller::Memory, "memory.events")),
        cpu_seconds: usage.cpu_nanos as f64 / 1e9,
        tasks: usage.pids,
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

/// The share of the last 10 s in which some task waited.
fn parse_pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

fn parse_kills(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn groups_are_told_from_the_root_down() {
        let system = FakeSystem::new();
        system.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        let put = |path: &str, content: &str| system.file(format!("/sys/fs/cgroup{path}"), content);
        for group in ["", "/init", "/services", "/services/etcd"] {
            put(&format!("{group}/cgroup.procs"), "");
        }
        put("/services/etcd/memory.current", "4096\n");
        put("/services/etcd/memory.max", "max\n");
        put("/services/etcd/memory.min", "1024\n");
        put("/services/etcd/memory.events", "low 0\noom 3\noom_kill 2\n");
        put("/services/etcd/cpu.stat", "usage_usec 2500000\n");
        put("/services/etcd/cpu.pressure", "some avg10=12.50 avg60=1.00 avg300=0.10 total=9\n");
        let found = observe(&system).unwrap();
        let paths: Vec<&str> = found.iter().map(|group| group.path.as_str()).collect();
        assert_eq!(paths, ["", "init", "services", "services/etcd"]);
        let expected = ControlGroup {
            path: "services/etcd".to_owned(),
            memory_bytes: 4096,
            working_set_bytes: 4096,
            memory_kept_bytes: Some(1024),
            memory_kills: 2,
            cpu_seconds: 2.5,
            cpu_pressure: Some(12.5),
            ..ControlGroup::default()
        };
        assert_eq!(found[3], expected);
        assert!(observe(&FakeSystem::new()).is_err());
    }
}
