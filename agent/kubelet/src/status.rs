//! The status of a pod, from its spec and what the runtime says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIp, LinuxContainerUser, PodIp, PodStatus, VolumeMountStatus,
};
use api::meta::v1::Time;

use crate::allocation::Allocation;
use crate::clock::time;
use crate::observed::{Life, Nanos, Observed, SeenContainer};
use crate::plan::Health;
use crate::pod::{ContainerKind, PodContainer, PodView, RestartPolicy};
use crate::resources::qos_of;

mod conditions;

pub(crate) use conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING};

/// Why a container does not run although it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A verdict over the whole pod that its containers do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether the pod was put out by the node to save itself.
    pub(crate) is_disruption: bool,
}

/// Resources that a pod asks for and the node does not grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingResize {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Of the pod that asks.
    pub(crate) generation: i64,
}

/// How the resources of a pod stand that runs.
pub(crate) struct ResizeState<'a> {
    /// The resources that are in effect.
    pub(crate) actuated: &'a Allocation,
    pub(crate) pending: Option<&'a PendingResize>,
    /// Why what was granted is not in effect.
    pub(crate) failure: Option<&'a str>,
    /// Of the pod that asked for what was granted.
    pub(crate) generation: i64,
}

/// Everything a status is made from.
pub(crate) struct StatusInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) seen: &'a Observed,
    pub(crate) health: &'a BTreeMap<String, Health>,
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// Containers whose start is not complete (hooks).
    pub(crate) starting: &'a BTreeSet<String>,
    /// Messages that ended containers left, by container id.
    pub(crate) messages: &'a BTreeMap<String, String>,
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) resize: ResizeState<'a>,
    /// Whether everything has been stopped for good.
    pub(crate) is_over: bool,
    pub(crate) host_ips: &'a [String],
    /// The status before this one.
    pub(crate) previous: &'a PodStatus,
    pub(crate) now: Nanos,
}

/// The pod's status now.
pub(crate) fn pod_status(input: &StatusInput<'_>) -> PodStatus {
    let view = input.view;
    let statuses = |kinds: &[ContainerKind]| {
        let chosen = view.containers.iter().filter(|c| kinds.contains(&c.kind));
        chosen.map(|c| container_status(input, c)).collect::<Vec<_>>()
    };
    let mut status = PodStatus {
        observed_generation: view.pod.metadata.generation,
        init_container_statuses: statuses(&[ContainerKind::Init, ContainerKind::Sidecar]),
        container_statuses: statuses(&[ContainerKind::Regular]),
        ephemeral_container_statuses: statuses(&[ContainerKind::Ephemeral]),
        qos_class: qos_of(&view.pod).as_str().to_owned(),
        start_time: Some(start_time(input)),
        resize: String::new(),
        resource_claim_statuses: view.pod.status.resource_claim_statuses.clone(),
        nominated_node_name: view.pod.status.nominated_node_name.clone(),
        ..PodStatus::default()
    };
    status.phase = phase(input, &status).to_owned();
    if let Some(verdict) = input.verdict.filter(|_| has_stopped(input)) {
        status.reason.clone_from(&verdict.reason);
        status.message.clone_from(&verdict.message);
    }
    set_addresses(input, &mut status);
    status.conditions = conditions::pod_conditions(input, &status);
    status
}

fn start_time(input: &StatusInput<'_>) -> Time {
    let known = input.previous.start_time.or_else(|| input.view.pod.status.start_time);
    known.unwrap_or_else(|| time(input.now))
}

fn set_addresses(input: &StatusInput<'_>, status: &mut PodStatus) {
    let hosts = input.host_ips;
    status.host_ip = hosts.first().cloned().unwrap_or_default();
    status.host_ips = hosts.iter().map(|ip| HostIp { ip: ip.clone() }).collect();
    let newest = input.seen.sandboxes.first().map(|s| s.ips.clone()).unwrap_or_default();
    let ips = if input.view.spec().host_network {
        if input.seen.sandboxes.is_empty() { Vec::new() } else { hosts.to_vec() }
    } else if newest.is_empty() {
        // What the pod had is kept: others may still look it up by address while it ends.
        input.previous.pod_ips.iter().map(|ip| ip.ip.clone()).collect()
    } else {
        newest
    };
    status.pod_ip = ips.first().cloned().unwrap_or_default();
    status.pod_ips = ips.into_iter().map(|ip| PodIp { ip }).collect();
}

