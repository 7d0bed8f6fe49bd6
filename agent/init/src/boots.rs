//! The last starts, for the boot report: one that never became ready is among them.

use std::path::Path;

use machine_api::{Boot, Boots, EventKind, MachineStatus};
use supervisor::ServiceStatus;
use sys::System;

use crate::environment::Environment;
use crate::machine::Machine;
use crate::observe;

/// So many are kept.
const KEPT: usize = 10;
/// Where a boot loader tells how long it and the firmware took, in microseconds as UTF-16 text behind four bytes.
const LOADER_BEGAN: &str = "/sys/firmware/efi/efivars/LoaderTimeInitUSec-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const LOADER_ENDED: &str = "/sys/firmware/efi/efivars/LoaderTimeExecUSec-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Writes this start down: once when its services begin, and when they are ready.
pub(crate) fn remember(machine: &mut Machine, status: &MachineStatus) {
    let now = machine.system.uptime();
    let is_known = machine.remembered_boot.as_ref().is_some_and(|boot| boot.ready_seconds.is_some() || !status.ready);
    if is_known || machine.accepted.is_none() {
        return;
    }
    let since_epoch = machine.system.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Namespaces begin long after their kernel did.
    let base = match (machine.environment, machine.phases.first()) {
        (Environment::Container, Some(first)) => first.started_seconds,
        _ => 0.0,
    };
    let mut boot = Boot {
        boot_id: machine.boot_id.clone(),
        began: since_epoch.saturating_sub(now).as_secs_f64() + base,
        version: machine.booted.as_ref().map(|booted| booted.version.clone()),
        slot: machine.booted.as_ref().map(|booted| booted.slot.to_string()),
        kernel: machine.system.kernel_release(),
        firmware_seconds: loader_time(&*machine.system, LOADER_ENDED),
        ..Boot::default()
    };
    let began = loader_time(&*machine.system, LOADER_BEGAN);
    boot.loader_seconds = began.and_then(|began| boot.firmware_seconds.map(|ended| ended - began));
    boot.follow(status, base);
    let path = machine.config.paths.boots();
    let mut all = load(&*machine.system, &path);
    if let Some(before) = all.boots.last_mut().filter(|before| before.boot_id != boot.boot_id) {
        // The first words about this start tell how the one before it ended.
        before.ended = before.ended.take().or_else(|| machine.crash.clone());
        if machine.remembered_boot.is_none() && !before.left_behind.is_empty() {
            let left = before.left_behind.join(", ");
            machine.say(
                EventKind::LastStartEndedBadly,
                "",
                format!("the start before this one left behind on its way out: {left}"),
            );
        }
    }
    all.boots.retain(|known| known.boot_id != boot.boot_id);
    all.boots.push(boot.clone());
    let surplus = all.boots.len().saturating_sub(KEPT);
    all.boots.drain(..surplus);
    machine.remembered_boot = Some(boot);
    store(machine, &path, &all);
}

/// Writes down how this start ended, and what it left behind. What is known later takes the place of it.
pub(crate) fn conclude(machine: &mut Machine, services: Vec<ServiceStatus>, how: &str, left_behind: &[String]) {
    let status = observe::observe(machine, services);
    let path = machine.config.paths.boots();
    let mut all = load(&*machine.system, &path);
    let own = machine.boot_id.clone();
    let Some(boot) = all.boots.last_mut().filter(|boot| boot.boot_id == own) else { return };
    if boot.ready_seconds.is_none() {
        boot.follow(&status, boot.base_seconds);
    }
    boot.ended = Some(how.to_owned());
    boot.left_behind = left_behind.to_vec();
    store(machine, &path, &all);
}

fn load(system: &dyn System, path: &Path) -> Boots {
    // One that cannot be read is worth less than a machine that tells of this start.
    system.read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn store(machine: &mut Machine, path: &Path, all: &Boots) {
    match serde_json::to_vec(all) {
        Ok(text) => machine.publish(path, &text, 0o644),
        Err(error) => machine.fault(format!("this start is not remembered: {error}")),
    }
}

fn loader_time(system: &dyn System, path: &str) -> Option<f64> {
    const ATTRIBUTES: usize = 4;
    let bytes = system.read(Path::new(path)).ok()?;
    let units = bytes.get(ATTRIBUTES..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).filter_map(Result::ok).collect();
    let micros: u32 = text.trim_end_matches('\0').parse().ok()?;
    Some(f64::from(micros) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn the_loader_s_time_is_read_from_the_firmware() {
        let system = FakeSystem::new();
        let mut variable = vec![6, 0, 0, 0];
        variable.extend("2350000\0".encode_utf16().flat_map(u16::to_le_bytes));
        system.file(LOADER_ENDED, variable);
        assert_eq!(loader_time(&system, LOADER_ENDED), Some(2.35));
        assert_eq!(loader_time(&system, LOADER_BEGAN), None);
    }
}
