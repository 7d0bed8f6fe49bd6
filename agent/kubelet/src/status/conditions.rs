//! The conditions of a pod.

use api::core::v1::{PodCondition, PodStatus};
use api::meta::v1::Time;

use super::{StatusInput, is_initialized};
use crate::clock::time;
use crate::plan::is_resizing;
use crate::pod::{ContainerKind, is_static};

/// The pod asks for resources that the node did not grant.
pub(crate) const RESIZE_PENDING: &str = "PodResizePending";
/// Resources were granted that are not in effect.
pub(crate) const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

struct Finding {
    kind: &'static str,
    is_true: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn met(kind: &'static str) -> Self {
        Self { kind, is_true: true, reason: "", message: String::new() }
    }

    fn unmet(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, is_true: false, reason, message }
    }
}

/// The conditions this node keeps; those of others stay as the API server has them.
pub(super) fn pod_conditions(input: &StatusInput<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let containers = containers_ready(input, status);
    let ready = ready(input, &containers);
    let mut findings = vec![sandbox_ready(input), initialized(input, status), ready, containers];
    if is_static(&input.view.pod) {
        findings.push(Finding::met("PodScheduled"));
    }
    if let Some(verdict) = input.verdict.filter(|v| v.is_disruption) {
        let message = verdict.message.clone();
        findings.push(Finding { kind: "DisruptionTarget", is_true: true, reason: "TerminationByKubelet", message });
    }
    let resizes = resize_findings(input, status);
    let mut conditions: Vec<_> = findings.into_iter().map(|finding| condition(input, finding)).collect();
    if let Some(scheduled) = input.view.pod.status.conditions.iter().find(|c| c.r#type == "PodScheduled")
        && !is_static(&input.view.pod)
    {
        conditions.push(scheduled.clone());
    }
    for (finding, generation) in resizes {
        conditions.push(PodCondition { observed_generation: generation, ..condition(input, finding) });
    }
    conditions
}

/// What a pod waits for that asked for other resources, each with the generation that asked.
fn resize_findings(input: &StatusInput<'_>, status: &PodStatus) -> Vec<(Finding, i64)> {
    let is_terminal = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    let mut findings = Vec::new();
    if is_terminal {
        return findings;
    }
    if let Some(pending) = input.resize.pending {
        let message = pending.message.clone();
        let finding = Finding { kind: RESIZE_PENDING, is_true: true, reason: pending.reason, message };
        findings.push((finding, pending.generation));
    }
    if is_resizing(input.view, input.seen, input.resize.actuated) {
        let reason = if input.resize.failure.is_some() { "Error" } else { "" };
        let message = input.resize.failure.unwrap_or_default().to_owned();
        let finding = Finding { kind: RESIZE_IN_PROGRESS, is_true: true, reason, message };
        findings.push((finding, input.resize.generation));
    }
    findings
}

fn condition(input: &StatusInput<'_>, finding: Finding) -> PodCondition {
    let value = if finding.is_true { "True" } else { "False" };
    let same = |c: &&PodCondition| c.r#type == finding.kind && c.status == value;
    let before = input.previous.conditions.iter().find(same);
    let before = before.or_else(|| input.view.pod.status.conditions.iter().find(same));
    PodCondition {
        r#type: finding.kind.to_owned(),
        observed_generation: input.view.pod.metadata.generation,
        status: value.to_owned(),
        last_probe_time: Time::default(),
        last_transition_time: before.map_or_else(|| time(input.now), |c| c.last_transition_time),
        reason: finding.reason.to_owned(),
        message: finding.message,
    }
}

fn sandbox_ready(input: &StatusInput<'_>) -> Finding {
    const KIND: &str = "PodReadyToStartContainers";
    let host_network = input.view.spec().host_network;
    let is_ready = input.seen.active().is_some_and(|s| host_network || !s.ips.is_empty()) && !input.is_over;
    Finding { kind: KIND, is_true: is_ready, reason: "", message: String::new() }
}

fn initialized(input: &StatusInput<'_>, status: &PodStatus) -> Finding {
    const KIND: &str = "Initialized";
    if input.view.init().next().is_none() || is_initialized(input) {
        let reason = if status.phase == "Succeeded" { "PodCompleted" } else { "" };
        return Finding { kind: KIND, is_true: true, reason, message: String::new() };
    }
    if status.phase == "Succeeded" {
        return Finding { kind: KIND, is_true: true, reason: "PodCompleted", message: String::new() };
    }
    // A regular container that began proves that initialisation was done, whatever sidecars do now.
    let began = input.view.of_kind(ContainerKind::Regular).any(|c| input.seen.current(c.name()).is_some());
    if began {
        return Finding::met(KIND);
    }
    let pending: Vec<&str> = input
        .view
        .init()
        .zip(&status.init_container_statuses)
        .filter(|(container, status)| match container.kind {
            ContainerKind::Sidecar => status.started != Some(true),
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => !status.ready,
        })
        .map(|(container, _)| container.name())
        .collect();
    let message = format!("containers with incomplete status: [{}]", pending.join(" "));
    Finding::unmet(KIND, "ContainersNotInitialized", message)
}

fn containers_ready(input: &StatusInput<'_>, status: &PodStatus) -> Finding {
    const KIND: &str = "ContainersReady";
    match status.phase.as_str() {
        "Succeeded" => return Finding::unmet(KIND, "PodCompleted", String::new()),
        "Failed" => return Finding::unmet(KIND, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = input.view.init().zip(&status.init_container_statuses);
    let sidecars = sidecars.filter(|(c, _)| c.kind == ContainerKind::Sidecar).map(|(_, status)| status);
    let unready: Vec<&str> =
        sidecars.chain(&status.container_statuses).filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        Finding::met(KIND)
    } else {
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Finding::unmet(KIND, "ContainersNotReady", message)
    }
}

fn ready(input: &StatusInput<'_>, containers: &Finding) -> Finding {
    const KIND: &str = "Ready";
    if !containers.is_true {
        return Finding { kind: KIND, is_true: false, reason: containers.reason, message: containers.message.clone() };
    }
    let mut missing = Vec::new();
    for gate in &input.view.spec().readiness_gates {
        let kind = &gate.condition_type;
        match input.view.pod.status.conditions.iter().find(|c| c.r#type == *kind) {
            None => missing.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(found) if found.status != "True" => missing
                .push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", found.status)),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Finding::met(KIND)
    } else {
        Finding::unmet(KIND, "ReadinessGatesNotReady", missing.join(", "))
    }
}
