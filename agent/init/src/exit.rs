//! The one way out: stop the services, end what is left, unmount, sync, power off or start again. Bounded.
//!
//! ```text
//! services, each EACH at most, and first of all ─▶ the rest: SIGTERM, ─▶ sync ─▶ unmount ─▶ sync ─▶ power
//! the node's, which ends pods, and gets the grace  SIGKILL     │           └──────────┴── what hangs is left behind
//!                                                              └── what does not end is left behind
//! ```
//!
//! What is left behind is told, and kept with this start for the next one to tell. Disks that are slow but get on are
//! waited for in addition.

mod patience;
mod processes;
mod unmount;
mod waiting;

use std::time::Duration;

use machine_api::{EventKind, Stage};
use supervisor::Input;
use sys::{Power, System};

use crate::environment::Environment;
use crate::machine::{Machine, Storage};
use crate::run::{Ears, publish, turn};
use crate::runner::Runner;
use crate::{boots, extensions, mend, state_format, watchdog};
use patience::{Guard, Patience};
use waiting::Waiting;

/// What the services get, together, beside the grace for pods...
const SERVICES: Duration = Duration::from_millis(4500);
/// ... and each of them.
const EACH: Duration = Duration::from_secs(3);
/// What pods get after they were asked to end, where neither the manifest nor whoever wants the end says more.
const GRACE: Duration = Duration::from_secs(5);
/// What is left of all that is for processes that are no service's, which may be pods that nobody ended; but no less.
const LEAST: Duration = Duration::from_millis(500);
/// What the kernel gets to end what was killed.
const KILLED: Duration = Duration::from_secs(2);
/// What mounts and disks that hang get, together.
const HANGING: Duration = Duration::from_secs(2);
/// Then the machine goes down whatever is left.
const LAST: Duration = Duration::from_millis(500);
/// Kept until the way out has come to its end.
const UNFINISHED: &str = "the way out itself, which did not come to its end";

/// How to end, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leave {
    power: Power,
    why: String,
    /// What pods get to end, if that was said.
    grace: Option<Duration>,
}

impl Leave {
    pub(crate) fn power_off(why: &str) -> Self {
        Self { power: Power::Off, why: why.to_owned(), grace: None }
    }

    pub(crate) fn reboot(why: &str) -> Self {
        Self { power: Power::Reboot, ..Self::power_off(why) }
    }

    /// The same, with so much time for pods.
    pub(crate) fn with_grace(self, grace: Option<Duration>) -> Self {
        Self { grace, ..self }
    }

    /// What a signal asks for, if it asks for the end: SIGINT comes from Ctrl-Alt-Del.
    pub(crate) fn by_signal(signal: &str) -> Option<Self> {
        match signal {
            "SIGTERM" | "SIGPWR" | "SIGUSR2" => Some(Self::power_off(&format!("{signal} was received"))),
            "SIGINT" => Some(Self::reboot("SIGINT or Ctrl-Alt-Del was received")),
            "SIGUSR1" => Some(Self { power: Power::Halt, ..Self::power_off("SIGUSR1 was received") }),
            _ => None,
        }
    }

    /// What pods get: as was said, or as the manifest says.
    fn grace(&self, machine: &Machine) -> Duration {
        let of_manifest = || Some(machine.accepted.as_ref()?.manifest.machine.shutdown_grace.duration());
        self.grace.or_else(of_manifest).unwrap_or(GRACE)
    }
}

/// The longest that a way out takes, beside disks that are slow but get on.
const fn longest(grace: Duration) -> Duration {
    SERVICES
        .saturating_add(grace)
        .saturating_add(LEAST)
        .saturating_add(KILLED)
        .saturating_add(HANGING)
        .saturating_add(LAST)
}

