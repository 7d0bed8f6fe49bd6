//! The next steps for one pod, from what is wanted and what is seen. Pure.
//!
//! ```text
//! no ready sandbox ──► (stop the old one) ──► create ──► init containers, one after the other
//!                                                         └──► regular containers, kept alive by restart policy
//! nothing left to run ──► finished: the worker stops what still runs (sidecars) and tears down
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::allocation::{Allocation, Amounts};
use crate::observed::{Life, Nanos, Observed, SeenContainer};
use crate::pod::{ContainerKind, PodContainer, PodView, RestartPolicy};

/// First wait before a crashed container starts again.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);

/// How a container's probes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// The liveness probe failed too often.
    pub(crate) is_dead: bool,
    /// The startup probe failed too often.
    pub(crate) failed_to_start: bool,
    /// The startup probe succeeded, or there is none.
    pub(crate) is_started: bool,
    /// The readiness probe succeeds, or there is none.
    pub(crate) is_ready: bool,
}

/// Crash back-off of a pod's containers, by name.
#[derive(Clone, Debug)]
pub(crate) struct CrashBackoff {
    longest: Duration,
    entries: BTreeMap<String, BackoffEntry>,
}

#[derive(Clone, Copy, Debug)]
struct BackoffEntry {
    delay: Duration,
    updated: Nanos,
}

impl CrashBackoff {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { longest, entries: BTreeMap::new() }
    }

    /// How long a container that ended at `finished` has still to wait, and its whole delay.
    fn remaining(&self, name: &str, finished: Nanos, now: Nanos) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(name)?;
        if self.is_expired(entry, finished) {
            return None;
        }
        let waited = Duration::from_nanos(u64::try_from(now.saturating_sub(finished)).unwrap_or(0));
        entry.delay.checked_sub(waited).filter(|left| !left.is_zero()).map(|left| (left, entry.delay))
    }

    /// Notes one more start after a crash.
    pub(crate) fn advance(&mut self, name: &str, finished: Nanos, now: Nanos) {
        let delay = match self.entries.get(name) {
            Some(entry) if !self.is_expired(entry, finished) => (entry.delay * 2).min(self.longest),
            _ => BACKOFF_FIRST.min(self.longest),
        };
        self.entries.insert(name.to_owned(), BackoffEntry { delay, updated: now });
    }

    /// A container that ran well for long starts over with short waits.
    fn is_expired(&self, entry: &BackoffEntry, finished: Nanos) -> bool {
        let ran = Duration::from_nanos(u64::try_from(finished.saturating_sub(entry.updated)).unwrap_or(0));
        ran > self.longest * 2
    }
}

/// Everything a plan is made from.
pub(crate) struct PlanInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) seen: &'a Observed,
    pub(crate) health: &'a BTreeMap<String, Health>,
    pub(crate) backoff: &'a CrashBackoff,
    /// The resources that running containers have.
    pub(crate) actuated: &'a Allocation,
    pub(crate) now: Nanos,
}

/// Why a container is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its image was changed in the spec.
    ImageChanged,
    /// It gets other resources and asked to be restarted for that.
    Resized,
    /// The runtime lost track of it.
    Unknown,
}

