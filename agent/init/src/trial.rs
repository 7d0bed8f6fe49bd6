//! A system that was just updated: it proves itself, or the one before it is started again.

use std::time::Duration;

use install::{Record, Trial, Verdict};
use machine_api::EventKind;
use supervisor::ServiceStatus;

use crate::conditions;
use crate::exit::Leave;
use crate::machine::{Machine, Storage};
use crate::state_format;

/// During a trial everything is looked at at least this often.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a machine has to prove itself where the kernel's command line does not say.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is lacking changes often while services start; each time costs a write to the disk.
const REMEMBER_EVERY: Duration = Duration::from_secs(3);

/// How long a system on trial has.
pub(crate) fn deadline(machine: &Machine) -> Duration {
    machine.command_line.trial.unwrap_or(DEADLINE)
}

/// At boot: what the last update came to, and whether this is a trial.
pub(crate) fn begin(machine: &mut Machine) -> Vec<String> {
    let Some(booted) = machine.booted.clone() else { return state_format::settle(machine) };
    let (own, entries) = match booted.open().and_then(|mut disk| disk.entries(booted.slot)) {
        Ok(found) => found,
        Err(error) => return vec![stdx::chain(&error).to_string()],
    };
    let path = machine.config.paths.update();
    let mut record = Record::load(&*machine.system, &path);
    let mut failures = Vec::new();
    if let Some(failure) = install::migrate::take_failure(&*machine.system, &machine.config.paths.state) {
        machine.say(
            EventKind::UpdateFailed,
            "",
            format!("STATE could not be read by the system before this one: {failure}"),
        );
        // That one had no place to write down anything else.
        if let Some(record) = record.as_mut().filter(|record| record.outcome.is_none()) {
            record.seen.get_or_insert(failure);
        }
    }
    let crash = machine.crash.as_deref();
    if let Some(judged) = record.as_ref().and_then(|record| install::judge(record, (own, &entries), crash)) {
        failures.extend(judged.store(&*machine.system, &path).err().map(|error| stdx::chain(&error).to_string()));
        record = Some(judged);
    }
    if let Some(record) = &record {
        machine.say(EventKind::Update, "", record.describe());
    }
    machine.update = record;
    if own.tries.is_some() {
        let deadline = deadline(machine);
        machine.say(
            EventKind::Update,
            "",
            format!("on trial: this system must be ready within {} s", deadline.as_secs()),
        );
        machine.trial = Some(Trial::new(own, deadline));
        remember(machine, "its agent has started");
    } else {
        failures.extend(state_format::settle(machine));
    }
    failures
}

/// Looks at the trial, if there is one. Answers whether to go back.
pub(crate) fn check(machine: &mut Machine, services: Vec<ServiceStatus>) -> Option<Leave> {
    let mut trial = machine.trial.take()?;
    if let Storage::Unfit(reason) | Storage::NewerData(reason) = machine.storage.clone() {
        // No time mends that.
        return Some(give_up(machine, &trial, &reason));
    }
    let unmet = conditions::grave(&conditions::observe(machine, &services));
    match trial.observe(machine.system.uptime(), &unmet) {
        Verdict::Wait(_) => {
            if !unmet.is_empty() {
                remember(machine, &unmet.join("; "));
            }
            machine.trial = Some(trial);
            None
        }
        Verdict::Good => {
            if let Err(error) = commit(machine, &trial) {
                // It may work the next time; until then the loader goes on counting.
                machine.say(
                    EventKind::UpdateFailed,
                    "",
                    format!("the update cannot be committed: {}", stdx::chain(&error)),
                );
                machine.trial = Some(trial);
            }
            None
        }
        Verdict::Bad { reason } => Some(give_up(machine, &trial, &reason)),
    }
}

fn commit(machine: &mut Machine, trial: &Trial) -> Result<(), install::Error> {
    let Some(booted) = machine.booted.clone() else { return Ok(()) };
    booted.open()?.commit(trial.entry)?;
    machine.say(EventKind::Update, "", "the update has proved itself and stays");
    conclude(machine, install::Outcome::Good);
    for failure in state_format::settle(machine) {
        machine.fault(&failure);
    }
    Ok(())
}

fn give_up(machine: &mut Machine, trial: &Trial, reason: &str) -> Leave {
    conclude(machine, install::Outcome::FellBack { reason: reason.to_owned() });
    let given_up = machine.booted.clone().map(|booted| booted.open()?.give_up(trial.entry));
    if let Some(Err(error)) = given_up {
        // The loader has counted this start, and gives it up by itself in the end.
        machine.say(
            EventKind::UpdateFailed,
            "",
            format!("the boot entry cannot be marked as bad: {}", stdx::chain(&error)),
        );
    }
    Leave::reboot(&format!("the update is taken back: {reason}"))
}

fn conclude(machine: &mut Machine, outcome: install::Outcome) {
    let Some(record) = machine.update.as_mut() else { return };
    record.outcome = Some(outcome);
    store(machine);
}

/// Keeps what the system on trial lacks, for the one that may have to tell why it was taken back.
fn remember(machine: &mut Machine, seen: &str) {
    let Some(record) = machine.update.as_mut() else { return };
    let now = machine.system.uptime();
    let is_soon = machine.remembered.is_some_and(|before| now < before + REMEMBER_EVERY);
    if record.outcome.is_some() || record.seen.as_deref() == Some(seen) || is_soon {
        return;
    }
    record.seen = Some(seen.to_owned());
    machine.remembered = Some(now);
    store(machine);
}

fn store(machine: &mut Machine) {
    let path = machine.config.paths.update();
    let stored = machine.update.as_ref().map(|record| record.store(&*machine.system, &path));
    if let Some(Err(error)) = stored {
        machine.fault(stdx::chain(&error).to_string());
    }
}
