//! Another manifest for a machine that runs: what can count at once does, everything else waits for the next start.
//!
//! One that is tried is in force, but not the one that the next start begins with; unless somebody keeps it, the one
//! before is back after a while, whatever becomes of the machine meanwhile.

use std::time::Duration;

use manifest::Impact;
use supervisor::{Event, ServiceState};

use crate::intake::Accepted;
use crate::machine::Machine;
use crate::runner::Runner;
use crate::{phases, sources, watchdog};

/// A manifest that is tried.
#[derive(Clone, Debug)]
pub(crate) struct Trying {
    /// Until when.
    pub(crate) until: Duration,
    /// The one before.
    before: Accepted,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing is different.
    Nothing,
    /// It counts now, once these services have started anew.
    Now(Vec<&'static str>),
    /// It counts from the next start, because of this key.
    Later(String),
}

fn plan(before: &str, after: &str) -> Plan {
    let mut services = Vec::new();
    let changes = manifest::diff(before, after);
    for change in &changes {
        match change.impact {
            Impact::Live | Impact::Later(_) => {}
            Impact::Restart(names) => services.extend(names),
            Impact::Reboot => return Plan::Later(change.key.clone()),
        }
    }
    services.sort_unstable();
    services.dedup();
    if changes.is_empty() { Plan::Nothing } else { Plan::Now(services) }
}

/// Takes another manifest in, to keep it or to try it for a while.
pub(crate) fn take(machine: &mut Machine, runner: &mut Runner, accepted: Accepted, trial: Option<Duration>) {
    let Some(current) = machine.accepted.clone() else { return };
    machine.diagnostics = None;
    match (plan(&current.text, &accepted.text), trial) {
        (Plan::Nothing, None) => {
            // Perhaps it is tried, or another one was to count from the next start.
            let is_known = machine.trying.take().is_none() && machine.pending.is_none();
            if !is_known || accepted.text != current.text {
                keep(machine, &accepted);
            }
        }
        (Plan::Nothing, Some(_)) => {}
        (Plan::Now(services), None) => {
            machine.trying = None;
            keep(machine, &accepted);
            put_in_force(machine, runner, accepted, &services);
        }
        (Plan::Now(services), Some(time)) => {
            let before = machine.trying.as_ref().map_or(current, |trying| trying.before.clone());
            if let Plan::Later(key) = plan(&accepted.text, &before.text) {
                machine
                    .say(&format!("manifest: {} is not tried: {key} goes back with a new start only", accepted.source));
                return;
            }
            machine.trying = Some(Trying { until: machine.system.uptime() + time, before });
            machine.say(&format!("manifest: {} is tried for {} s", accepted.source, time.as_secs()));
            put_in_force(machine, runner, accepted, &services);
        }
        (Plan::Later(key), None) => {
            keep(machine, &accepted);
            let told = format!("{} is good and counts from the next start, because of {key}", accepted.source);
            machine.say(&format!("manifest: {told}"));
            machine.pending = Some(told);
        }
        (Plan::Later(key), Some(_)) => {
            machine.say(&format!("manifest: {} is not tried: {key} needs a new start", accepted.source));
        }
    }
}

/// The one that is tried is kept.
pub(crate) fn keep_tried(machine: &mut Machine) {
    if machine.trying.take().is_some()
        && let Some(accepted) = machine.accepted.clone()
    {
        keep(machine, &accepted);
        machine.rekey.wake();
        machine.say("manifest: the one that was tried is kept");
    }
}

/// Time has passed: goes on with services that start anew, and back to the manifest before one that nobody kept.
pub(crate) fn tick(machine: &mut Machine, runner: &mut Runner) {
    if machine.trying.as_ref().is_some_and(|trying| trying.until <= machine.system.uptime())
        && let (Some(trying), Some(current)) = (machine.trying.take(), machine.accepted.clone())
    {
        if let Plan::Now(services) = plan(&current.text, &trying.before.text) {
            put_in_force(machine, runner, trying.before, &services);
        }
        machine.say("manifest: nobody kept the one that was tried, and the one before is back");
    }
    go_on(machine, runner);
}

/// Writes down what the next start begins with.
fn keep(machine: &mut Machine, accepted: &Accepted) {
    machine.pending = None;
    let last_good = machine.config.paths.last_good();
    machine.publish(&last_good, accepted.text.as_bytes(), 0o600);
    sources::remember_fetched(machine);
    // Where it came from otherwise is still there at the next start, and must not win over this one.
    sources::supersede(machine);
}

fn put_in_force(machine: &mut Machine, runner: &mut Runner, accepted: Accepted, services: &[&'static str]) {
    machine.publish(&machine.config.paths.manifest(), accepted.text.as_bytes(), 0o600);
    machine.say(&format!("manifest: {} is in force", accepted.source));
    machine.accepted = Some(accepted);
    machine.rekey.wake();
    runner.touch();
    phases::apply(machine);
    watchdog::settle(machine);
    for name in services {
        if runner.supervisor().state(name).is_some() && !machine.renewals.iter().any(|known| known == name) {
            machine.renewals.push((*name).to_owned());
        }
    }
    go_on(machine, runner);
}

/// Starts services anew: those that do something once first, and the others when that is done.
fn go_on(machine: &mut Machine, runner: &mut Runner) {
    if machine.renewals.is_empty() || machine.preparing.iter().any(|name| !is_done(runner, name)) {
        return;
    }
    machine.preparing.clear();
    let all = std::mem::take(&mut machine.renewals);
    let (first, rest): (Vec<String>, Vec<String>) = all.into_iter().partition(|name| is_done(runner, name));
    let now = if first.is_empty() {
        rest
    } else {
        machine.preparing.clone_from(&first);
        machine.renewals = rest;
        first
    };
    for name in now {
        machine.say(&format!("{name} starts anew, for the manifest"));
        runner.step(machine, Event::Restart { name });
    }
}

fn is_done(runner: &Runner, name: &str) -> bool {
    matches!(runner.supervisor().state(name), Some(ServiceState::Done { .. }) | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_needs_a_start_holds_all_others_back() {
        let text = |labels: &str, rest: &str| {
            format!(
                "version = 1\n[machine]\nhostname = \"m1\"\nlabels = {{ {labels} }}\n[kubelet]\nmax-pods = 5\n{rest}"
            )
        };
        let before = text("a = \"1\"", "");
        assert_eq!(plan(&before, &before), Plan::Nothing);
        assert_eq!(plan(&before, &text("a = \"2\"", "[sysctls]\n\"vm.x\" = 1\n")), Plan::Now(vec!["node"]));
        let both = text("a = \"2\"", "").replace("m1", "m2");
        assert_eq!(plan(&before, &both), Plan::Later("machine.hostname".to_owned()));
    }
}
