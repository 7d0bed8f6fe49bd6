//! The boot phases, as tables: what happens in which order, and what went wrong in each.
//!
//! [`boot`] runs once. [`apply`] runs when a manifest is accepted, at boot or later out of maintenance. No phase ends
//! the boot: what fails is told and kept for the status, and the next phase runs.

use std::path::Path;
use std::time::Duration;

use machine_api::Phase;
use sys::UeventSocket;

use crate::cmdline::CommandLine;
use crate::environment::Environment;
use crate::groups::Groups;
use crate::intake::{Intake, decide};
use crate::machine::{Machine, Storage};
use crate::{crash, devices, locks, medium, mounts, settings, sources, storage, trial, watchdog};

/// How many files PID 1's children may open: etcd and containerd expect many.
const OPEN_FILES: u64 = 1_048_576;
/// How long a blank disk that was handed to us may take to appear. They are there at once, unless they hang on a slow
/// controller.
const DISK_WAIT: Duration = Duration::from_secs(5);
/// How long the disk to install to may take: a controller of many disks starts them one after another.
const TARGET_WAIT: Duration = Duration::from_secs(30);
/// A phase that took longer is worth a line.
const SLOW: Duration = Duration::from_millis(500);

/// One row of a table.
struct Row {
    name: &'static str,
    /// Runs on machines only.
    is_machine_only: bool,
    /// Does it and says in words what went wrong.
    work: fn(&mut Machine) -> Vec<String>,
}

const fn always(name: &'static str, work: fn(&mut Machine) -> Vec<String>) -> Row {
    Row { name, is_machine_only: false, work }
}

const fn machine_only(name: &'static str, work: fn(&mut Machine) -> Vec<String>) -> Row {
    Row { name, is_machine_only: true, work }
}

const BOOT: [Row; 15] = [
    always("mounts", mount),
    machine_only("console", take_console),
    machine_only("command line", read_command_line),
    machine_only("modules", load_modules),
    machine_only("watchdog", watchdog::begin),
    always("kernel parameters", set_parameters),
    machine_only("own disk", find_own_disk),
    machine_only("storage", find_storage),
    always("folders", make_folders),
    machine_only("keys", locks::settle),
    machine_only("crash", crash::collect),
    machine_only("update", trial::begin),
    always("control groups", prepare_groups),
    always("machine id", give_identity),
    always("manifest", take_manifest),
];

/// What is done again once STATE and DATA are there.
const FOUND: [Row; 6] = [
    always("folders", make_folders),
    machine_only("keys", locks::settle),
    machine_only("crash", crash::collect),
    machine_only("update", trial::begin),
    always("machine id", give_identity),
    always("manifest", take_manifest),
];

const APPLY: [Row; 3] = [
    machine_only("manifest's modules", load_manifest_modules),
    always("manifest's kernel parameters", set_manifest_parameters),
    always("names", set_names),
];

/// Brings the machine to where services can run.
pub(crate) fn boot(machine: &mut Machine) {
    let started = machine.system.uptime();
    run(machine, &BOOT);
    if machine.accepted.is_some() {
        apply(machine);
    }
    let took = machine.system.uptime().saturating_sub(started).as_secs_f64();
    machine.say(&format!("boot: {} phases in {took:.2} s", machine.phases.len()));
}

/// Makes the machine what its manifest says.
pub(crate) fn apply(machine: &mut Machine) {
    run(machine, &APPLY);
}

/// Looks for STATE and DATA again: something to open or to make them with has come. Answers whether they are there.
pub(crate) fn find_again(machine: &mut Machine) -> bool {
    run(machine, &[machine_only("storage", find_storage)]);
    machine.storage == Storage::Kept
}

/// What a start does once STATE and DATA are there, where they were not at first.
pub(crate) fn resume(machine: &mut Machine) {
    run(machine, &FOUND);
    if machine.accepted.is_some() {
        apply(machine);
    }
}

fn run(machine: &mut Machine, rows: &[Row]) {
    for row in rows {
        if row.is_machine_only && machine.environment == Environment::Container {
            continue;
        }
        let started = machine.system.uptime();
        let errors = (row.work)(machine);
        let took = machine.system.uptime().saturating_sub(started);
        for error in &errors {
            machine.say(&format!("{}: {error}", row.name));
        }
        if took >= SLOW {
            machine.say(&format!("{}: took {:.1} s", row.name, took.as_secs_f64()));
        }
        machine.phases.push(Phase {
            name: row.name.to_owned(),
            started_seconds: started.as_secs_f64(),
            took_seconds: took.as_secs_f64(),
            errors,
        });
    }
}

