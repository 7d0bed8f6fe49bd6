//! The worker of one pod: it alone decides what happens to the pod on this node.
//!
//! ```text
//! Running ──deleted, evicted, deadline, nothing left to run──► Stopping ──all stopped──► Stopped ──object gone──► end
//! ```
//!
//! In every state the worker observes, plans (pure) and has at most one step under way, which it polls itself and
//! drops when a wish to stop overtakes it. It is woken by events of the runtime, by probes, by changed objects and by
//! the plan's own time; it never asks the runtime in a rhythm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{Pod, PodStatus};
use futures::FutureExt;
use futures::future::BoxFuture;
use reconcile::EventType;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::allocation::{Allocation, Share};
use crate::clock;
use crate::context::NodeContext;
use crate::events::PodEvents;
use crate::observe::Observer;
use crate::observed::Observed;
use crate::plan::{PlanInput, PodAction, PodPlan, plan_pod};
use crate::pod::PodView;
use crate::probes::{ProbeBoard, ProbeTools, Probes};
use crate::status::{PendingResize, ResizeState, StatusInput, Verdict, Waiting, pod_status};
use crate::status_writer::{Report, StatusWriter};

mod admission;
mod cleanup;
mod messages;
mod mounts;
mod notes;
mod ops;
mod resize;
mod start;
mod stop;
mod volumes;

use notes::{Notes, RESIZE, SANDBOX};
use ops::PodOps;
use volumes::PodVolumes;

/// Wait after the runtime could not be asked.
/// A pod that the node puts out to save itself gets no more than this, as upstream: what it holds is needed now.
const EVICTED_GRACE: Duration = Duration::from_secs(1);
const OBSERVE_RETRY: Duration = Duration::from_secs(5);
/// Wait before what did not stop is stopped again.
const STOP_RETRY: Duration = Duration::from_secs(2);
/// A pod is looked at this often even if nothing happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(120);

/// What shall become of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Its newest state.
    pub(crate) pod: Arc<Pod>,
    /// It is not wanted any more and its object does not exist.
    pub(crate) is_gone: bool,
    /// The node puts it out.
    pub(crate) eviction: Option<Verdict>,
    /// The machine ends, and the pod has to by then.
    pub(crate) end: Option<Instant>,
}

/// What others see of a pod's worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    pub(crate) wishes: watch::Sender<Wish>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) status: watch::Receiver<PodStatus>,
}

enum Stage {
    Running,
    Stopping { deadline: Instant },
    Stopped,
}

/// What the worker does once a step is complete.
enum Next {
    /// Wait for something to happen, at most so long.
    Wait(Duration),
    /// The pod is no more.
    End,
}

pub(crate) struct PodWorker {
    node: Arc<NodeContext>,
    wishes: watch::Receiver<Wish>,
    wake: Arc<Notify>,
    objects_changed: Arc<Notify>,
    /// The pod as its object is; `view` has the resources that the node granted.
    desired: Arc<Pod>,
    allocation: Allocation,
    pending_resize: Option<PendingResize>,
    /// Of the pod that asked for what was granted last, until that is in effect.
    resize_generation: Option<i64>,
    freed: watch::Receiver<()>,
    view: Arc<PodView>,
    events: PodEvents,
    observer: Observer,
    seen: Arc<Observed>,
    board: ProbeBoard,
    probes: Probes,
    notes: Arc<Notes>,
    volumes: Arc<tokio::sync::Mutex<PodVolumes>>,
    volumes_are_due: bool,
    messages: BTreeMap<String, String>,
    verdict: Option<Verdict>,
    stage: Stage,
    is_cleaned: bool,
    under_way: Option<BoxFuture<'static, ()>>,
    status: watch::Sender<PodStatus>,
    writer: StatusWriter,
}