/// Ends the machine, or the container.
pub(crate) fn leave(machine: &mut Machine, runner: &mut Runner, ears: &mut Ears, how: Leave) -> ! {
    mend::close(machine, "the machine ends");
    machine.say(EventKind::Stopping, "", format!("stopping: {}", how.why));
    machine.stage = Stage::Stopping;
    extensions::prove(machine);
    let grace = how.grace(machine);
    watchdog::leave(machine, longest(grace));
    let (system, environment) = (machine.system.clone(), machine.environment);
    let guard = Guard::set(longest(grace), move || end(&*system, environment, how.power));
    let mut patience = Patience::new(HANGING, guard);
    let started = machine.system.uptime();
    // Most of it is written while the services end.
    drop(patience.begin(machine, "sync", |system| system.sync()));
    let until = started + SERVICES + grace;
    stop_services(machine, runner, ears, (grace, until));
    let rest = until.saturating_sub(machine.system.uptime()).clamp(LEAST, grace.max(LEAST));
    let mut left = processes::end(machine, runner, rest);
    let left_so_far: Vec<String> = left.iter().cloned().chain([UNFINISHED.to_owned()]).collect();
    conclude(machine, runner, &how, &left_so_far);
    // What is told from here on is on no disk, but for what is left behind, which the next start tells.
    machine.say(EventKind::Stopped, "", format!("what ran was ended in {:.1} s", since(machine, started)));
    runner.keep_events(machine);
    runner.close_logs();
    left.extend(write_down(machine, &mut patience));
    if machine.environment == Environment::Machine {
        let state = machine.config.paths.state.clone();
        left.extend(unmount::all_but(machine, &mut patience, &state));
        unmount::devices(machine, &mut patience);
        conclude(machine, runner, &how, &left);
        if let Some(unread) = hand_over(machine, &mut patience) {
            left.push(unread);
            conclude(machine, runner, &how, &left);
        }
        unmount::one(machine, &mut patience, &state);
        write_down(machine, &mut patience);
    } else {
        conclude(machine, runner, &how, &left);
    }
    let took = since(machine, started);
    machine.show(&format!("stopped in {took:.1} s"));
    watchdog::end(machine, how.power);
    end(&*machine.system, machine.environment, how.power)
}

fn since(machine: &Machine, started: Duration) -> f64 {
    machine.system.uptime().saturating_sub(started).as_secs_f64()
}

fn end(system: &dyn System, environment: Environment, power: Power) -> ! {
    if environment == Environment::Machine {
        drop(system.power(power));
        // The kernel refused. Ending the first process stops the machine, too, with a message.
    }
    std::process::exit(0)
}

fn stop_services(machine: &mut Machine, runner: &mut Runner, ears: &mut Ears, (pods, until): (Duration, Duration)) {
    // Who ends pods reads it, and would leave them alone otherwise, as when it starts anew.
    let ending = machine.config.paths.ending();
    machine.publish(&ending, pods.as_millis().to_string().as_bytes(), 0o644);
    runner.step(machine, Input::StopAll { within: EACH, pods });
    let mut waiting = Waiting::default();
    while !runner.supervisor().is_stopped() && machine.system.uptime() < until {
        // Whoever follows the events is there until its service ends.
        runner.keep_events(machine);
        // A process that hangs in the kernel does not end, and nothing tells so.
        let left = until.saturating_sub(machine.system.uptime());
        turn(machine, runner, ears, left.min(waiting::EVERY));
        publish(machine, runner);
        for event in waiting.news(machine.system.uptime(), &runner.supervisor().status()) {
            machine.tell(event);
        }
    }
    if !runner.supervisor().is_stopped() {
        let alive = runner.supervisor().alive().join(", ");
        machine.say(EventKind::LeftBehind, "", format!("not stopped in time: {alive}"));
    }
}

fn conclude(machine: &mut Machine, runner: &Runner, how: &Leave, left: &[String]) {
    boots::conclude(machine, runner.supervisor().status(), &how.why, left);
}

/// Leaves STATE as the next system reads it. Answers what is to be told by the next start if it may not be able to.
fn hand_over(machine: &mut Machine, patience: &mut Patience) -> Option<String> {
    let is_there = matches!(machine.storage, Storage::Kept | Storage::NoData(_) | Storage::NewerData(_));
    let booted = machine.booted.clone().filter(|_| is_there)?;
    let state = machine.config.paths.state.clone();
    let done = patience.give(machine, "STATE", move |system| state_format::hand_over(system, &booted, &state));
    let (told, left) = match done {
        Some(Ok(None)) => return None,
        Some(Ok(Some(format))) => (format!("the next system finds it in format {format}"), None),
        Some(Err(reason)) => {
            let left = format!("STATE, which an older system may not be able to read ({reason})");
            (format!("the next system may not be able to read it: {reason}"), Some(left))
        }
        // Nor would it take a word about that.
        None => ("the next system may not be able to read it: a disk hangs".to_owned(), None),
    };
    machine.show(&format!("STATE: {told}"));
    left
}

/// Writes everything to the disks, but does not wait for one that takes nothing. Answers what is not written.
fn write_down(machine: &mut Machine, patience: &mut Patience) -> Option<String> {
    if patience.give(machine, "sync", |system| system.sync()).is_some() {
        return None;
    }
    let left = format!("{} kB that a disk does not take", patience::unwritten(&*machine.system));
    machine.say(EventKind::LeftBehind, "", format!("left behind: {left}"));
    Some(left)
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
    fn the_way_out_is_shorter_than_fifteen_seconds_unless_pods_get_more() {
        assert!(longest(GRACE) < Duration::from_secs(15));
        assert_eq!(longest(Duration::from_secs(60)) - longest(GRACE), Duration::from_secs(55));
    }
}
