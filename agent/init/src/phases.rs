//! The boot phases, as tables: what happens in which order, and what went wrong in each.
//!
//! [`boot`] runs once. [`apply`] runs when a manifest is accepted, at boot or later out of maintenance. No phase ends
//! the boot: what fails is told and kept for the status, and the next phase runs.

use std::path::Path;
use std::time::Duration;

use machine_api::{EventKind, Phase};
use sys::UeventSocket;

use crate::cmdline::CommandLine;
use crate::environment::Environment;
use crate::groups::Groups;
use crate::intake::{Intake, decide};
use crate::machine::{Machine, Storage};
use crate::{
    crash, devices, extensions, find, locks, mend, mounts, settings, sources, state_format, storage, trial, volumes,
    watchdog,
};

/// How many files PID 1's children may open: etcd and containerd expect many.
const OPEN_FILES: u64 = 1_048_576;
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

const BOOT: [Row; 17] = [
    always("mounts", mount),
    machine_only("console", take_console),
    machine_only("command line", read_command_line),
    machine_only("modules", load_modules),
    machine_only("watchdog", watchdog::begin),
    always("kernel parameters", set_parameters),
    machine_only("own disk", find_own_disk),
    machine_only("storage", find::find_storage),
    always("format of STATE", state_format::bring),
    always("folders", make_folders),
    machine_only("extensions", extensions::lay),
    machine_only("keys", locks::settle),
    machine_only("crash", crash::collect),
    machine_only("update", trial::begin),
    always("control groups", prepare_groups),
    always("machine id", give_identity),
    always("manifest", take_manifest),
];

/// What is done again once STATE and DATA are there.
const FOUND: [Row; 8] = [
    always("format of STATE", state_format::bring),
    always("folders", make_folders),
    machine_only("extensions", extensions::lay),
    machine_only("keys", locks::settle),
    machine_only("crash", crash::collect),
    machine_only("update", trial::begin),
    always("machine id", give_identity),
    always("manifest", take_manifest),
];

const APPLY: [Row; 4] = [
    machine_only("manifest's modules", load_manifest_modules),
    always("manifest's kernel parameters", set_manifest_parameters),
    always("names", set_names),
    machine_only("volumes", volumes::settle),
];

/// Brings the machine to where services can run.
pub(crate) fn boot(machine: &mut Machine) {
    let started = machine.system.uptime();
    run(machine, &BOOT);
    if machine.accepted.is_some() {
        apply(machine);
    }
    // Of the start before, where what lies in /run outlives it, as in a container.
    machine.system.remove_file(&machine.config.paths.ending()).ok();
    let took = machine.system.uptime().saturating_sub(started).as_secs_f64();
    machine.say(EventKind::Booted, "", format!("boot: {} phases in {took:.2} s", machine.phases.len()));
}

/// Makes the machine what its manifest says.
pub(crate) fn apply(machine: &mut Machine) {
    run(machine, &APPLY);
}