fn words(errors: impl IntoIterator<Item = sys::Error>) -> Vec<String> {
    errors.into_iter().map(|error| stdx::chain(&error).to_string()).collect()
}

fn mount(machine: &mut Machine) -> Vec<String> {
    let mut failures = mounts::apply(&*machine.system, machine.environment);
    let paths = &machine.config.paths;
    failures.extend(machine.system.make_dir(&paths.run, 0o755).err());
    failures.extend(machine.system.make_dir(&paths.inbox(), 0o700).err());
    failures.extend(machine.system.make_dir(&paths.conditions(), 0o755).err());
    let limit = machine.system.set_open_files_limit(OPEN_FILES);
    // A container's host may have set a lower one for good.
    failures.extend(limit.err().filter(|_| machine.environment == Environment::Machine));
    words(failures)
}

fn take_console(_machine: &mut Machine) -> Vec<String> {
    let mut failures = words(sys::redirect_stdio(Path::new("/dev/console")).err());
    failures.extend(words(sys::ignore_ctrl_alt_del_reboot().err()));
    failures
}

fn read_command_line(machine: &mut Machine) -> Vec<String> {
    let text = match machine.system.read(Path::new("/proc/cmdline")) {
        Ok(text) => text,
        Err(error) => return words([error]),
    };
    machine.command_line = CommandLine::parse(&String::from_utf8_lossy(&text));
    machine.command_line.unknown.iter().map(|word| format!("{word} means nothing")).collect()
}

fn load_modules(machine: &mut Machine) -> Vec<String> {
    // Before the first look at what is there, so that nothing is missed in between.
    let events = UeventSocket::listen();
    let mut failures = devices::load_modules(&*machine.system, &machine.config.paths.modules);
    machine.devices = events.map_err(|error| failures.extend(words([error]))).ok();
    failures
}

fn set_parameters(machine: &mut Machine) -> Vec<String> {
    words(settings::apply_defaults(&*machine.system, machine.environment))
}

fn find_storage(machine: &mut Machine) -> Vec<String> {
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
                failures.extend(words(storage::apply_memory(&*machine.system, &state, data).err()));
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
            machine.storage = match plan {
                storage::StoragePlan::Nothing => Storage::Memory,
                storage::StoragePlan::Separate { .. } | storage::StoragePlan::Together { .. } => {
                    Storage::Broken(reason.clone())
                }
            };
            let mut failures = vec![reason, "STATE and DATA are kept in memory and lost at the next start".to_owned()];
            if !was_waiting {
                failures.extend(words(storage::apply_memory(&*machine.system, &state, data).err()));
            }
            failures
        }
    }
}

fn find_own_disk(machine: &mut Machine) -> Vec<String> {
    machine.booted = install::Booted::observe(&*machine.system);
    if let Some(booted) = machine.booted.clone() {
        machine.say(&format!("slot {} of {}: version {}", booted.slot, booted.disk, booted.version));
        machine.on_esp = sources::from_esp(&booted);
    }
    Vec::new()
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
            install::Error::Luks { source: luks::Error::Locked(_) | luks::Error::NoPassphrase, .. } => {
                Storage::Locked(reason)
            }
            _ => Storage::Broken(reason),
        }
    };
    let offer = machine.offer();
    let told = offer.clone().and_then(|offer| manifest::check(&offer.source, &offer.text.ok()?).0);
    let sizes = storage::sizes(offer);
    let mut disk = booted.open().map_err(failed)?;
    let plan = install::rest::plan(disk.table(), &sizes, &medium::seed(machine)).map_err(failed)?;
    let is_state_fresh = plan.format.iter().any(|(number, _)| *number == plan.volumes.0);
    if is_state_fresh && told.is_none() {
        return Err(Storage::Unmade);
    }
    if let Some(table) = &plan.table {
        let names: Vec<&str> = table.partitions.values().map(|partition| partition.name.as_str()).collect();
        machine.say(&format!("first start from {}: its partitions become {}", booted.disk, names.join(", ")));
    }
    let (system, given) = (&*machine.system, &machine.given);
    let install = told.as_ref().map(|told| &told.install);
    let last_good = machine.config.paths.last_good();
    let wanted = |label: &str, state: Option<&install::rest::Volume>| {
        let remembered = state.and_then(|state| locks::remembered(system, state.device(), &last_good));
        let install = remembered.as_ref().map(|manifest| &manifest.install).or(install)?;
        locks::wanted(system, install, label, given)
    };
    let keys = install::rest::Keys {
        wanted: &wanted,
        given: &locks::keys(system, install, given),
        sealer: &luks::MachineTpm,
        scratch: &machine.config.paths.run,
    };
    let volumes = install::rest::apply(system, booted, &mut disk, (&plan, &keys)).map_err(failed)?;
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

