//! The boot phase that finds STATE and DATA, makes them or opens them, and mounts them.

use std::path::Path;
use std::time::Duration;

use luks::Given;
use machine_api::EventKind;
use tang::Asked;

use crate::machine::{Machine, Storage};
use crate::{devices, locks, medium, network_keys, sources, storage};

/// How long a blank disk that was handed to us may take to appear. They are there at once, unless they hang on a slow
/// controller.
const DISK_WAIT: Duration = Duration::from_secs(5);
/// How long the disk to install to may take: a controller of many disks starts them one after another.
const TARGET_WAIT: Duration = Duration::from_secs(30);

/// Where they cannot be had they are in memory, and [`Machine::storage`] says why.
pub(crate) fn find_storage(machine: &mut Machine) -> Vec<String> {
    let (state, data) = (machine.config.paths.state.clone(), Path::new("/var"));
    let was_waiting = machine.storage.is_waiting();
    let planned = match machine.booted.clone() {
        Some(booted) => own_storage(machine, &booted),
        None => Ok(wait_for_disks(machine)),
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(storage) => {
            let mut failures = storage.words();
            machine.storage = storage;
            if !was_waiting {
                failures.extend(in_memory(&*machine.system, &[&state, data], data));
            }
            return failures;
        }
    };
    match storage::apply(&*machine.system, &plan, &state, data) {
        Ok(()) => {
            machine.storage = Storage::Kept;
            Vec::new()
        }
        Err(error) => {
            let reason = stdx::chain(&error).to_string();
            let mut lost: Vec<&Path> = vec![&state, data];
            machine.storage = match (plan, error) {
                (storage::StoragePlan::Nothing, _) => Storage::Memory,
                (_, storage::StorageError::Data(_)) => {
                    lost.remove(0);
                    Storage::NoData(reason.clone())
                }
                (_, storage::StorageError::Newer { .. }) => {
                    lost.remove(0);
                    Storage::NewerData(reason.clone())
                }
                _ => Storage::Broken(reason.clone()),
            };
            let what: Vec<String> = lost.iter().map(|target| target.display().to_string()).collect();
            let told = format!("{} in memory, and forgotten at the next start", what.join(" and "));
            let mut failures = vec![reason, told];
            // What waited has them in memory already.
            if !was_waiting {
                failures.extend(in_memory(&*machine.system, &lost, data));
            }
            failures
        }
    }
}

fn in_memory(system: &dyn sys::System, targets: &[&Path], data: &Path) -> Vec<String> {
    let failures = targets.iter().filter_map(|target| storage::apply_memory(system, target, data).err());
    failures.map(|error| stdx::chain(&error).to_string()).collect()
}

/// STATE and DATA of the disk that the machine was started from, unless it is there to be installed elsewhere.
fn own_storage(machine: &mut Machine, booted: &install::Booted) -> Result<storage::StoragePlan, Storage> {
    let words = |error: install::Error| stdx::chain(&error).to_string();
    let offer = machine.offer();
    let outcome = install(machine, booted, offer);
    let outcome = outcome.map_err(|error| Storage::Broken(format!("nothing is installed: {}", words(error))))?;
    match outcome {
        medium::Outcome::Stays if booted.is_read_only => Err(Storage::Broken(medium::NOWHERE.to_owned())),
        medium::Outcome::Stays => make_rest(machine, booted),
        medium::Outcome::WasInstalled(reason) => Err(Storage::Broken(reason)),
        medium::Outcome::Installed(leave) => {
            machine.leave = Some(leave);
            Err(Storage::Broken(medium::INSTALLED_REASON.to_owned()))
        }
    }
}

/// Installs if that is asked for, as soon as the disk to install to is there.
fn install(
    machine: &mut Machine,
    booted: &install::Booted,
    offer: Option<sources::Offer>,
) -> Result<medium::Outcome, install::Error> {
    let end = machine.system.uptime() + TARGET_WAIT;
    loop {
        let outcome = medium::install(machine, booted, offer.clone());
        let left = end.saturating_sub(machine.system.uptime());
        match (&outcome, &machine.devices) {
            (Err(error), Some(events)) if error.is_for_want_of_a_disk() && !left.is_zero() => {
                devices::wait(&*machine.system, events, left);
            }
            _ => return outcome,
        }
    }
}