impl PodWorker {
    /// The worker of a pod, and what others see of it.
    pub(crate) fn new(node: Arc<NodeContext>, wish: Wish) -> (Self, WorkerHandle) {
        let desired = wish.pod.clone();
        let allocation = Allocation::recorded(&desired);
        let view = Arc::new(PodView::new(allocation.granted(&desired)));
        node.grants.note(view.uid(), Share::of(&view));
        let (wake, objects_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (sender, wishes) = watch::channel(wish);
        let (status, status_seen) = watch::channel(view.pod.status.clone());
        let events = PodEvents::new(node.recorder.clone(), view.pod.clone());
        let board = ProbeBoard::new(wake.clone());
        let tools = ProbeTools {
            runtime: node.runtime.clone(),
            events: events.clone(),
            counts: node.probe_counts.of(&view.pod),
        };
        let volumes = PodVolumes::new(node.clone(), objects_changed.clone());
        let worker = Self {
            writer: StatusWriter::spawn(&node, &view.pod),
            notes: Arc::new(Notes::new(node.config.max_crash_backoff, allocation.clone())),
            volumes: Arc::new(tokio::sync::Mutex::new(volumes)),
            probes: Probes::new(board.clone(), tools),
            observer: Observer::default(),
            seen: Arc::default(),
            volumes_are_due: true,
            messages: BTreeMap::new(),
            verdict: None,
            stage: Stage::Running,
            is_cleaned: false,
            under_way: None,
            wake: wake.clone(),
            freed: node.grants.freed(),
            desired,
            allocation,
            pending_resize: None,
            resize_generation: None,
            node,
            wishes,
            objects_changed,
            view,
            events,
            board,
            status,
        };
        (worker, WorkerHandle { wishes: sender, wake, status: status_seen })
    }

    /// Runs until the pod is gone from this node, or the node's agent stops (pods then stay as they are).
    pub(crate) async fn run(mut self) {
        self.admit();
        self.take_wish();
        loop {
            let next = match self.step().await {
                Next::End => return,
                Next::Wait(next) => next,
            };
            let shutdown = self.node.shutdown.clone();
            tokio::select! {
                () = shutdown.wait() => return,
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_wish();
                }
                () = self.wake.notified() => {}
                () = self.objects_changed.notified() => {
                    self.volumes_are_due = true;
                    self.notes.lock().try_again();
                }
                Ok(()) = self.freed.changed(), if self.pending_resize.is_some() => self.grant(),
                () = poll_step(&mut self.under_way) => self.under_way = None,
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Takes over what is newest of the pod; a wish to stop overtakes what is under way.
    fn take_wish(&mut self) {
        let wish = self.wishes.borrow_and_update().clone();
        let (old, new) = (&self.desired.metadata, &wish.pod.metadata);
        self.volumes_are_due |= new.labels != old.labels || new.annotations != old.annotations;
        self.desired = wish.pod;
        self.grant();
        if let Some(verdict) = wish.eviction.filter(|_| self.verdict.is_none()) {
            self.events.pod(EventType::Warning, "Evicted", verdict.message.clone());
            self.verdict = Some(verdict);
        }
        if wish.is_gone || self.view.is_deleted() || self.verdict.is_some() || wish.end.is_some() {
            self.begin_to_stop();
        }
    }

    fn begin_to_stop(&mut self) {
        let mut grace = Duration::from_secs(u64::try_from(self.view.grace_seconds()).unwrap_or(0));
        if self.verdict.as_ref().is_some_and(|verdict| verdict.is_disruption) {
            grace = grace.min(EVICTED_GRACE);
        }
        let wished = Instant::now() + grace;
        let wished = self.wishes.borrow().end.map_or(wished, |end| end.min(wished));
        match &mut self.stage {
            Stage::Running => {
                self.under_way = None;
                self.notes.lock().starting.clear();
                self.probes.end_killing_probes();
                self.stage = Stage::Stopping { deadline: wished };
            }
            // Time can only get shorter.
            Stage::Stopping { deadline } if wished < *deadline => {
                *deadline = wished;
                self.under_way = None;
            }
            Stage::Stopping { .. } | Stage::Stopped => {}
        }
    }

    async fn step(&mut self) -> Next {
        let uid = self.view.uid().to_owned();
        match self.observer.observe(self.node.runtime.as_ref(), &uid).await {
            Ok(seen) => self.seen = Arc::new(self.notes.lock().mark_revived(seen)),
            Err(error) => {
                tracing::warn!(pod = self.view.name(), %error, "runtime not observed");
                return Next::Wait(OBSERVE_RETRY);
            }
        }
        self.read_messages().await;
        if self.wishes.borrow().end.is_some() && self.seen.is_stopped() {
            // What it has stays for the next start of the machine.
            return Next::End;
        }
        let is_stopping = !matches!(self.stage, Stage::Running);
        let host_ip = self.node.host_ips().into_iter().next().unwrap_or_default();
        self.probes.sync(&self.view, &self.seen, &host_ip, is_stopping);
        let next = match self.stage {
            Stage::Running => self.step_running(),
            Stage::Stopping { deadline } => self.step_stopping(deadline).await,
            Stage::Stopped => self.step_stopped().await,
        };
        self.publish();
        next
    }

    fn step_running(&mut self) -> Next {
        if let Some(verdict) = self.judge() {
            self.events.pod(EventType::Warning, verdict_event(&verdict), verdict.message.clone());
            self.verdict = Some(verdict);
            self.begin_to_stop();
            return Next::Wait(Duration::ZERO);
        }
        if self.under_way.is_some() {
            return Next::Wait(LONGEST_SLEEP);
        }
        let health = self.board.snapshot();
        let plan = {
            let notes = self.notes.lock();
            let now = clock::now();
            let input = PlanInput {
                view: &self.view,
                seen: &self.seen,
                health: &health,
                backoff: &notes.backoff,
                actuated: &notes.actuated,
                now,
            };
            plan_pod(&input)
        };
        if plan.is_finished {
            self.begin_to_stop();
            return Next::Wait(Duration::ZERO);
        }
        self.note_back_offs(&plan);
        let wake_after = plan.wake_after;
        let (actions, held) = self.due(plan.actions);
        if !actions.is_empty() {
            self.volumes_are_due = false;
            self.under_way = Some(self.ops().apply(actions).boxed());
        } else if self.volumes_are_due && !self.seen.sandboxes.is_empty() {
            self.volumes_are_due = false;
            self.under_way = Some(self.ops().refresh_volumes().boxed());
        }
        let waits = [wake_after, held, self.deadline_left(), self.renewal_left()];
        Next::Wait(waits.into_iter().flatten().min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP))
    }

    /// The actions that need not wait, and how long the first of the others does.
    fn due(&self, actions: Vec<PodAction>) -> (Vec<PodAction>, Option<Duration>) {
        let notes = self.notes.lock();
        let sandbox_wait = notes.wait_of(SANDBOX);
        let mut held: Option<Duration> = None;
        let mut due = Vec::new();
        for action in actions {
            let wait = match &action {
                PodAction::CreateSandbox(_) => sandbox_wait,
                PodAction::Resize(_) => notes.wait_of(RESIZE),
                PodAction::StartContainer { name, .. } => sandbox_wait.or_else(|| notes.wait_of(name)),
                PodAction::StopSandbox(_) | PodAction::KillContainer { .. } | PodAction::RemoveContainer(_) => None,
            };
            match wait {
                Some(wait) => held = Some(held.map_or(wait, |known| known.min(wait))),
                None => due.push(action),
            }
        }
        (due, held)
    }

    fn note_back_offs(&self, plan: &PodPlan) {
        let pod = format!("{}_{}({})", self.view.name(), self.view.namespace(), self.view.uid());
        let mut notes = self.notes.lock();
        for (name, delay) in &plan.backing_off {
            let message =
                format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay.as_secs()));
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
            if notes.waiting.insert(name.clone(), waiting.clone()).as_ref() != Some(&waiting) {
                let text = format!("Back-off restarting failed container {name} in pod {pod}");
                self.events.container(name, EventType::Warning, "BackOff", text);
            }
        }
    }

