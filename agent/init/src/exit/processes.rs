//! The processes that are no service's: of pods, and orphans.

use std::path::{Path, PathBuf};
use std::time::Duration;

use machine_api::EventKind;
use sys::{Signal, System};

use super::KILLED;
use crate::machine::Machine;
use crate::runner::Runner;
use crate::watchdog;

/// Processes that are not our children end without a signal to us, so they are counted now and then.
const STEP: Duration = Duration::from_millis(100);
/// The kernel's mark of its own threads: `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// So many are told by name.
const NAMED: usize = 20;

/// Asks all of them to end, and ends what does not within the grace. Answers what the kernel does not end.
pub(super) fn end(machine: &mut Machine, runner: &mut Runner, grace: Duration) -> Vec<String> {
    for (signal, time) in [(Signal::Terminate, grace), (Signal::Kill, KILLED)] {
        let left = others(&*machine.system);
        if !left.is_empty() {
            let within = time.as_secs_f64();
            machine.say(
                EventKind::ProcessesEnding,
                "",
                format!("ending {} more processes within {within:.0} s ({signal:?})", left.len()),
            );
            runner.keep_events(machine);
            machine.system.kill_all(signal);
            wait(machine, runner, time);
        }
    }
    let left = others(&*machine.system);
    let mut names: Vec<String> = left.iter().take(NAMED).map(Process::describe).collect();
    names.extend((left.len() > NAMED).then(|| format!("{} more processes", left.len() - NAMED)));
    if !names.is_empty() {
        machine.say(EventKind::LeftBehind, "", format!("left behind: {}", names.join(", ")));
    }
    names
}

fn wait(machine: &mut Machine, runner: &mut Runner, time: Duration) {
    let until = machine.system.uptime() + time;
    while !others(&*machine.system).is_empty() && machine.system.uptime() < until {
        drop(sys::wait_readable(&[], STEP));
        watchdog::pet(machine);
        runner.reap(machine);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
    state: char,
    flags: u64,
}

impl Process {
    /// Reads what the kernel tells without waiting for the process: asked for its command line, one that hangs would
    /// let us hang, too.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        // The name may hold anything.
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let flags = fields.nth(5)?.parse().ok()?;
        Some(Self { pid: pid.parse().ok()?, name: name.to_owned(), state, flags })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') && self.flags & KERNEL_THREAD == 0
    }

    fn describe(&self) -> String {
        let hangs = if self.state == 'D' { ", hangs in the kernel" } else { "" };
        format!("process {} ({}{hangs})", self.pid, self.name)
    }
}

/// Processes besides this one that are none of the kernel's and not dead.
fn others(system: &dyn System) -> Vec<Process> {
    let names = system.list(Path::new("/proc")).unwrap_or_default();
    let pids = names.iter().filter_map(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1);
    let stats = pids.filter_map(|pid| system.read(&PathBuf::from(format!("/proc/{pid}/stat"))).ok());
    stats.filter_map(|stat| Process::parse(&String::from_utf8_lossy(&stat))).filter(Process::is_alive).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_are_neither_kernel_threads_nor_the_dead() {
        let system = sys::FakeSystem::new();
        let stats = [
            (1, "init", 'S', 0x0040_0100_u64),
            (2, "kthreadd", 'S', 0x0020_8040),
            (7, "rbd) map D 1 (x", 'D', 0x0040_0100),
            (8, "gone", 'Z', 0x0040_0100),
            (9, "sleep", 'S', 0x0040_0000),
        ];
        for (pid, name, state, flags) in stats {
            let stat = format!("{pid} ({name}) {state} 1 2 3 4 -1 {flags} 0 0\n");
            system.file(format!("/proc/{pid}/stat"), stat);
        }
        let told: Vec<String> = others(&system).iter().map(Process::describe).collect();
        assert_eq!(told, ["process 7 (rbd) map D 1 (x, hangs in the kernel)", "process 9 (sleep)"]);
        assert_eq!(Process::parse("9 (short) S 1"), None);
    }
}
