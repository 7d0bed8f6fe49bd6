//! Volumes for pods: what is known of them, and when they are looked for.
//!
//! ```text
//! a manifest, a disk that comes, a disk that was wiped ─▶ due ─▶ [`work`], in a thread ─▶ report: mounted, or why not
//! ```
//!
//! A disk may hang, so that the loop waits for none; a start waits a little, as it mostly takes no time. While a manifest is
//! tried nothing is looked for: what is made of a disk does not go back with the manifest.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use install::volume::place;
use install::{FileDevice, Purpose};
use machine_api::{Condition, EventKind, Stage, VolumeStatus};

use crate::environment::Environment;
use crate::machine::{Machine, Storage};
use crate::medium;

mod work;

use work::{Disks, Failure, Report, Task, work};

/// What a start waits for them: less than the shortest wait of a watchdog.
const START_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether the thread has come to its end.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// After so long what a disk would not do is tried again.
const AGAIN: Duration = Duration::from_secs(300);

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// Whether to look for them.
    is_due: bool,
    /// When to look again by itself.
    again: Option<Duration>,
    /// They are being looked for.
    working: Option<Receiver<Report>>,
    /// What came of that.
    report: Report,
}

impl Volumes {
    /// Something has come that they may depend on.
    pub(crate) fn wake(&mut self) {
        self.is_due = true;
    }

    /// A disk has come, gone, or changed.
    pub(crate) fn meet_disk(&mut self) {
        self.is_due |= !self.report.failed.is_empty();
    }

    /// Whether somebody is at work.
    pub(crate) fn is_working(&self) -> bool {
        self.working.is_some()
    }

    /// Those that there are.
    pub(crate) fn status(&self) -> impl Iterator<Item = VolumeStatus> {
        self.report.status.iter().cloned()
    }
}

/// Looks for those of the manifest that has just come into force. Waits a little where nothing runs yet that needs them.
pub(crate) fn settle(machine: &mut Machine) -> Vec<String> {
    machine.user_volumes.wake();
    if machine.stage != Stage::Running && begin(machine) {
        let report = machine.user_volumes.working.as_ref().map(|working| working.recv_timeout(START_WAIT));
        match report {
            Some(Ok(report)) => take(machine, report),
            Some(Err(RecvTimeoutError::Timeout)) => machine.say(
                EventKind::Waiting,
                "",
                "the disks of volumes take their time; the machine starts meanwhile, and pods that ask for them wait",
            ),
            Some(Err(RecvTimeoutError::Disconnected)) | None => {}
        }
    }
    Vec::new()
}

/// Goes on with what is due, or under way. Answers whether there is news.
pub(crate) fn tick(machine: &mut Machine) -> bool {
    match machine.user_volumes.working.as_ref().map(Receiver::try_recv) {
        Some(Ok(report)) => take(machine, report),
        Some(Err(TryRecvError::Empty)) => return false,
        Some(Err(TryRecvError::Disconnected)) => {
            machine.user_volumes.working = None;
            machine.fault("whoever looked for volumes came to no end");
        }
        None => return begin(machine),
    }
    true
}

/// Begins to look for them, if that is due and can be done. Answers whether it did.
fn begin(machine: &mut Machine) -> bool {
    let is_free = machine.trying.is_none() && machine.stage != Stage::Stopping && !machine.user_volumes.is_working();
    let is_possible = machine.environment == Environment::Machine && !machine.storage.is_unusable();
    let Some(accepted) = machine.accepted.as_ref().filter(|_| is_free && is_possible) else { return false };
    let now = machine.system.uptime();
    machine.user_volumes.is_due |= machine.user_volumes.again.is_some_and(|again| again <= now);
    if !std::mem::take(&mut machine.user_volumes.is_due) {
        return false;
    }
    let volumes = accepted.manifest.storage.volumes.clone();
    // Of a machine that has none it is not told what else its disks hold.
    if volumes.is_empty() && machine.user_volumes.report == Report::default() && !knows_any(machine) {
        return false;
    }
    let keeps = matches!(machine.storage, Storage::Kept | Storage::NoData(_) | Storage::NewerData(_));
    let task = Task {
        volumes,
        machine: machine.hostname.clone(),
        made: keeps.then(|| machine.config.paths.volumes()),
        seed: medium::seed(machine),
    };
    let (done, working) = mpsc::sync_channel(1);
    let system = machine.system.clone();
    let look = move || {
        let disks = Disks { open: &|path| Purpose::Look.open(path), claim: &FileDevice::claim };
        // Whoever waited may have given up.
        done.send(work(&*system, &task, &disks)).ok();
    };
    match std::thread::Builder::new().name("volumes".to_owned()).spawn(look) {
        Ok(_thread) => machine.user_volumes.working = Some(working),
        Err(error) => machine.fault(format!("volumes are not looked for: {error}")),
    }
    machine.user_volumes.is_working()
}

/// Whether the machine has ever had one.
fn knows_any(machine: &Machine) -> bool {
    machine.system.exists(&machine.config.paths.volumes())
}

fn take(machine: &mut Machine, report: Report) {
    machine.user_volumes.working = None;
    let is_worth_it = report.failed.iter().any(|failure| failure.may_pass);
    machine.user_volumes.again = is_worth_it.then(|| machine.system.uptime() + AGAIN);
    for (name, text) in &report.told {
        machine.say(EventKind::DiskPrepared, name, text.clone());
    }
    for failure in &report.faults {
        machine.fault(failure);
    }
    machine.user_volumes.report = report;
}

/// Those that are not to be had. The machine is ready all the same, unless a system on trial lacks one that was there
/// before.
pub(crate) fn conditions(machine: &Machine) -> Vec<Condition> {
    let (known, is_trial) = (&machine.user_volumes, machine.trial.is_some());
    let mut conditions: Vec<Condition> = Vec::new();
    for Failure { name, why, fix, was_made, .. } in &known.report.failed {
        let why = format!("the volume {name} is not mounted: {why}");
        let condition = Condition::new("VolumeNotMounted", why, fix.clone()).about(name);
        conditions.push(Condition { is_concern: !(is_trial && *was_made), ..condition });
    }
    for (name, why) in &known.report.remarks {
        let fix = "let the manifest name the disk that it is on; to have it on another one, move what it holds there, and \
                   wipe the one that it is on";
        let why = format!("the volume {name} is mounted, but {why}");
        conditions.push(Condition { is_concern: true, ..Condition::new("VolumeElsewhere", why, fix).about(name) });
    }
    let wanted = machine.accepted.iter().flat_map(|accepted| &accepted.manifest.storage.volumes);
    let is_looked_for = known.is_working() || known.is_due;
    let unknown = wanted.map(|volume| volume.name.as_str()).filter(|name| is_looked_for && !known.report.knows(name));
    for name in unknown {
        let why = format!("the volume {name} is not mounted yet: its disk is looked for, checked, or formatted");
        let condition =
            Condition::new("VolumeNotMounted", why, format!("it comes to {} by itself", place(name).display()));
        conditions.push(Condition { is_concern: !is_trial, ..condition.about(name) });
    }
    conditions
}

#[cfg(test)]
mod tests;