/// Makes, or finishes, the partitions that a flashed disk does not come with, and opens what is encrypted. A machine
/// without a manifest makes nothing: how large they are, and who opens them, is said there.
fn make_rest(machine: &mut Machine, booted: &install::Booted) -> Result<storage::StoragePlan, Storage> {
    let failed = |error: install::Error| {
        let reason = stdx::chain(&error).to_string();
        match error {
            install::Error::Luks {
                source: luks::Error::Locked(_) | luks::Error::NoPassphrase | luks::Error::NoNetworkKey(_),
                ..
            } => Storage::Locked(reason),
            _ => Storage::Broken(reason),
        }
    };
    let offer = machine.offer();
    network_keys::ask(machine, Asked::default());
    let told = offer
        .clone()
        .and_then(|offer| locks::search(&*machine.system).check(&offer.source, &offer.text.ok()?).manifest);
    let sizes = storage::sizes(offer);
    let mut disk = booted.open().map_err(failed)?;
    let plan = install::rest::plan(disk.table(), &sizes, &medium::seed(machine)).map_err(failed)?;
    let is_state_fresh = plan.format.iter().any(|(number, _)| *number == plan.volumes.0);
    if is_state_fresh && told.is_none() {
        return Err(Storage::Unmade);
    }
    if let Some(table) = &plan.table {
        let names: Vec<&str> = table.partitions.values().map(|partition| partition.name.as_str()).collect();
        machine.say(
            EventKind::DiskPrepared,
            &booted.disk,
            format!("first start from {}: its partitions become {}", booted.disk, names.join(", ")),
        );
    }
    let system = &*machine.system;
    let install = told.as_ref().map(|told| &told.install);
    let last_good = machine.config.paths.last_good();
    let wanted = |label: &str, state: Option<&install::rest::Volume>| {
        let remembered = state.and_then(|state| locks::remembered(system, state.device(), &last_good));
        let install = remembered.as_ref().map(|manifest| &manifest.install).or(install)?;
        locks::wanted(install, label, (&machine.given, &machine.fetched))
    };
    let told = locks::keys(install, &machine.given);
    let keys = install::rest::Keys {
        wanted: &wanted,
        given: Given { keys: &told, fetched: &machine.fetched },
        sealer: &luks::MachineTpm,
        scratch: &machine.config.paths.run,
    };
    let volumes = match install::rest::apply(system, booted, &mut disk, (&plan, &keys)) {
        Ok(volumes) => volumes,
        Err(error) => {
            let closed = [(disk::layout::STATE_NAME, plan.volumes.0), (disk::layout::DATA_NAME, plan.volumes.1)];
            let closed = closed.into_iter().filter(|(label, _)| plan.format.iter().all(|(_, fresh)| fresh != label));
            let closed: Vec<_> = closed.map(|(label, number)| (label, booted.partition(number))).collect();
            let asked = network_keys::lacking(machine, &error, &closed);
            network_keys::ask(machine, asked);
            return Err(failed(error));
        }
    };
    let (state, data) = (volumes.state.device().to_owned(), volumes.data.device().to_owned());
    machine.volumes = Some(volumes);
    Ok(storage::StoragePlan::Separate { state, data })
}

/// Looks at the disks again whenever one appears, until there is one for us.
fn wait_for_disks(machine: &Machine) -> storage::StoragePlan {
    let system = &*machine.system;
    let end = system.uptime() + DISK_WAIT;
    loop {
        let plan = storage::plan(&sys::block_devices(system));
        let left = end.saturating_sub(system.uptime());
        let Some(events) =
            machine.devices.as_ref().filter(|_| plan == storage::StoragePlan::Nothing && !left.is_zero())
        else {
            return plan;
        };
        devices::wait(system, events, left);
    }
}
