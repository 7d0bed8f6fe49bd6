//! The loop: takes changes in, decides one pod at a time, hands effects to tasks of their own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::policy::v1::PodDisruptionBudget;
use client::Client;
use lifecycle::Shutdown;
use reconcile::{Cache, Event, EventType, LeaderLease, Recorder};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::apply::{self, Report};
use crate::config::{Config, Error};
use crate::decide::{Decision, Refusal, Search, decide};
use crate::filter::Hopes;
use crate::pod::{PodInfo, PodKey};
use crate::preempt::{Budget, Preemption, plan_preemption};
use crate::queue::SchedulingQueue;
use crate::snapshot::{NodeChange, Snapshot};
use crate::watches::Watches;

/// Binds and reports under way; beyond that, deciding faster helps nobody.
const MAX_EFFECTS: usize = 128;

/// Schedules until `shutdown`; effects under way are finished first.
///
/// # Errors
/// When leadership is lost. Failures of single requests are logged and tried again.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    match config.leader_election.clone() {
        None => serve(config, client, shutdown).await,
        Some(lease) => {
            let lease = LeaderLease::new(client.clone(), lease);
            lease.run(shutdown, |leading| serve(config, client, leading)).await?;
        }
    }
    Ok(())
}

async fn serve(config: Config, client: Client, shutdown: Shutdown) {
    let mut watches = Watches::new(&client);
    let mut background = JoinSet::new();
    watches.start(&mut background, &shutdown);
    let (recorder, sender) = Recorder::new(client.clone(), &config.scheduler_name, "", shutdown.clone());
    background.spawn(sender);
    let mut scheduler = Scheduler {
        effects: Effects { client, recorder, name: config.scheduler_name.clone() },
        config,
        snapshot: Snapshot::default(),
        queue: SchedulingQueue::default(),
        assumed: HashSet::new(),
        budgets: Vec::new(),
        running: JoinSet::new(),
        start: 0,
        seed: 0,
    };
    scheduler.run(watches, shutdown).await;
    while background.join_next().await.is_some() {}
}

/// What effects need.
#[derive(Clone)]
struct Effects {
    client: Client,
    recorder: Recorder,
    name: String,
}

/// How an effect ended.
enum Outcome {
    /// A bind: the pod, its node, and whether it worked.
    Bind { pod: Arc<PodInfo>, node: String, result: client::Result<()> },
    /// Victims that could not be made to leave.
    Evict { failed: Vec<Arc<PodInfo>> },
    /// A report was made, or was not, which the next attempt repeats.
    Report,
}

struct Scheduler {
    config: Config,
    effects: Effects,
    snapshot: Snapshot,
    queue: SchedulingQueue,
    /// Pods placed by us whose node the server has not told us yet.
    assumed: HashSet<PodKey>,
    budgets: Vec<Budget>,
    running: JoinSet<Outcome>,
    /// Where the next search for nodes begins.
    start: usize,
    seed: u64,
}