fn container_status(input: &StatusInput<'_>, container: &PodContainer) -> ContainerStatus {
    let name = container.name();
    let old = previous_status(input, name);
    let health = input.health.get(name).copied().unwrap_or_default();
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: container.spec.image.clone(),
        started: Some(false),
        restart_count: old.map_or(0, |o| o.restart_count),
        ..ContainerStatus::default()
    };
    match input.seen.latest(name) {
        None => unseen_state(input, container, old, &mut status),
        Some(seen) => seen_state(input, container, seen, &mut status),
    }
    let is_running = status.state.running.is_some();
    match container.kind {
        ContainerKind::Init => {
            status.ready = status.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        }
        ContainerKind::Regular | ContainerKind::Sidecar => {
            status.started = Some(is_running && health.is_started);
            status.ready = is_running && health.is_started && health.is_ready && !input.is_over;
        }
        ContainerKind::Ephemeral => status.started = None,
    }
    if container.kind != ContainerKind::Ephemeral && input.seen.latest(name).is_some() {
        status.allocated_resources = container.spec.resources.requests.clone();
        let actuated = input.resize.actuated.containers.get(name).filter(|_| is_running);
        status.resources = Some(actuated.unwrap_or(&container.spec.resources).clone());
    }
    status.volume_mounts = container
        .spec
        .volume_mounts
        .iter()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.read_only.then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    status
}

fn previous_status<'a>(input: &'a StatusInput<'_>, name: &str) -> Option<&'a ContainerStatus> {
    let all = |status: &'a PodStatus| {
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .find(|c| c.name == name)
    };
    all(input.previous).or_else(|| all(&input.view.pod.status))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: reason.to_owned(), message: message.to_owned() };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// The state of a container that the runtime does not have.
fn unseen_state(
    input: &StatusInput<'_>,
    container: &PodContainer,
    old: Option<&ContainerStatus>,
    status: &mut ContainerStatus,
) {
    if let Some(old) = old.filter(|o| o.state.terminated.is_some() || !o.container_id.is_empty()) {
        // It was there once and its remains have been removed.
        old.clone_into(status);
        if status.state.running.is_some() {
            status.state = ContainerState { terminated: Some(lost(&old.container_id)), ..ContainerState::default() };
        }
        return;
    }
    if let Some(reason) = input.waiting.get(container.name()) {
        status.state = waiting(&reason.reason, &reason.message);
        return;
    }
    // One that waited for init containers which failed waits for ever, as upstream's kubelet tells it.
    if input.is_over && container.kind != ContainerKind::Init && is_initialized(input) {
        status.state = ContainerState { terminated: Some(lost("")), ..ContainerState::default() };
        return;
    }
    status.state = starting(input, container);
}

/// The state of a container that is to run. In a pod with init containers all wait for those, they themselves too.
fn starting(input: &StatusInput<'_>, container: &PodContainer) -> ContainerState {
    let has_init = container.kind != ContainerKind::Ephemeral && input.view.init().next().is_some();
    waiting(if has_init { "PodInitializing" } else { "ContainerCreating" }, "")
}

fn lost(container_id: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was terminated".to_owned(),
        container_id: container_id.to_owned(),
        ..ContainerStateTerminated::default()
    }
}

/// Whether all init containers are done (sidecars: started).
fn is_initialized(input: &StatusInput<'_>) -> bool {
    input.view.init().all(|c| {
        let seen = input.seen.latest(c.name());
        match c.kind {
            ContainerKind::Sidecar => input.health.get(c.name()).is_some_and(|h| h.is_started),
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => {
                seen.is_some_and(|s| s.life == Life::Exited && s.status.exit_code == 0)
            }
        }
    })
}

fn seen_state(input: &StatusInput<'_>, container: &PodContainer, seen: &SeenContainer, status: &mut ContainerStatus) {
    let runtime = &seen.status;
    status.restart_count = i32::try_from(seen.restarts).unwrap_or(i32::MAX);
    if let Some(image) = runtime.image.as_ref().filter(|image| !image.image.is_empty()) {
        status.image = displayed_image(&image.image, &container.spec.image);
    }
    status.image_id.clone_from(&runtime.image_ref);
    status.container_id = qualified_id(&seen.id);
    status.user = runtime.user.as_ref().and_then(|u| u.linux.as_ref()).map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups.clone(),
        }),
    });
    let before = input.seen.previous(&seen.name).filter(|p| p.life == Life::Exited);
    if let Some(previous) = before {
        status.last_state.terminated = Some(terminated(input, previous));
    }
    match seen.life {
        Life::Running if input.starting.contains(&seen.name) => status.state = starting(input, container),
        Life::Running => {
            let running = ContainerStateRunning { started_at: time(runtime.started_at) };
            status.state = ContainerState { running: Some(running), ..ContainerState::default() };
        }
        Life::Created => status.state = starting(input, container),
        Life::Exited | Life::Unknown => {
            let end = ContainerState { terminated: Some(terminated(input, seen)), ..ContainerState::default() };
            status.state = end;
        }
    }
    let will_restart = seen.is_revived
        || container.is_restarted(input.view.restart_policy, runtime.exit_code)
        || !is_in_newest_sandbox(input, seen);
    if let Some(reason) = input.waiting.get(&seen.name)
        && seen.life != Life::Running
        && will_restart
    {
        if status.state.terminated.is_some() {
            status.last_state = std::mem::take(&mut status.state);
        }
        status.state = waiting(&reason.reason, &reason.message);
    }
}

