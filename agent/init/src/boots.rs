//! The last starts, for the boot report: one that never became ready is among them.

use std::path::Path;

use machine_api::{Boot, Boots, Phase, Span};
use supervisor::ServiceStatus;
use sys::System;

use crate::environment::Environment;
use crate::machine::Machine;

/// So many are kept.
const KEPT: usize = 10;
/// Where a boot loader tells how long it and the firmware took, in microseconds as UTF-16 text behind four bytes.
const LOADER_BEGAN: &str = "/sys/firmware/efi/efivars/LoaderTimeInitUSec-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const LOADER_ENDED: &str = "/sys/firmware/efi/efivars/LoaderTimeExecUSec-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Writes this start down: once when its services begin, and when they are ready.
pub(crate) fn remember(machine: &mut Machine, services: &[ServiceStatus], is_ready: bool) {
    let now = machine.system.uptime();
    let is_known = machine.remembered_boot.as_ref().is_some_and(|boot| boot.ready_seconds.is_some() || !is_ready);
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
        ready_seconds: is_ready.then_some(now.as_secs_f64() - base),
        spans: spans(&machine.phases, services, base),
        ..Boot::default()
    };
    let began = loader_time(&*machine.system, LOADER_BEGAN);
    boot.loader_seconds = began.and_then(|began| boot.firmware_seconds.map(|ended| ended - began));
    if is_ready {
        boot.mark_critical();
    }
    let path = machine.config.paths.boots();
    let mut all = load(&*machine.system, &path);
    if let Some(before) = all.boots.last_mut().filter(|before| before.boot_id != boot.boot_id) {
        // The first words about this start tell how the one before it ended.
        before.ended = before.ended.take().or_else(|| machine.crash.clone());
    }
    all.boots.retain(|known| known.boot_id != boot.boot_id);
    all.boots.push(boot.clone());
    let surplus = all.boots.len().saturating_sub(KEPT);
    all.boots.drain(..surplus);
    machine.remembered_boot = Some(boot);
    store(machine, &path, &all);
}

/// Writes down how this start ended.
pub(crate) fn conclude(machine: &mut Machine, how: &str) {
    let path = machine.config.paths.boots();
    let mut all = load(&*machine.system, &path);
    let own = machine.boot_id.clone();
    let Some(boot) = all.boots.last_mut().filter(|boot| boot.boot_id == own) else { return };
    boot.ended = Some(how.to_owned());
    store(machine, &path, &all);
}

fn load(system: &dyn System, path: &Path) -> Boots {
    // One that cannot be read is worth less than a machine that tells of this start.
    system.read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn store(machine: &mut Machine, path: &Path, all: &Boots) {
    match serde_json::to_vec(all) {
        Ok(text) => machine.publish(path, &text, 0o644),
        Err(error) => machine.say(&format!("this start is not remembered: {error}")),
    }
}

/// All that was done, in seconds since `base`.
fn spans(phases: &[Phase], services: &[ServiceStatus], base: f64) -> Vec<Span> {
    let span = |name: &str, kind: &str, start: f64, end: Option<f64>| Span {
        name: name.to_owned(),
        kind: kind.to_owned(),
        start_seconds: start - base,
        end_seconds: end.map(|end| end - base),
        ..Span::default()
    };
    let kernel = phases.first().map(|first| span("kernel", "kernel", 0.0, Some(first.started_seconds)));
    let kernel = kernel.filter(|_| base == 0.0);
    let phases = phases.iter().map(|phase| {
        span(&phase.name, "phase", phase.started_seconds, Some(phase.started_seconds + phase.took_seconds))
    });
    let services = services.iter().filter_map(|service| {
        let (started, ready) = (service.started?.as_secs_f64(), service.ready.map(|then| then.as_secs_f64()));
        Some(Span { after: service.after.clone(), ..span(&service.name, "service", started, ready) })
    });
    kernel.into_iter().chain(phases).chain(services).collect()
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

    #[test]
    fn phases_and_services_become_spans() {
        let phase = Phase { name: "mounts".to_owned(), started_seconds: 1.0, took_seconds: 0.5, errors: Vec::new() };
        let spans = spans(&[phase], &[], 0.0);
        let found: Vec<(&str, f64, Option<f64>)> =
            spans.iter().map(|span| (span.name.as_str(), span.start_seconds, span.end_seconds)).collect();
        assert_eq!(found, [("kernel", 0.0, Some(1.0)), ("mounts", 1.0, Some(1.5))]);
    }
}