    async fn step_stopping(&mut self, deadline: Instant) -> Next {
        if self.under_way.is_some() {
            return Next::Wait(LONGEST_SLEEP);
        }
        if self.seen.is_stopped() {
            self.stage = Stage::Stopped;
            self.node.grants.release(self.view.uid());
            self.node.host_ports.release(self.view.uid());
            return self.step_stopped().await;
        }
        self.under_way = Some(self.ops().stop_pod(deadline).boxed());
        Next::Wait(STOP_RETRY.max(LONGEST_SLEEP))
    }

    async fn step_stopped(&mut self) -> Next {
        if !self.is_cleaned {
            match self.clean_up().await {
                Ok(()) => self.is_cleaned = true,
                Err(why) => {
                    tracing::warn!(pod = self.view.name(), why, "pod not cleaned up");
                    return Next::Wait(STOP_RETRY);
                }
            }
        }
        if !self.wishes.borrow().is_gone {
            return Next::Wait(LONGEST_SLEEP);
        }
        match self.remove_remains().await {
            Ok(()) => Next::End,
            Err(error) => {
                tracing::warn!(pod = self.view.name(), %error, "remains of the pod not removed");
                Next::Wait(STOP_RETRY)
            }
        }
    }

    fn ops(&self) -> PodOps {
        PodOps {
            node: self.node.clone(),
            view: self.view.clone(),
            events: self.events.clone(),
            notes: self.notes.clone(),
            volumes: self.volumes.clone(),
            seen: self.seen.clone(),
        }
    }