impl KillReason {
    /// Whether the container ends only to begin anew with something changed.
    pub(crate) fn is_change(self) -> bool {
        matches!(self, Self::ImageChanged | Self::Resized)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodAction {
    /// Stop a sandbox that is not usable, with what runs in it.
    StopSandbox(String),
    /// Make sandbox number `attempt`.
    CreateSandbox(u32),
    /// Kill a container; whether it starts again is for the next plan.
    KillContainer { id: String, name: String, reason: KillReason, restarts: bool },
    /// Change the resources of these running containers, and of the pod.
    Resize(Vec<String>),
    /// Remove what is left of a start that did not come about.
    RemoveContainer(String),
    /// Start a container for the `restarts`-th time after its first; `after` is when the one before ended.
    StartContainer { name: String, restarts: u32, after: Option<Nanos> },
}

/// What to do now, what to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodPlan {
    pub(crate) actions: Vec<PodAction>,
    /// Containers in crash back-off, with their whole delay.
    pub(crate) backing_off: BTreeMap<String, Duration>,
    /// When to plan again even if nothing happens.
    pub(crate) wake_after: Option<Duration>,
    /// Nothing is left to run: the pod has ended.
    pub(crate) is_finished: bool,
}

impl PodPlan {
    fn wake_in(&mut self, wait: Duration) {
        self.wake_after = Some(self.wake_after.map_or(wait, |known| known.min(wait)));
    }
}

/// The next steps for a pod that shall run.
pub(crate) fn plan_pod(input: &PlanInput<'_>) -> PodPlan {
    let mut plan = PodPlan::default();
    if is_over(input) {
        plan.is_finished = true;
        return plan;
    }
    if !has_usable_sandbox(input) {
        plan_sandbox(input, &mut plan);
        return plan;
    }
    plan_ephemeral(input, &mut plan);
    plan_resize(input, &mut plan);
    match plan_init(input, &mut plan) {
        InitState::Done => plan_regular(input, &mut plan),
        InitState::Waiting => {}
    }
    plan
}

/// Whether the pod reached its end: by its containers, or by an init container that must not be repeated.
fn is_over(input: &PlanInput<'_>) -> bool {
    let policy = input.view.restart_policy;
    let ended = |c: &PodContainer| {
        let latest = input.seen.latest(c.name());
        latest.is_some_and(|s| s.life == Life::Exited && !s.is_revived && !c.is_restarted(policy, s.status.exit_code))
    };
    let init_failed = input.view.of_kind(ContainerKind::Init).any(|c| {
        let latest = input.seen.latest(c.name());
        ended(c) && latest.is_some_and(|s| s.status.exit_code != 0)
    });
    let mut regular = input.view.of_kind(ContainerKind::Regular).peekable();
    init_failed || (regular.peek().is_some() && regular.all(ended))
}

fn has_usable_sandbox(input: &PlanInput<'_>) -> bool {
    input.seen.active().is_some_and(|s| input.view.spec().host_network || !s.ips.is_empty())
}

fn plan_sandbox(input: &PlanInput<'_>, plan: &mut PodPlan) {
    let newest = input.seen.sandboxes.first();
    if let Some(old) = newest {
        plan.actions.push(PodAction::StopSandbox(old.id.clone()));
    }
    plan.actions.push(PodAction::CreateSandbox(newest.map_or(0, |s| s.attempt + 1)));
}

fn plan_ephemeral(input: &PlanInput<'_>, plan: &mut PodPlan) {
    for container in input.view.of_kind(ContainerKind::Ephemeral) {
        if input.seen.latest(container.name()).is_none() {
            let name = container.name().to_owned();
            plan.actions.push(PodAction::StartContainer { name, restarts: 0, after: None });
        }
    }
}

enum InitState {
    Done,
    Waiting,
}

fn plan_init(input: &PlanInput<'_>, plan: &mut PodPlan) -> InitState {
    // Once a regular container exists in this sandbox, initialisation is history and only sidecars are kept alive.
    let is_initialized = input.view.of_kind(ContainerKind::Regular).any(|c| input.seen.current(c.name()).is_some());
    for container in input.view.init() {
        let current = input.seen.current(container.name());
        let is_sidecar = container.kind == ContainerKind::Sidecar;
        let is_settled = match current {
            Some(seen) if seen.life == Life::Running => {
                plan_running(input, container, seen, plan);
                let health = input.health.get(container.name()).copied().unwrap_or_default();
                is_sidecar && health.is_started
            }
            Some(seen) if seen.life == Life::Exited && !is_sidecar && seen.status.exit_code == 0 => true,
            Some(_) | None => {
                if is_sidecar || !is_initialized {
                    plan_start(input, container, plan);
                }
                false
            }
        };
        if !is_settled && !is_initialized {
            return InitState::Waiting;
        }
    }
    InitState::Done
}

fn plan_regular(input: &PlanInput<'_>, plan: &mut PodPlan) {
    for container in input.view.of_kind(ContainerKind::Regular) {
        match input.seen.current(container.name()) {
            Some(seen) if seen.life == Life::Running => plan_running(input, container, seen, plan),
            Some(_) | None => plan_start(input, container, plan),
        }
    }
}

/// Kills a running container whose probes gave it up or whose image was changed.
fn plan_running(input: &PlanInput<'_>, container: &PodContainer, seen: &SeenContainer, plan: &mut PodPlan) {
    let health = input.health.get(container.name()).copied().unwrap_or_default();
    let reason = if health.failed_to_start {
        KillReason::Startup
    } else if health.is_dead {
        KillReason::Liveness
    } else if seen.spec_image().is_some_and(|image| image != container.spec.image) {
        KillReason::ImageChanged
    } else if resize_of(input.actuated, container) == Some(ResizeKind::Restart) {
        KillReason::Resized
    } else {
        return;
    };
    let restarts = reason.is_change() || container.policy(input.view.restart_policy) != RestartPolicy::Never;
    plan.actions.push(PodAction::KillContainer { id: seen.id.clone(), name: seen.name.clone(), reason, restarts });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResizeKind {
    InPlace,
    Restart,
}

/// Whether a running container has other resources than it was granted, and what that takes.
fn resize_of(actuated: &Allocation, container: &PodContainer) -> Option<ResizeKind> {
    let had = Amounts::of(actuated.containers.get(container.name())?);
    let gets = Amounts::of(&container.spec.resources);
    let restarts = |name: &str| {
        let mut policies = container.spec.resize_policy.iter();
        policies.any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    let restart = (had.cpu != gets.cpu && restarts("cpu")) || (had.memory != gets.memory && restarts("memory"));
    (had != gets).then_some(if restart { ResizeKind::Restart } else { ResizeKind::InPlace })
}

/// Running containers that do not have what they were granted.
fn resizes<'a>(
    view: &'a PodView,
    seen: &Observed,
    actuated: &Allocation,
) -> impl Iterator<Item = (&'a str, ResizeKind)> {
    let is_up = |c: &PodContainer| seen.current(c.name()).is_some_and(|seen| seen.life == Life::Running);
    let running = view.containers.iter().filter(move |c| is_up(c));
    running.filter_map(|c| Some((c.name(), resize_of(actuated, c)?)))
}

fn is_pod_resized(view: &PodView, actuated: &Allocation) -> bool {
    view.spec().resources.as_ref().map(Amounts::of) != actuated.pod_amounts()
}

/// Whether what was granted is not yet in effect.
pub(crate) fn is_resizing(view: &PodView, seen: &Observed, actuated: &Allocation) -> bool {
    is_pod_resized(view, actuated) || resizes(view, seen, actuated).next().is_some()
}

/// Changes the resources of what runs. Containers that start later get theirs then.
fn plan_resize(input: &PlanInput<'_>, plan: &mut PodPlan) {
    let found = resizes(input.view, input.seen, input.actuated);
    let kept = found.filter(|(_, kind)| *kind == ResizeKind::InPlace);
    let names: Vec<String> = kept.map(|(name, _)| name.to_owned()).collect();
    if !names.is_empty() || is_pod_resized(input.view, input.actuated) {
        plan.actions.push(PodAction::Resize(names));
    }
}

/// Starts a container that does not run, if its restart policy and back-off let it.
fn plan_start(input: &PlanInput<'_>, container: &PodContainer, plan: &mut PodPlan) {
    let name = container.name().to_owned();
    let Some(last) = input.seen.latest(&name) else {
        plan.actions.push(PodAction::StartContainer { name, restarts: 0, after: None });
        return;
    };
    match last.life {
        Life::Created => {
            plan.actions.push(PodAction::RemoveContainer(last.id.clone()));
            plan.actions.push(PodAction::StartContainer { name, restarts: last.restarts, after: None });
        }
        Life::Unknown => {
            let id = last.id.clone();
            plan.actions.push(PodAction::KillContainer { id, name, reason: KillReason::Unknown, restarts: true });
        }
        // It runs in a sandbox that is not the active one any more, which is being stopped.
        Life::Running => {}
        Life::Exited => plan_restart(input, container, last, plan),
    }
}

fn plan_restart(input: &PlanInput<'_>, container: &PodContainer, last: &SeenContainer, plan: &mut PodPlan) {
    let is_current = input.seen.current(&last.name).is_some();
    let is_rerun_of_init = container.kind == ContainerKind::Init && !is_current;
    if last.is_revived {
        let (name, restarts) = (last.name.clone(), last.restarts + 1);
        plan.actions.push(PodAction::StartContainer { name, restarts, after: None });
        return;
    }
    if !is_rerun_of_init && !container.is_restarted(input.view.restart_policy, last.status.exit_code) {
        return;
    }
    let finished = last.status.finished_at;
    if let Some((left, delay)) = input.backoff.remaining(&last.name, finished, input.now) {
        plan.backing_off.insert(last.name.clone(), delay);
        plan.wake_in(left);
        return;
    }
    plan.actions.push(PodAction::StartContainer {
        name: last.name.clone(),
        restarts: last.restarts + 1,
        after: Some(finished),
    });
}

#[cfg(test)]
mod tests;
