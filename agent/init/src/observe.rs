//! The machine's state in the words of the machine API.

use machine_api::{MachineStatus, Service, Stage, UpdateState};
use supervisor::ServiceStatus;

use crate::machine::{Machine, Storage};

/// Puts everything together.
pub(crate) fn observe(machine: &Machine, services: Vec<ServiceStatus>) -> MachineStatus {
    let unmet = unmet(machine, &services);
    MachineStatus {
        stage: machine.stage,
        ready: machine.stage == Stage::Running && unmet.is_empty(),
        hostname: machine.hostname.clone(),
        boot_id: machine.boot_id.clone(),
        uptime_seconds: machine.system.uptime().as_secs_f64(),
        manifest_source: machine.accepted.as_ref().map(|accepted| accepted.source.clone()),
        diagnostics: machine.diagnostics.clone(),
        unmet,
        phases: machine.phases.clone(),
        services: services.into_iter().map(service).collect(),
        slot: machine.booted.as_ref().map(|booted| booted.slot.to_string()),
        version: machine.booted.as_ref().map(|booted| booted.version.clone()),
        crash: machine.crash.clone(),
        update: machine.update.as_ref().map(install::Record::describe),
        update_state: machine.update.as_ref().map(update_state),
    }
}

fn update_state(update: &install::Record) -> UpdateState {
    match update.outcome {
        None => UpdateState::Trying,
        Some(install::Outcome::Good) => UpdateState::Good,
        Some(install::Outcome::FellBack { .. }) => UpdateState::TakenBack,
        Some(install::Outcome::CutShort) => UpdateState::CutShort,
    }
}

/// What keeps the machine from being ready.
pub(crate) fn unmet(machine: &Machine, services: &[ServiceStatus]) -> Vec<String> {
    let mut unmet = Vec::new();
    if machine.accepted.is_none() {
        unmet.push("it has no usable manifest".to_owned());
    }
    if let Storage::Broken(reason) = &machine.storage {
        unmet.push(format!("its disk cannot be used: {reason}"));
    }
    let waiting = services.iter().filter(|service| !matches!(service.state, "ready" | "done"));
    unmet.extend(waiting.map(|service| match service.why.as_str() {
        "" => format!("{} is {}", service.name, service.state),
        why => format!("{} is {}: {why}", service.name, service.state),
    }));
    let folder = machine.config.paths.conditions();
    for name in machine.system.list(&folder).unwrap_or_default() {
        let text = crate::sources::text_of(&*machine.system, &folder.join(&name)).unwrap_or_default();
        unmet.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
    }
    unmet
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
    }
}