    fn renewal_left(&self) -> Option<Duration> {
        let left = self.volumes.try_lock().ok()?.next_renewal()?;
        if left.is_zero() {
            self.objects_changed.notify_one();
        }
        Some(left.max(Duration::from_secs(1)))
    }

    fn publish(&mut self) {
        self.tell_resized();
        let is_over = matches!(self.stage, Stage::Stopped);
        let health = self.board.snapshot();
        let previous = self.status.borrow().clone();
        let host_ips = self.node.host_ips();
        let status = {
            let notes = self.notes.lock();
            pod_status(&StatusInput {
                view: &self.view,
                seen: &self.seen,
                health: &health,
                waiting: &notes.waiting,
                starting: &notes.starting,
                messages: &self.messages,
                verdict: self.verdict.as_ref(),
                resize: ResizeState {
                    actuated: &notes.actuated,
                    pending: self.pending_resize.as_ref(),
                    failure: notes.resize_failure.as_deref(),
                    generation: self.resize_generation.unwrap_or(self.view.pod.metadata.generation),
                },
                is_over,
                host_ips: &host_ips,
                previous: &previous,
                now: clock::now(),
            })
        };
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            if is_new {
                known.clone_from(&status);
            }
            is_new
        });
        let is_final = is_over && self.is_cleaned;
        if !self.wishes.borrow().is_gone {
            self.writer.write(Report {
                status,
                pod: self.view.pod.clone(),
                deletes: is_final && self.view.is_deleted(),
            });
        }
    }
}

async fn poll_step(step: &mut Option<BoxFuture<'static, ()>>) {
    match step {
        Some(step) => step.await,
        None => std::future::pending().await,
    }
}

fn verdict_event(verdict: &Verdict) -> &'static str {
    match verdict.reason.as_str() {
        "DeadlineExceeded" => "DeadlineExceeded",
        "SysctlForbidden" => "SysctlForbidden",
        _ => "FailedAdmission",
    }
}

/// Seconds as Go writes durations: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}
