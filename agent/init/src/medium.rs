//! A medium that the machine was started from to be installed elsewhere: it is, and the machine starts from there.

use std::path::Path;

use install::{Booted, Error, Proposal, Purpose, Target, onto};
use machine_api::EventKind;

use crate::exit::Leave;
use crate::machine::Machine;
use crate::sources::Offer;

/// What became of it.
pub(crate) enum Outcome {
    /// Nothing is to be installed: the machine runs from what it was started from.
    Stays,
    /// All is done; the machine has to start again.
    Installed(Leave),
    /// It was done before.
    WasInstalled(String),
}

/// Why nothing runs any more from a medium that has done its work.
pub(crate) const INSTALLED_REASON: &str = "the machine starts again from the disk that it was installed to";
/// Why nothing runs from a medium that cannot be written.
pub(crate) const NOWHERE: &str = "the machine was started from a medium that cannot be written, and its manifest names \
                                  no disk to install it to: set install.disk";

/// Installs, if the manifest that is offered names another disk than the one that the machine was started from.
pub(crate) fn install(machine: &mut Machine, booted: &Booted, offer: Option<Offer>) -> Result<Outcome, Error> {
    let Some(offer) = offer else { return Ok(Outcome::Stays) };
    let Ok(text) = offer.text else { return Ok(Outcome::Stays) };
    let Some(wanted) = manifest::check(&offer.source, &text).0.map(|manifest| manifest.install) else {
        return Ok(Outcome::Stays);
    };
    let proposal = install::propose(&*machine.system, booted, &wanted, (&seed(machine), Purpose::Write))?;
    if let Some(disk) = proposal.disk() {
        for step in proposal.steps(booted, &wanted)? {
            machine.say(EventKind::DiskPrepared, &disk.name, format!("installation: {step}"));
        }
    }
    match proposal {
        Proposal::Stays(_) => Ok(Outcome::Stays),
        Proposal::Installed(disk) => Ok(Outcome::WasInstalled(format!(
            "{} is installed; take the medium {} out, or let the firmware start from the disk",
            disk.path().display(),
            booted.disk
        ))),
        Proposal::Write(target) => {
            let Target { mut source, disk, mut device, table, .. } = *target;
            onto::apply((&mut source, booted.slot), &mut device, &table, text.as_bytes())?;
            Ok(Outcome::Installed(Leave::reboot(&format!("{} is installed", disk.path().display()))))
        }
    }
}

/// The same once a machine that had no manifest has been given one. Answers what keeps it from running, if anything does.
pub(crate) fn install_later(machine: &mut Machine) -> Option<String> {
    let booted = machine.booted.clone()?;
    let accepted = machine.accepted.as_ref()?;
    let offer = Offer { source: accepted.source.clone(), text: Ok(accepted.text.clone()) };
    match install(machine, &booted, Some(offer)) {
        Ok(Outcome::Stays) => booted.is_read_only.then(|| NOWHERE.to_owned()),
        Ok(Outcome::WasInstalled(reason)) => Some(reason),
        Ok(Outcome::Installed(leave)) => {
            machine.leave = Some(leave);
            Some(INSTALLED_REASON.to_owned())
        }
        Err(error) => Some(format!("nothing is installed: {}", stdx::chain(&error))),
    }
}

/// What no other disk's identifiers are made from.
pub(crate) fn seed(machine: &Machine) -> Vec<u8> {
    machine.system.read(Path::new("/proc/sys/kernel/random/uuid")).unwrap_or_default()
}
