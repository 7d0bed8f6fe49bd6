//! A medium that the machine was started from to be installed elsewhere: it is, and the machine starts from there.

use std::path::Path;

use disk::layout::{ESP_NAME, INSTALLED, Sizes};
use install::onto::{self, OntoPlan};
use install::{Booted, Error, FileDevice, select};
use machine_api::EventKind;

use crate::exit::Leave;
use crate::machine::Machine;
use crate::sources::Offer;
use crate::storage;

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
    let Ok(text) = offer.text.clone() else { return Ok(Outcome::Stays) };
    let Some(wanted) = manifest::check(&offer.source, &text).0.map(|manifest| manifest.install) else {
        return Ok(Outcome::Stays);
    };
    let Some(selector) = wanted.disk else { return Ok(Outcome::Stays) };
    let mut source = booted.open()?;
    let esp = source.table().named(ESP_NAME).map_or(0, |(_, esp)| esp.attributes);
    let devices = sys::block_devices(&*machine.system);
    let is_own = |device: &sys::BlockDevice| device.name == booted.disk && select::is_named(device, &selector);
    if esp & INSTALLED != 0 || devices.iter().any(is_own) {
        return Ok(Outcome::Stays);
    }
    let facts = select::choose(&devices, &booted.disk, &selector)?;
    let sizes = storage::sizes(Some(offer));
    let path = facts.path();
    let mut target = FileDevice::open(&path).map_err(|source| Error::Open { path: path.clone(), source })?;
    let contents = onto::observe(&mut target, facts)?;
    match onto::plan(&contents, facts, (&sizes, &seed(machine)), wanted.wipe)? {
        OntoPlan::Nothing => Ok(Outcome::WasInstalled(format!(
            "{} is installed; take the medium {} out, or let the firmware start from the disk",
            path.display(),
            booted.disk
        ))),
        OntoPlan::Write(table) => {
            machine.say(
                EventKind::DiskPrepared,
                &facts.name,
                describe(&select::describe(facts), &booted.disk, &table, &sizes),
            );
            onto::apply((&mut source, booted.slot), &mut target, &table, text.as_bytes())?;
            Ok(Outcome::Installed(Leave::reboot(&format!("{} is installed", path.display()))))
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

/// The plan, for people.
fn describe(target: &str, medium: &str, table: &disk::Table, sizes: &Sizes) -> String {
    let part = |partition: &disk::Partition| format!("{} {} MiB", partition.name, partition.bytes() >> 20);
    let parts: Vec<String> = table.partitions.values().map(part).collect();
    let rest = if sizes.data.is_none() { " (the rest)" } else { "" };
    format!("installing from {medium} to {target}: {}{rest}; everything on it is overwritten", parts.join(", "))
}

/// What no other disk's identifiers are made from.
pub(crate) fn seed(machine: &Machine) -> Vec<u8> {
    machine.system.read(Path::new("/proc/sys/kernel/random/uuid")).unwrap_or_default()
}
