//! The machine's state in the words of the machine API.

use std::path::Path;

use machine_api::{MachineStatus, Service, Stage, UpdateState};
use supervisor::ServiceStatus;
use sys::System;

use crate::conditions;
use crate::machine::Machine;

/// The firmware's variable about Secure Boot (UEFI, "Globally Defined Variables").
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Puts everything together.
pub(crate) fn observe(machine: &mut Machine, services: Vec<ServiceStatus>) -> MachineStatus {
    let mut conditions = conditions::observe(machine, &services);
    for gone in machine.conditions.follow(machine.system.uptime(), &mut conditions) {
        machine.tell(gone);
    }
    MachineStatus {
        stage: machine.stage.into(),
        ready: machine.stage == Stage::Running && conditions::grave(&conditions).is_empty(),
        hostname: machine.hostname.clone(),
        boot_id: machine.boot_id.clone(),
        uptime_seconds: machine.system.uptime().as_secs_f64(),
        manifest_source: machine.accepted.as_ref().map(|accepted| accepted.source.clone()),
        diagnostics: machine.diagnostics.clone(),
        manifest_pending: machine.pending.clone(),
        manifest_tried_until: machine.trying.as_ref().map(|trying| trying.until.as_secs_f64()),
        unmet: conditions::grave(&conditions),
        conditions,
        phases: machine.phases.clone(),
        services: services.into_iter().map(service).collect(),
        slot: machine.booted.as_ref().map(|booted| booted.slot.to_string()),
        version: machine.booted.as_ref().map(|booted| booted.version.clone()),
        secure_boot: secure_boot(&*machine.system),
        volumes: machine.volume_status.iter().cloned().chain(machine.user_volumes.status()).collect(),
        extensions: machine.extensions.status.clone(),
        crash: machine.crash.clone(),
        update: machine.update.as_ref().map(install::Record::describe),
        update_state: machine.update.as_ref().map(|update| update_state(update).into()),
        virtual_address: None,
        keys_tried: machine.keys_tried,
    }
}

/// Whether the firmware starts only what is signed: four bytes of attributes, then one that says so.
fn secure_boot(system: &dyn System) -> Option<bool> {
    system.read(Path::new(SECURE_BOOT)).ok()?.get(4).map(|value| *value == 1)
}

fn update_state(update: &install::Record) -> UpdateState {
    match update.outcome {
        None => UpdateState::Trying,
        Some(install::Outcome::Good) => UpdateState::Good,
        Some(install::Outcome::FellBack { .. }) => UpdateState::TakenBack,
        Some(install::Outcome::CutShort) => UpdateState::CutShort,
    }
}

fn service(status: ServiceStatus) -> Service {
    Service {
        name: status.name,
        state: status.state.to_owned(),
        since_seconds: status.since.as_secs_f64(),
        pid: status.pid,
        restarts: status.restarts,
        why: status.why,
        doing: status.doing,
        last_lines: status.last_lines,
        after: status.after,
        started_seconds: status.started.map(|then| then.as_secs_f64()),
        ready_seconds: status.ready.map(|then| then.as_secs_f64()),
        last_exit_seconds: status.last_exit.as_ref().map(|(then, _)| then.as_secs_f64()),
        last_exit: status.last_exit.map(|(_, how)| how),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn secure_boot_is_what_the_firmware_says() {
        let system = FakeSystem::new();
        assert_eq!(secure_boot(&system), None);
        for (value, is_on) in [(0, false), (1, true)] {
            system.file(SECURE_BOOT, [6, 0, 0, 0, value]);
            assert_eq!(secure_boot(&system), Some(is_on));
        }
    }
}
