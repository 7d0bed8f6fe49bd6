//! The watchdog: hardware that starts the machine again once its first process stands still.
//!
//! ```text
//! begin: one wait for all boot phases ─▶ settle: the manifest's, again at each turn of the loop ─▶ leave: one for the way out
//! ```
//!
//! It is petted by the loop alone: a thread for it would go on petting while everything else stands.

use std::path::Path;
use std::time::Duration;

use sys::{Error, ModuleIndex, Power, Watchdog};

use crate::machine::Machine;
use crate::trial;

const DEVICE: &str = "/dev/watchdog0";
/// What its driver tells about it.
const FACTS: &str = "/sys/class/watchdog/watchdog0";
/// The kernel's own, by a timer: better than none where there is no hardware, but no help against a kernel that hangs.
const SUBSTITUTE: &str = "softdog";
/// The bit of the state at boot that says that the watchdog has started the machine: `WDIOF_CARDRESET`.
const WAS_RESET: u32 = 0x20;
/// It is petted so many times within its timeout...
const PETS: u32 = 8;
/// ... and the loop turns at least so often.
const TURNS: u32 = 4;
/// What the firmware gets after the latest end of the way out.
const AFTER_EXIT: Duration = Duration::from_secs(30);
/// Where there is no manifest.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A watchdog that runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    device: Watchdog,
    timeout: Duration,
    petted: Duration,
}

impl Keeper {
    /// How long the loop may wait for something to happen.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.timeout / TURNS
    }
}

/// At boot: opens it and gives all phases together as long as an updated system has to prove itself.
pub(crate) fn begin(machine: &mut Machine) -> Vec<String> {
    let system = machine.system.clone();
    let facts = Path::new(FACTS);
    let mut failures = Vec::new();
    if !system.exists(facts) {
        failures.extend(ModuleIndex::read(&*system).load(&*system, SUBSTITUTE, "").err());
    }
    let state = system.read(&facts.join("bootstatus")).unwrap_or_default();
    if was_reset(&String::from_utf8_lossy(&state)) {
        machine.crash = Some("the machine stood still, and its watchdog started it again".to_owned());
    }
    match Watchdog::open(Path::new(DEVICE)) {
        Ok(device) => {
            let now = system.uptime();
            machine.keeper = Some(Keeper { device, timeout: TIMEOUT, petted: now });
            failures.extend(set(machine, trial::deadline(machine)));
        }
        Err(error) => failures.push(error),
    }
    failures.iter().map(|error| stdx::chain(error).to_string()).collect()
}

/// The loop begins to turn.
pub(crate) fn settle(machine: &mut Machine) {
    let wanted = machine.accepted.as_ref().map(|accepted| accepted.manifest.machine.watchdog.duration());
    if let Some(error) = set(machine, wanted.unwrap_or(TIMEOUT)) {
        machine.fault(stdx::chain(&error).to_string());
    }
}

/// The loop has turned.
pub(crate) fn pet(machine: &mut Machine) {
    let now = machine.system.uptime();
    let Some(keeper) = machine.keeper.as_mut().filter(|keeper| is_due(keeper.petted, keeper.timeout, now)) else {
        return;
    };
    keeper.petted = now;
    // What cannot be petted starts the machine again, as it must.
    keeper.device.pet().ok();
}

/// The way out has begun, which takes at most so long.
pub(crate) fn leave(machine: &mut Machine, longest: Duration) {
    set(machine, longest + AFTER_EXIT);
}

/// All is written down. A machine that is to stay off must not be started again.
pub(crate) fn end(machine: &mut Machine, power: Power) {
    match power {
        Power::Off | Power::Halt => drop(machine.keeper.take().map(|keeper| keeper.device.disarm())),
        Power::Reboot => {}
    }
}

fn set(machine: &mut Machine, timeout: Duration) -> Option<Error> {
    let now = machine.system.uptime();
    let keeper = machine.keeper.as_mut()?;
    let set = keeper.device.set_timeout(timeout).map(|taken| keeper.timeout = taken);
    keeper.petted = now;
    set.err()
}

fn is_due(petted: Duration, timeout: Duration, now: Duration) -> bool {
    now.saturating_sub(petted) >= timeout / PETS
}

fn was_reset(state: &str) -> bool {
    state.trim().parse::<u32>().is_ok_and(|state| state & WAS_RESET != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_waits_as_long_as_it_may_pets_in_time() {
        let timeout = Duration::from_secs(10);
        let waited = timeout / TURNS;
        assert!(is_due(Duration::ZERO, timeout, waited));
        assert!(waited * 2 < timeout);
        assert!(!is_due(Duration::from_secs(3), timeout, Duration::from_secs(4)));
    }

    #[test]
    fn the_state_at_boot_tells_of_a_reset() {
        assert!(was_reset("32\n") && was_reset("33"));
        assert!(!was_reset("0\n") && !was_reset(""));
    }
}