impl Scheduler {
    async fn run(&mut self, mut watches: Watches, shutdown: Shutdown) {
        let mut announced = false;
        loop {
            let complete = watches.complete();
            if complete && !announced {
                info!(nodes = self.snapshot.node_count(), "scheduling");
                announced = true;
            }
            let may_decide = complete && self.running.len() < MAX_EFFECTS;
            let due = self.queue.next_due();
            // Changes first: a decision should see all that is known.
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                event = watches.pods.next() => self.on_pod(event, &watches.pods.cache),
                event = watches.nodes.next() => self.on_node(event, &watches.nodes.cache),
                event = watches.namespaces.next() => self.on_namespace(event, &watches.namespaces.cache),
                event = watches.claims.next() => self.on_claim(event, &watches.claims.cache),
                event = watches.volumes.next() => self.on_volume(event, &watches.volumes.cache),
                _ = watches.budgets.next() => self.on_budget(&watches.budgets.cache),
                Some(outcome) = self.running.join_next() => self.on_outcome(outcome),
                () = std::future::ready(()), if may_decide && self.queue.has_ready() => {
                    self.decide_next();
                    tokio::task::yield_now().await;
                }
                () = sleep_until(due) => self.queue.wake(Instant::now()),
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    fn on_pod(&mut self, event: Event<Pod>, cache: &Cache<Pod>) {
        match event {
            Event::Applied { new, .. } => self.apply_pod(&new),
            Event::Deleted(old) => self.pod_gone(&PodInfo::of(&old).key),
            Event::Synced => {}
            Event::Resync => {
                let known = self.snapshot.placed().map(|placed| placed.pod.clone());
                let gone: Vec<PodKey> = known
                    .filter(|pod| cache.get(&pod.namespace, &pod.name).is_none())
                    .map(|pod| pod.key.clone())
                    .collect();
                gone.iter().for_each(|key| self.pod_gone(key));
                cache.list().iter().for_each(|pod| self.apply_pod(pod));
            }
        }
    }

    fn apply_pod(&mut self, pod: &Pod) {
        let pod = Arc::new(PodInfo::of(pod));
        let now = Instant::now();
        if pod.finished {
            self.pod_gone(&pod.key);
        } else if !pod.node_name.is_empty() {
            self.queue.remove(&pod.key);
            self.assumed.remove(&pod.key);
            self.snapshot.forget_nomination(&pod.key);
            let hopes = match self.snapshot.placed_pod(&pod.key) {
                None => Some(Hopes::POD_PLACED),
                Some(before) if before.pod.labels != pod.labels => Some(Hopes::POD_PLACED),
                Some(before) if before.pod.requests != pod.requests => Some(Hopes::POD_GONE),
                Some(_) => None,
            };
            let node = pod.node_name.clone();
            self.snapshot.place_pod(pod, &node);
            if let Some(hopes) = hopes {
                self.queue.event(hopes, now);
            }
        } else if pod.deleting {
            self.queue.remove(&pod.key);
            self.snapshot.forget_nomination(&pod.key);
        } else if pod.scheduler_name == self.config.scheduler_name && !self.assumed.contains(&pod.key) {
            self.snapshot.nominate(&pod, &pod.nominated_node);
            self.queue.apply(pod, now);
        }
    }

    fn pod_gone(&mut self, key: &str) {
        self.queue.remove(key);
        self.assumed.remove(key);
        self.snapshot.forget_nomination(key);
        if self.snapshot.remove_pod(key).is_some() {
            self.queue.event(Hopes::POD_GONE.with(Hopes::POD_PLACED), Instant::now());
        }
    }

    fn on_node(&mut self, event: Event<Node>, cache: &Cache<Node>) {
        let mut helps = false;
        match event {
            Event::Applied { new, .. } => helps = self.snapshot.apply_node(&new) != NodeChange::Irrelevant,
            Event::Deleted(old) => self.snapshot.remove_node(&old.metadata.name),
            Event::Synced => {}
            Event::Resync => {
                let known = self.snapshot.present_nodes().map(|(_, node)| node.name.clone());
                let gone: Vec<String> = known.filter(|name| cache.get("", name).is_none()).collect();
                gone.iter().for_each(|name| self.snapshot.remove_node(name));
                for node in cache.list() {
                    helps |= self.snapshot.apply_node(&node) != NodeChange::Irrelevant;
                }
            }
        }
        if helps {
            self.queue.event(Hopes::NODE, Instant::now());
        }
    }

    fn on_namespace(&mut self, event: Event<Namespace>, cache: &Cache<Namespace>) {
        let namespaces = &mut self.snapshot.namespaces;
        let mut apply = |new: &Namespace| {
            let labels = new.metadata.labels.clone();
            namespaces.insert(new.metadata.name.clone(), labels.clone()) != Some(labels)
        };
        let changed = match event {
            Event::Applied { new, .. } => apply(&new),
            Event::Deleted(old) => namespaces.remove(&old.metadata.name).is_some(),
            Event::Synced => false,
            Event::Resync => cache.list().iter().fold(false, |changed, new| apply(new) | changed),
        };
        if changed {
            self.queue.event(Hopes::POD_PLACED, Instant::now());
        }
    }

    fn on_claim(&mut self, event: Event<PersistentVolumeClaim>, cache: &Cache<PersistentVolumeClaim>) {
        let volumes = &mut self.snapshot.volumes;
        match event {
            Event::Applied { new, .. } => volumes.apply_claim(&new),
            Event::Deleted(old) => volumes.remove_claim(&old.metadata.namespace, &old.metadata.name),
            Event::Synced => {}
            Event::Resync => {
                volumes.forget_claims();
                cache.list().iter().for_each(|claim| volumes.apply_claim(claim));
            }
        }
        self.queue.event(Hopes::VOLUME, Instant::now());
    }

    fn on_volume(&mut self, event: Event<PersistentVolume>, cache: &Cache<PersistentVolume>) {
        let volumes = &mut self.snapshot.volumes;
        match event {
            Event::Applied { new, .. } => volumes.apply_volume(&new),
            Event::Deleted(old) => volumes.remove_volume(&old.metadata.name),
            Event::Synced => {}
            Event::Resync => {
                volumes.forget_volumes();
                cache.list().iter().for_each(|volume| volumes.apply_volume(volume));
            }
        }
        self.queue.event(Hopes::VOLUME, Instant::now());
    }

    fn on_budget(&mut self, cache: &Cache<PodDisruptionBudget>) {
        self.budgets = cache.list().iter().map(|budget| Budget::of(budget)).collect();
    }

    fn on_outcome(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        match outcome {
            Ok(Outcome::Bind { pod, node, result: Ok(()) }) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.effects.recorder.event_on(reference(&pod), EventType::Normal, "Scheduled", message);
            }
            Ok(Outcome::Bind { pod, node, result: Err(error) }) => {
                warn!(pod = &*pod.key, node, %error, "bind failed");
                let now = Instant::now();
                if self.assumed.remove(&pod.key) {
                    self.snapshot.remove_pod(&pod.key);
                    self.queue.pause(&pod.key, now);
                    self.queue.event(Hopes::POD_GONE, now);
                }
            }
            Ok(Outcome::Evict { failed }) => {
                // They stay after all; they were taken for leaving.
                for victim in failed {
                    if let Some(placed) = self.snapshot.placed_pod(&victim.key)
                        && placed.pod.uid == victim.uid
                    {
                        let node = self.snapshot.node(placed.node).name.clone();
                        self.snapshot.place_pod(victim, &node);
                    }
                }
            }
            Ok(Outcome::Report) => {}
            Err(error) => warn!(%error, "an effect did not end"),
        }
    }

    fn decide_next(&mut self) {
        let Some(pod) = self.queue.pop(Instant::now()) else { return };
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let search =
            Search { start: self.start, percentage: self.config.percentage_of_nodes_to_score, seed: self.seed >> 33 };
        match decide(&pod, &self.snapshot, search) {
            Decision::Assign { node, examined } => {
                self.start = (self.start + examined) % self.snapshot.places().max(1);
                self.assign(pod, node);
            }
            Decision::Refuse(refusal) => self.refuse(&pod, refusal),
        }
    }

    fn assign(&mut self, pod: Arc<PodInfo>, node: String) {
        debug!(pod = &*pod.key, node, "assigned");
        self.snapshot.forget_nomination(&pod.key);
        self.snapshot.place_pod(pod.clone(), &node);
        self.assumed.insert(pod.key.clone());
        self.queue.event(Hopes::POD_PLACED, Instant::now());
        let effects = self.effects.clone();
        self.running.spawn(async move {
            let result = apply::bind(&effects.client, &pod, &node).await;
            Outcome::Bind { pod, node, result }
        });
    }

    fn refuse(&mut self, pod: &Arc<PodInfo>, mut refusal: Refusal) {
        let now = Instant::now();
        self.queue.refuse(&pod.key, refusal.hopes(), now);
        let mut report = Report { message: String::new(), nominated_node: None };
        let plan = plan_preemption(pod, &mut self.snapshot, &refusal, &self.budgets);
        let victims = match plan {
            Preemption::Evict { node, victims } => {
                self.make_room(pod, &node, &victims);
                report.nominated_node = Some(node);
                victims
            }
            Preemption::Wait(why) => {
                refusal.preemption = Some(why);
                Vec::new()
            }
            Preemption::Useless(why) => {
                refusal.preemption = Some(why);
                report.nominated_node = (!pod.nominated_node.is_empty()).then(String::new);
                self.snapshot.forget_nomination(&pod.key);
                Vec::new()
            }
        };
        report.message = refusal.message();
        debug!(pod = &*pod.key, message = report.message, "fits nowhere");
        let recorder = &self.effects.recorder;
        recorder.event_on(reference(pod), EventType::Warning, "FailedScheduling", report.message.clone());
        let (effects, preemptor) = (self.effects.clone(), pod.clone());
        self.running.spawn(effects.refuse(preemptor, report, victims));
    }

    /// Reserves the node for the pod and takes the victims for leaving from now on.
    fn make_room(&mut self, pod: &Arc<PodInfo>, node: &str, victims: &[Arc<PodInfo>]) {
        info!(pod = &*pod.key, node, victims = victims.len(), "making room");
        if let Some(nominated) = self.queue.nominate(&pod.key, node) {
            self.snapshot.nominate(&nominated, node);
        }
        for victim in victims {
            let leaving = PodInfo { deleting: true, ..(**victim).clone() };
            self.snapshot.place_pod(Arc::new(leaving), node);
        }
    }
}

impl Effects {
    async fn refuse(self, pod: Arc<PodInfo>, report: Report, victims: Vec<Arc<PodInfo>>) -> Outcome {
        let now = unix_now();
        if let Some(patch) = report.patch(&pod, now)
            && let Err(error) = apply::patch_status(&self.client, &pod, &patch).await
        {
            warn!(pod = &*pod.key, %error, "the pod's condition was not written");
        }
        let Some(node) = report.nominated_node.filter(|_| !victims.is_empty()) else { return Outcome::Report };
        let mut failed = Vec::new();
        for victim in victims {
            match apply::evict(&self.client, &victim, &self.name, now).await {
                Ok(()) => {
                    let message = format!("Preempted by pod {} on node {node}", pod.uid);
                    self.recorder.event_on(reference(&victim), EventType::Normal, "Preempted", message);
                }
                Err(error) => {
                    warn!(pod = &*victim.key, %error, "the pod could not be preempted");
                    failed.push(victim);
                }
            }
        }
        Outcome::Evict { failed }
    }
}

fn reference(pod: &PodInfo) -> api::core::v1::ObjectReference {
    api::core::v1::ObjectReference {
        kind: "Pod".to_owned(),
        api_version: "v1".to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        ..api::core::v1::ObjectReference::default()
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
