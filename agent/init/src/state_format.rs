//! The boot phase that brings STATE to the format of this system, before anything reads it.

use std::path::Path;

use install::Booted;
use install::migrate::{self, FORMATS, Formats};
use machine_api::EventKind;
use sys::{System, UnmountFlags};

use crate::environment::Environment;
use crate::machine::{Machine, Storage};
use crate::storage;

/// Where it cannot be had it is in memory, as if the disk were not there, and [`Machine::storage`] says why.
pub(crate) fn bring(machine: &mut Machine) -> Vec<String> {
    bring_to(machine, &FORMATS)
}

fn bring_to(machine: &mut Machine, own: &Formats) -> Vec<String> {
    match &machine.storage {
        Storage::Kept | Storage::NoData(_) | Storage::NewerData(_) => {}
        Storage::Memory | Storage::Broken(_) | Storage::Unfit(_) | Storage::Locked(_) | Storage::Unmade => {
            return Vec::new();
        }
    }
    let state = machine.config.paths.state.clone();
    let reason = match migrate::bring(&*machine.system, &state, own) {
        Ok(told) => {
            for line in told {
                machine.say(EventKind::StateFormat, "STATE", &line);
            }
            // Namespaces have one system, and nothing to go back to.
            return if machine.environment == Environment::Container { settle(machine) } else { Vec::new() };
        }
        Err(error) => stdx::chain(&error).to_string(),
    };
    machine.storage = Storage::Unfit(reason.clone());
    let mut failures = vec![reason];
    // A container's host has mounted it, and goes on having it.
    if machine.environment == Environment::Machine {
        let unmounted = machine.system.unmount(&state, UnmountFlags::Plain);
        failures.extend(unmounted.err().map(|error| stdx::chain(&error).to_string()));
    }
    let in_memory = storage::apply_memory(&*machine.system, &state, Path::new("/var"));
    failures.extend(in_memory.err().map(|error| stdx::chain(&error).to_string()));
    failures
}

/// This system has proved itself: what is kept of other formats is of no use to it.
pub(crate) fn settle(machine: &mut Machine) -> Vec<String> {
    if !matches!(machine.storage, Storage::Kept | Storage::NoData(_) | Storage::NewerData(_)) {
        return Vec::new();
    }
    match migrate::settle(&*machine.system, &machine.config.paths.state) {
        Ok(None) => Vec::new(),
        Ok(Some(former)) => {
            machine.say(EventKind::StateFormat, "STATE", format!("STATE: what was kept of format {former} is removed"));
            Vec::new()
        }
        Err(error) => vec![stdx::chain(&error).to_string()],
    }
}

/// Lets whatever the loader starts next find a STATE that it can read, once nothing else writes there. Answers its format
/// where something was to be done; in words why it could not be.
pub(crate) fn hand_over(system: &dyn System, booted: &Booted, state: &Path) -> Result<Option<u32>, String> {
    let own = FORMATS.span();
    if own.oldest == own.format {
        return Ok(None);
    }
    let in_words = |error: install::Error| stdx::chain(&error).to_string();
    let next = booted.open().and_then(|mut disk| disk.next_state_format(booted.slot)).map_err(in_words)?;
    let Some(older) = next.filter(|next| *next < own.format) else { return Ok(None) };
    migrate::prepare(system, state, &FORMATS, older).map_err(|error| in_words(error.into()))?;
    Ok(Some(older))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sys::{Call, FakeSystem, Mount};

    use super::*;
    use crate::conditions;

    fn machine(record: Option<&str>) -> (Arc<FakeSystem>, Machine) {
        let system = Arc::new(FakeSystem::new());
        system.file("/state/machine-id", "0f");
        system.file("/state/manifest.toml", "version = 1\n");
        if let Some(record) = record {
            system.file("/state/format.json", record);
        }
        let mut machine = Machine::of_a_test(&system);
        machine.environment = Environment::Machine;
        (system, machine)
    }

    #[test]
    fn a_machine_without_a_format_is_of_the_first() {
        let (system, mut machine) = machine(None);
        assert!(bring(&mut machine).is_empty() && machine.storage == Storage::Kept);
        assert_eq!(system.text("/state/format.json"), "{\"stage\":\"settled\",\"format\":1}");
        assert!(settle(&mut machine).is_empty());
    }

    #[test]
    fn a_newer_or_damaged_format_is_told_and_left_alone() {
        for record in ["{\"stage\":\"settled\",\"format\":2}", "{\"stage\":\"later\"}", "x"] {
            let (system, mut machine) = machine(Some(record));
            let failures = bring(&mut machine);
            let Storage::Unfit(reason) = machine.storage.clone() else { panic!("{record}: {:?}", machine.storage) };
            assert_eq!(failures, [reason]);
            let of_state = |call: &Call| match call {
                Call::Unmount(target, _) | Call::Mount(Mount { target, .. }) => target == Path::new("/state"),
                _ => false,
            };
            let mounts: Vec<Call> = system.calls().into_iter().filter(of_state).collect();
            let [Call::Unmount(left, _), Call::Mount(memory)] = &mounts[..] else { panic!("{mounts:?}") };
            assert_eq!((left.as_path(), memory.kind.as_str()), (Path::new("/state"), "tmpfs"));
            assert_eq!(
                (system.text("/state/format.json").as_str(), system.text("/state/manifest.toml").as_str()),
                (record, "version = 1\n")
            );
            let told = conditions::observe(&machine, &[]);
            assert!(told.iter().any(|told| told.name == "StateFormat"), "{told:?}");
            assert!(!told.iter().any(|told| told.name == "DiskUnusable"), "{told:?}");
            // Nothing else touches it in this start.
            let before = system.calls().len();
            assert!(bring(&mut machine).is_empty() && settle(&mut machine).is_empty());
            assert_eq!(system.calls().len(), before);
            assert!(system.exists(Path::new("/state/format.failed")));
        }
    }
}
