//! Probes: one task per probe of a running container.
//!
//! A probe task owns its counting; what it concludes goes into the pod's [`ProbeBoard`], and the pod's worker is
//! woken when that changes. Tasks end with the container they look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::core::v1::{Container, Probe};
use cri::Runtime;
use reconcile::EventType;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock;
use crate::events::PodEvents;
use crate::handler::{grpc_health, http_get, port_number, tcp_connect, within};
use crate::observed::{Nanos, Observed};
use crate::plan::Health;
use crate::pod::{ContainerKind, PodContainer, PodView};
use crate::probe_counts::PodProbes;

/// The user agent of probes; servers under test look for its beginning.
const AGENT: &str = "kube-probe/1.36";
/// The most of a command's output that an event repeats.
const MAX_OUTPUT: usize = 10 * 1024;

/// The three questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes of a pod have found so far.
#[derive(Clone, Default)]
pub(crate) struct ProbeBoard {
    health: Arc<Mutex<BTreeMap<String, Health>>>,
    changed: Arc<Notify>,
}

impl ProbeBoard {
    /// A board whose changes wake `changed`.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Self { health: Arc::default(), changed }
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn get(&self, name: &str) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    fn set(&self, name: &str, change: impl FnOnce(&mut Health)) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = health.entry(name.to_owned()).or_default();
        let before = *entry;
        change(entry);
        if *entry != before {
            self.changed.notify_one();
        }
    }

    fn forget(&self, name: &str) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// What a probe is asked through.
#[derive(Clone)]
pub(crate) struct ProbeTools {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) events: PodEvents,
    pub(crate) counts: Arc<PodProbes>,
}

/// The probe tasks of one pod.
pub(crate) struct Probes {
    board: ProbeBoard,
    tools: ProbeTools,
    /// Tasks by container name, with the id of the container they look at.
    running: BTreeMap<String, (String, Vec<AbortHandle>)>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        for (_, handles) in self.running.values() {
            handles.iter().for_each(AbortHandle::abort);
        }
    }
}

impl Probes {
    pub(crate) fn new(board: ProbeBoard, tools: ProbeTools) -> Self {
        Self { board, tools, running: BTreeMap::new() }
    }

    /// Starts the probes of containers that run and ends those of containers that do not. While the pod terminates,
    /// only readiness is still asked for.
    pub(crate) fn sync(&mut self, view: &PodView, seen: &Observed, host_ip: &str, is_terminating: bool) {
        let pod_ip = match seen.active() {
            _ if view.spec().host_network => host_ip.to_owned(),
            Some(sandbox) => sandbox.ips.first().cloned().unwrap_or_default(),
            None => String::new(),
        };
        let running: BTreeMap<&str, _> = seen.running().map(|c| (c.name.as_str(), c)).collect();
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(name, (id, _))| running.get(name.as_str()).is_none_or(|c| c.id != *id))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.stop(&name);
        }
        for container in &view.containers {
            let Some(target) = running.get(container.name()) else { continue };
            if self.running.contains_key(container.name()) {
                continue;
            }
            let handles = self.start(container, &target.id, &pod_ip, target.status.started_at, is_terminating);
            self.running.insert(container.name().to_owned(), (target.id.clone(), handles));
        }
    }

    fn stop(&mut self, name: &str) {
        if let Some((_, handles)) = self.running.remove(name) {
            handles.iter().for_each(AbortHandle::abort);
        }
        self.board.forget(name);
    }

    /// Ends the probes that could kill, when the pod is being ended anyway.
    pub(crate) fn end_killing_probes(&mut self) {
        for (_, handles) in self.running.values_mut() {
            // Readiness is pushed last, see `start`.
            let keep = handles.pop();
            handles.drain(..).for_each(|handle| handle.abort());
            handles.extend(keep);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a task is made of; a struct for one call would say no more")]
    fn start(
        &self,
        container: &PodContainer,
        id: &str,
        pod_ip: &str,
        started_at: Nanos,
        is_terminating: bool,
    ) -> Vec<AbortHandle> {
        let spec = &container.spec;
        let is_probed = matches!(container.kind, ContainerKind::Regular | ContainerKind::Sidecar);
        let has = |kind: ProbeKind| is_probed && kind.of(spec).is_some();
        self.board.set(container.name(), |health| {
            *health = Health {
                is_started: !has(ProbeKind::Startup),
                is_ready: !has(ProbeKind::Readiness),
                ..Health::default()
            };
        });
        let mut handles = Vec::new();
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            if !has(kind) || (is_terminating && kind != ProbeKind::Readiness) {
                continue;
            }
            let Some(probe) = kind.of(spec).cloned() else { continue };
            let task = ProbeTask {
                kind,
                probe,
                container: spec.clone(),
                id: id.to_owned(),
                pod_ip: pod_ip.to_owned(),
                started_at,
                board: self.board.clone(),
                tools: self.tools.clone(),
            };
            handles.push(tokio::spawn(task.run()).abort_handle());
        }
        handles
    }
}

