//! The one way out: stop the services, end what is left, unmount, sync, power off or start again. Bounded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use machine_api::Stage;
use supervisor::Event;
use sys::{Power, Signal, System, UnmountFlags};

use crate::environment::Environment;
use crate::machine::Machine;
use crate::run::{Ears, publish, turn};
use crate::runner::Runner;
use crate::{boots, mounts, watchdog};

/// After this long the machine goes down whatever is left.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// What the services get of it, together.
const SERVICES: Duration = Duration::from_secs(50);
/// What containers and orphans get after they were asked to end.
const LEFTOVERS: Duration = Duration::from_secs(10);
/// What the kernel gets to end what was killed.
const KILLED: Duration = Duration::from_secs(5);
/// What the disks get to write everything down.
const SYNC: Duration = Duration::from_secs(15);

/// How to end, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leave {
    power: Power,
    why: String,
}

impl Leave {
    pub(crate) fn power_off(why: &str) -> Self {
        Self { power: Power::Off, why: why.to_owned() }
    }

    pub(crate) fn reboot(why: &str) -> Self {
        Self { power: Power::Reboot, why: why.to_owned() }
    }

    /// What a signal asks for, if it asks for the end: SIGINT comes from Ctrl-Alt-Del.
    pub(crate) fn by_signal(signal: &str) -> Option<Self> {
        match signal {
            "SIGTERM" | "SIGPWR" | "SIGUSR2" => Some(Self::power_off(&format!("{signal} was received"))),
            "SIGINT" => Some(Self::reboot("SIGINT or Ctrl-Alt-Del was received")),
            "SIGUSR1" => Some(Self { power: Power::Halt, why: "SIGUSR1 was received".to_owned() }),
            _ => None,
        }
    }
}

/// Ends the machine, or the container.
pub(crate) fn leave(machine: &mut Machine, runner: &mut Runner, ears: &mut Ears, how: Leave) -> ! {
    machine.say(&format!("stopping: {}", how.why));
    machine.stage = Stage::Stopping;
    watchdog::leave(machine);
    guard(machine.system.clone(), machine.environment, how.power);
    let started = machine.system.uptime();
    stop_services(machine, runner, ears, started + SERVICES);
    for (signal, time) in [(Signal::Terminate, LEFTOVERS), (Signal::Kill, KILLED)] {
        let left = others(&*machine.system);
        if !left.is_empty() {
            machine.say(&format!("ending {} more processes ({signal:?})", left.len()));
            machine.system.kill_all(signal);
            wait_for_others(machine, runner, time);
        }
    }
    boots::conclude(machine, runner.supervisor().status(), &how.why);
    runner.keep_said(machine);
    runner.close_logs();
    sync(machine);
    if machine.environment == Environment::Machine {
        unmount(machine);
        sync(machine);
    }
    let took = machine.system.uptime().saturating_sub(started).as_secs_f64();
    machine.say(&format!("stopped in {took:.1} s"));
    watchdog::end(machine, how.power);
    end(&*machine.system, machine.environment, how.power)
}

/// Ends everything in time even if something below hangs in the kernel.
fn guard(system: Arc<dyn System>, environment: Environment, power: Power) {
    let started = std::thread::Builder::new().name("exit-guard".to_owned()).spawn(move || {
        let (_never, silence) = mpsc::channel::<()>();
        silence.recv_timeout(DEADLINE).ok();
        end(&*system, environment, power)
    });
    drop(started);
}

fn end(system: &dyn System, environment: Environment, power: Power) -> ! {
    if environment == Environment::Machine {
        drop(system.power(power));
        // The kernel refused. Ending the first process stops the machine, too, with a message.
    }
    std::process::exit(0)
}

fn stop_services(machine: &mut Machine, runner: &mut Runner, ears: &mut Ears, until: Duration) {
    runner.step(machine, Event::StopAll);
    while !runner.supervisor().is_stopped() && machine.system.uptime() < until {
        turn(machine, runner, ears);
        publish(machine, runner);
    }
    if !runner.supervisor().is_stopped() {
        let alive = runner.supervisor().alive().join(", ");
        machine.say(&format!("not stopped in time: {alive}"));
    }
}

fn wait_for_others(machine: &mut Machine, runner: &mut Runner, time: Duration) {
    /// Processes that are not our children end without a signal to us, so they are counted now and then.
    const STEP: Duration = Duration::from_millis(100);
    let until = machine.system.uptime() + time;
    while !others(&*machine.system).is_empty() && machine.system.uptime() < until {
        drop(sys::wait_readable(&[], STEP));
        runner.reap(machine);
    }
}

/// Processes besides this one; kernel threads and dead ones have no command line.
fn others(system: &dyn System) -> Vec<u32> {
    let names = system.list(Path::new("/proc")).unwrap_or_default();
    let pids = names.iter().filter_map(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1);
    pids.filter(|pid| system.read(&PathBuf::from(format!("/proc/{pid}/cmdline"))).is_ok_and(|line| !line.is_empty()))
        .collect()
}

/// Takes away every mount that may hold data, the last one first. A busy one is at least detached, and told.
fn unmount(machine: &mut Machine) {
    for target in to_unmount(&mounts::mounted(&*machine.system)) {
        let Err(error) = machine.system.unmount(&target, UnmountFlags::Plain) else { continue };
        machine.say(&format!("{}; detaching it", stdx::chain(&error)));
        machine.system.unmount(&target, UnmountFlags::Lazy).ok();
    }
}

fn to_unmount(mounted: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    // Deeper ones come later in the order of paths.
    let kept = ["/proc", "/sys", "/dev", "/run", "/tmp"].map(Path::new);
    let holds_data = |path: &&PathBuf| !kept.contains(&path.as_path()) && !is_below(path, &kept[..3]);
    mounted.iter().rev().filter(holds_data).cloned().collect()
}

fn is_below(path: &Path, folders: &[&Path]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

/// Writes everything down, but does not wait for a dead disk.
fn sync(machine: &mut Machine) {
    let (done, waiting) = mpsc::channel::<()>();
    let system = machine.system.clone();
    let started = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        system.sync();
        done.send(()).ok();
    });
    if started.is_err() {
        machine.system.sync();
    } else if waiting.recv_timeout(SYNC).is_err() {
        machine.say(&format!("the disks did not take everything within {} s", SYNC.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_a_meaning() {
        assert_eq!(Leave::by_signal("SIGTERM").unwrap().power, Power::Off);
        assert_eq!(Leave::by_signal("SIGINT").unwrap().power, Power::Reboot);
        assert_eq!(Leave::by_signal("SIGCHLD"), None);
    }

    #[test]
    fn the_deepest_mounts_go_first_and_the_kernels_stay() {
        let all = ["/proc", "/sys/fs/cgroup", "/dev/pts", "/run", "/run/keelson-disk", "/var", "/var/lib/kubelet/x"];
        let mounted = all.iter().map(PathBuf::from).collect();
        let expected = ["/var/lib/kubelet/x", "/var", "/run/keelson-disk"].map(PathBuf::from);
        assert_eq!(to_unmount(&mounted), expected);
    }
}