/// Looks for STATE and DATA again: something to open or to make them with has come. Answers whether they are there.
pub(crate) fn find_again(machine: &mut Machine) -> bool {
    run(machine, &[machine_only("storage", find::find_storage)]);
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
            machine.say(EventKind::PhaseFailed, row.name, format!("{}: {error}", row.name));
        }
        if took >= SLOW {
            machine.say(EventKind::PhaseSlow, row.name, format!("{}: took {:.1} s", row.name, took.as_secs_f64()));
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
    // In a container that starts again it may still be there.
    machine.system.remove_file(&paths.mended()).ok();
    failures.extend(machine.system.make_dir(&paths.inbox(), 0o700).err());
    failures.extend(machine.system.make_dir(&paths.conditions(), 0o755).err());
    failures.extend(machine.system.make_dir(&paths.network_keys(), 0o700).err());
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

fn find_own_disk(machine: &mut Machine) -> Vec<String> {
    machine.booted = install::Booted::observe(&*machine.system);
    if let Some(booted) = machine.booted.clone() {
        machine.say(
            EventKind::SystemStarted,
            &booted.version,
            format!("slot {} of {}: version {}", booted.slot, booted.disk, booted.version),
        );
        machine.on_esp = sources::from_esp(&booted);
    }
    Vec::new()
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

pub(crate) fn take_manifest(machine: &mut Machine) -> Vec<String> {
    if machine.storage.is_waiting() {
        return wait_for_state(machine);
    }
    if let Some(offer) = machine.handed.take() {
        let intake = decide(Some(offer), None, machine.search());
        take(machine, intake);
        sources::supersede(machine);
        return Vec::new();
    }
    if let Some(address) = machine.sources().unfetched(&*machine.system) {
        machine.publish(&machine.config.paths.manifest_url(), address.as_bytes(), 0o600);
    }
    let offer = machine.sources().observe(&*machine.system);
    let last_good = sources::text_of(&*machine.system, &machine.config.paths.last_good()).ok();
    machine.offered.clone_from(&offer);
    let is_old = offer.as_ref().is_some_and(|it| sources::is_superseded(&*machine.system, &machine.config.paths, it));
    let newer = offer.clone().filter(|_| !is_old);
    let intake = match decide(newer, last_good, machine.search()) {
        Intake::None { .. } if is_old => decide(offer, None, machine.search()),
        intake => intake,
    };
    take(machine, intake);
    Vec::new()
}

/// No manifest counts before the one that worked last can be read. Whose network is used until then is no secret.
fn wait_for_state(machine: &mut Machine) -> Vec<String> {
    let offer = machine.offer();
    machine.offered.clone_from(&offer);
    match decide(offer, None, machine.search()) {
        Intake::Accepted(accepted) => {
            machine.publish_secrets(&accepted);
            mend::keep(machine, Some(accepted.text));
        }
        intake @ Intake::None { .. } if machine.storage == Storage::Unmade => take(machine, intake),
        Intake::None { .. } | Intake::LastGood { .. } | Intake::Foreign { .. } => {}
    }
    Vec::new()
}

/// Leaves only the network of the manifest in force: the keys by which callers are known are gone with STATE, and whoever
/// looks after the machine has to reach it all the same.
pub(crate) fn conceal(machine: &mut Machine) {
    let Some(accepted) = machine.accepted.clone() else { return };
    machine.publish_secrets(&accepted);
    mend::keep(machine, Some(accepted.text));
    machine.system.remove_file(&machine.config.paths.manifest()).ok();
}

/// Puts a decision about manifests into force and tells it.
pub(crate) fn take(machine: &mut Machine, intake: Intake) {
    machine.foreign = None;
    let (accepted, diagnostics) = match intake {
        Intake::Accepted(accepted) => (Some(*accepted), None),
        Intake::Foreign { accepted, why } => {
            machine.refuse(why);
            (Some(*accepted), None)
        }
        Intake::LastGood { accepted, diagnostics } => (Some(*accepted), diagnostics),
        Intake::None { diagnostics } => (None, Some(diagnostics)),
    };
    machine.diagnostics = diagnostics;
    let (run, last_good) = (machine.config.paths.run.clone(), machine.config.paths.last_good());
    if let Some(diagnostics) = machine.diagnostics.clone() {
        machine.say(EventKind::ManifestWrong, "", &diagnostics);
        machine.publish(&run.join("diagnostics"), diagnostics.as_bytes(), 0o644);
    } else {
        machine.system.remove_file(&run.join("diagnostics")).ok();
    }
    if let Some(accepted) = accepted {
        machine.say(EventKind::ManifestInForce, &accepted.source, format!("manifest: {} is in force", accepted.source));
        if !accepted.warnings.is_empty() {
            machine.say(EventKind::ManifestDoubtful, &accepted.source, &accepted.warnings);
        }
        // Both hold secrets.
        machine.publish_manifest(&machine.config.paths.manifest(), &accepted);
        machine.publish(&last_good, accepted.text.as_bytes(), 0o600);
        sources::remember_fetched(machine);
        mend::keep(machine, None);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sys::FakeSystem;

    use super::*;
    use crate::sources::Offer;

    #[test]
    fn a_known_machine_stays_what_it_is_whatever_its_sources_hold() {
        let single = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";
        let worker = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"worker\"\n[cluster]\n\
                      endpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\nca-hash = \
                      \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";
        let system = Arc::new(FakeSystem::new());
        system.file("/usr/share/keelson/manifest.toml", worker);
        system.file("/state/manifest.toml", single);
        let mut machine = Machine::of_a_test(&system);
        take_manifest(&mut machine);
        assert!(machine.foreign.as_ref().is_some_and(|why| why.contains("(image) is for a worker")));
        assert_eq!(system.text("/run/keelson/manifest.toml"), single);
        assert_eq!(system.text("/state/manifest.toml"), single);

        // By whoever may hand one in.
        machine.handed = Some(Offer { source: "handed in".to_owned(), text: Ok(worker.to_owned()) });
        take_manifest(&mut machine);
        assert_eq!((machine.foreign.as_ref(), system.text("/state/manifest.toml").as_str()), (None, worker));

        // What was found is what counts already.
        take_manifest(&mut machine);
        assert_eq!((machine.foreign.as_ref(), system.text("/run/keelson/manifest.toml").as_str()), (None, worker));
    }
}