fn make_folders(machine: &mut Machine) -> Vec<String> {
    words(storage::apply_folders(&*machine.system, &machine.config.paths.state, Path::new("/var")))
}

fn prepare_groups(machine: &mut Machine) -> Vec<String> {
    match Groups::prepare(&*machine.system) {
        Ok(groups) => {
            machine.groups = Some(groups);
            Vec::new()
        }
        Err(error) => vec![stdx::chain(&error).to_string()],
    }
}

fn give_identity(machine: &mut Machine) -> Vec<String> {
    words(settings::apply_machine_id(&*machine.system, &machine.config.paths).err())
}

fn take_manifest(machine: &mut Machine) -> Vec<String> {
    if machine.storage.is_waiting() {
        return wait_for_state(machine);
    }
    if let Some(offer) = machine.handed.take() {
        take(machine, decide(Some(offer), None));
        sources::supersede(machine);
        return Vec::new();
    }
    let offer = machine.sources().observe(&*machine.system);
    let last_good = sources::text_of(&*machine.system, &machine.config.paths.last_good()).ok();
    machine.offered.clone_from(&offer);
    let is_old = offer.as_ref().is_some_and(|it| sources::is_superseded(&*machine.system, &machine.config.paths, it));
    let newer = offer.clone().filter(|_| !is_old);
    let intake = match decide(newer, last_good) {
        Intake::None { .. } if is_old => decide(offer, None),
        intake => intake,
    };
    take(machine, intake);
    Vec::new()
}

/// No manifest counts before the one that worked last can be read. Whose network is used until then is no secret.
fn wait_for_state(machine: &mut Machine) -> Vec<String> {
    let offer = machine.offer();
    machine.offered.clone_from(&offer);
    match decide(offer, None) {
        Intake::Accepted(accepted) => {
            let mended = machine.config.paths.mended();
            machine.publish(&mended, accepted.text.as_bytes(), 0o600);
        }
        intake @ Intake::None { .. } if machine.storage == Storage::Unmade => take(machine, intake),
        Intake::None { .. } | Intake::LastGood { .. } => {}
    }
    Vec::new()
}

/// Puts a decision about manifests into force and tells it.
pub(crate) fn take(machine: &mut Machine, intake: Intake) {
    let (accepted, diagnostics) = match intake {
        Intake::Accepted(accepted) => (Some(*accepted), None),
        Intake::LastGood { accepted, diagnostics } => (Some(*accepted), diagnostics),
        Intake::None { diagnostics } => (None, Some(diagnostics)),
    };
    machine.diagnostics = diagnostics;
    let (run, last_good) = (machine.config.paths.run.clone(), machine.config.paths.last_good());
    if let Some(diagnostics) = machine.diagnostics.clone() {
        machine.say(&diagnostics);
        machine.publish(&run.join("diagnostics"), diagnostics.as_bytes(), 0o644);
    } else {
        machine.system.remove_file(&run.join("diagnostics")).ok();
    }
    if let Some(accepted) = accepted {
        machine.say(&format!("manifest: {} is in force", accepted.source));
        if !accepted.warnings.is_empty() {
            machine.say(&accepted.warnings);
        }
        // Both hold secrets.
        machine.publish(&machine.config.paths.manifest(), accepted.text.as_bytes(), 0o600);
        machine.publish(&last_good, accepted.text.as_bytes(), 0o600);
        machine.accepted = Some(accepted);
    }
}

fn load_manifest_modules(machine: &mut Machine) -> Vec<String> {
    let Some(accepted) = &machine.accepted else { return Vec::new() };
    settings::load_modules(&*machine.system, &accepted.manifest)
}

fn set_manifest_parameters(machine: &mut Machine) -> Vec<String> {
    let Some(accepted) = &machine.accepted else { return Vec::new() };
    words(settings::apply_sysctls(&*machine.system, machine.environment, &accepted.manifest))
}

fn set_names(machine: &mut Machine) -> Vec<String> {
    if let Some(accepted) = &machine.accepted {
        machine.hostname = accepted.manifest.machine.hostname.to_string();
    }
    words(settings::apply_names(&*machine.system, &machine.config.paths, &machine.hostname))
}