fn is_in_newest_sandbox(input: &StatusInput<'_>, seen: &SeenContainer) -> bool {
    input.seen.sandboxes.first().is_none_or(|s| s.id == seen.sandbox)
}

/// The runtime knows images by id once they are resolved; people know them by name.
fn displayed_image(runtime: &str, spec: &str) -> String {
    if runtime.starts_with("sha256:") { spec.to_owned() } else { runtime.to_owned() }
}

pub(crate) fn qualified_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn terminated(input: &StatusInput<'_>, seen: &SeenContainer) -> ContainerStateTerminated {
    let runtime = &seen.status;
    let reason = match (runtime.reason.as_str(), runtime.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (known, _) => known,
    };
    let left = input.messages.get(&seen.id).filter(|message| !message.is_empty());
    ContainerStateTerminated {
        exit_code: runtime.exit_code,
        signal: 0,
        reason: reason.to_owned(),
        message: left.cloned().unwrap_or_else(|| runtime.message.clone()),
        started_at: time(runtime.started_at),
        finished_at: time(runtime.finished_at),
        container_id: qualified_id(&seen.id),
    }
}

/// Whether nothing of the pod can run any more: only then is its end told, for then others may take its place.
fn has_stopped(input: &StatusInput<'_>) -> bool {
    input.is_over || input.seen.is_stopped()
}

#[derive(Default)]
struct Tally {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    restarting: usize,
}

fn tally(input: &StatusInput<'_>, status: &PodStatus) -> Tally {
    let mut tally = Tally::default();
    for (container, status) in input.view.of_kind(ContainerKind::Regular).zip(&status.container_statuses) {
        if status.state.running.is_some() {
            tally.running += 1;
        } else if let Some(end) = &status.state.terminated {
            tally.stopped += 1;
            tally.succeeded += usize::from(end.exit_code == 0);
            let is_revived = input.seen.latest(container.name()).is_some_and(|seen| seen.is_revived);
            let is_restarted = container.is_restarted(input.view.restart_policy, end.exit_code);
            tally.restarting += usize::from(is_revived || is_restarted);
        } else if status.last_state.terminated.is_some() {
            tally.stopped += 1;
            tally.restarting += 1;
        } else {
            tally.waiting += 1;
        }
    }
    tally
}

fn phase(input: &StatusInput<'_>, status: &PodStatus) -> &'static str {
    if input.verdict.is_some() && has_stopped(input) {
        return "Failed";
    }
    let tally = tally(input, status);
    let init = input.view.init().zip(&status.init_container_statuses);
    let (mut init_failed, mut init_pending) = (false, false);
    for (container, status) in init {
        match container.kind {
            ContainerKind::Sidecar => init_pending |= status.started != Some(true) && status.restart_count == 0,
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => {
                let end = status.state.terminated.as_ref();
                init_pending |= end.is_none_or(|t| t.exit_code != 0);
                let policy = input.view.restart_policy;
                init_failed |= end.is_some_and(|t| t.exit_code != 0 && !container.is_restarted(policy, t.exit_code));
            }
        }
    }
    if init_failed {
        return "Failed";
    }
    if input.is_over {
        return if tally.stopped > 0 && tally.stopped == tally.succeeded { "Succeeded" } else { "Failed" };
    }
    let none_began = tally.running == 0 && tally.stopped == 0;
    match () {
        () if init_pending && none_began => "Pending",
        () if tally.waiting > 0 => "Pending",
        () if tally.running > 0 => "Running",
        () if tally.stopped == 0 => "Pending",
        () if tally.restarting > 0 || input.view.restart_policy == RestartPolicy::Always => "Running",
        () if tally.stopped == tally.succeeded => "Succeeded",
        () => "Failed",
    }
}

#[cfg(test)]
mod tests;