struct ProbeTask {
    kind: ProbeKind,
    probe: Probe,
    container: Container,
    id: String,
    pod_ip: String,
    started_at: Nanos,
    board: ProbeBoard,
    tools: ProbeTools,
}

fn seconds(value: i32, default: u64) -> Duration {
    Duration::from_secs(u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(default))
}

impl ProbeTask {
    async fn run(self) {
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let age = Duration::from_nanos(u64::try_from(clock::now() - self.started_at).unwrap_or(0));
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let mut ticks = tokio::time::interval(seconds(self.probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut good, mut bad) = (0, 0);
        loop {
            ticks.tick().await;
            if self.kind != ProbeKind::Startup && !self.board.get(&self.container.name).is_started {
                // Asked again as soon as the container counts as started.
                ticks.reset_after(Duration::from_secs(1).min(ticks.period()));
                continue;
            }
            let asked_at = Instant::now();
            let answer = self.ask().await;
            let name = &self.container.name;
            self.tools.counts.note(self.kind.title(), name, answer.is_ok(), asked_at.elapsed());
            match answer {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(output) => {
                    (good, bad) = (0, bad + 1);
                    let text = format!("{} probe failed: {output}", self.kind.title());
                    self.tools.events.container(&self.container.name, EventType::Warning, "Unhealthy", text);
                }
            }
            if self.conclude(good, bad) {
                return;
            }
        }
    }

    /// Writes the finding down once a threshold is reached. Returns whether the question is settled for good.
    fn conclude(&self, good: i32, bad: i32) -> bool {
        let name = &self.container.name;
        let passed = good >= self.probe.success_threshold.max(1);
        let failed = bad >= self.probe.failure_threshold.max(1);
        match self.kind {
            ProbeKind::Startup if passed => self.board.set(name, |health| health.is_started = true),
            ProbeKind::Startup if failed => self.board.set(name, |health| health.failed_to_start = true),
            ProbeKind::Liveness if failed => self.board.set(name, |health| health.is_dead = true),
            ProbeKind::Readiness if passed => self.board.set(name, |health| health.is_ready = true),
            ProbeKind::Readiness if failed => self.board.set(name, |health| health.is_ready = false),
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => return false,
        }
        self.kind != ProbeKind::Readiness
    }

    async fn ask(&self) -> Result<(), String> {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let handler = &self.probe.probe_handler;
        if let Some(exec) = &handler.exec {
            return self.ask_exec(&exec.command, timeout).await;
        }
        if let Some(http) = &handler.http_get {
            let get = http_get(http, &self.container, &self.pod_ip, AGENT);
            let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            let answer = within(timeout, get, late).await?;
            return match answer.code {
                200..400 => Ok(()),
                _ if answer.is_elsewhere => Ok(()),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            };
        }
        if let Some(tcp) = &handler.tcp_socket {
            let port = port_number(&tcp.port, &self.container)?;
            let host = if tcp.host.is_empty() { &self.pod_ip } else { &tcp.host };
            return within(timeout, tcp_connect(host, port), "dial tcp: i/o timeout").await;
        }
        if let Some(grpc) = &handler.grpc {
            let port = u16::try_from(grpc.port).map_err(|_range| "invalid port number".to_owned())?;
            let service = grpc.service.clone().unwrap_or_default();
            let late = format!("timeout: health rpc did not complete within {}s", timeout.as_secs());
            return within(timeout, grpc_health(&self.pod_ip, port, &service), &late).await;
        }
        Err(format!("missing probe handler for {}", self.container.name))
    }

    async fn ask_exec(&self, command: &[String], timeout: Duration) -> Result<(), String> {
        match self.tools.runtime.exec_sync(&self.id, command.to_vec(), timeout).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let mut output = String::from_utf8_lossy(&answer.stdout).into_owned();
                output.push_str(&String::from_utf8_lossy(&answer.stderr));
                output.truncate(
                    (0..=MAX_OUTPUT.min(output.len())).rev().find(|at| output.is_char_boundary(*at)).unwrap_or(0),
                );
                Err(output)
            }
            Err(cri::Error::Deadline { .. }) => {
                Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
            }
            Err(error) => Err(error.message()),
        }
    }
}
