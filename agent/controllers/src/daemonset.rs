//! `daemonset-controller`: one pod of a template on every node that fits.
//!
//! ```text
//!   observe (nodes, pods by node, revisions) ─▶ plan::place ─▶ create / delete pods
//!                                                  │ nothing to do
//!                                                  ▼
//!                                             plan::roll ─▶ delete old pods / create surge pods ─▶ status
//! ```

mod backoff;
mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use api::apps::v1::{ControllerRevision, DaemonSet};
use api::core::v1::{Node, Pod};
use api::labels::Selector;
use reconcile::{Action, Event, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};
use crate::history::{Found, History, Wanted, data_of, template_hash};
use crate::node_fit::tie;
use crate::owned_pods::OwnedPods;
use crate::pods::pod_from_template;
use crate::tolerations;
use backoff::Backoffs;
use plan::Placed;

/// Label with the revision's hash, on pods and revisions.
const HASH_LABEL: &str = "controller-revision-hash";
/// Label and annotation with the number of the template, where old clients gave one.
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";
/// Pods created or deleted in one run at most.
const BURST: usize = 250;

pub(crate) struct DaemonSets {
    context: Context,
    pods: OwnedPods<DaemonSet>,
    history: History,
    backoffs: Backoffs,
}

/// What pods of the current template are known by.
pub(crate) struct Template {
    hash: String,
    generation: Option<String>,
}

impl Template {
    /// Whether the pod was made from it.
    fn made(&self, pod: &Pod) -> bool {
        let labels = &pod.metadata.labels;
        let numbered = self.generation.is_some() && labels.get(GENERATION_LABEL) == self.generation.as_ref();
        numbered || labels.get(HASH_LABEL) == Some(&self.hash)
    }
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset-controller";
    const WORKERS: usize = 2;
    const NEEDS: &'static [Need] = &[need::daemon_sets, need::nodes, need::pods, need::revisions];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.daemon_sets.handle(enqueue(queue));
        self.pods.watch(queue, reflectors, &self.context.caches.daemon_sets);
        let (queue, sets) = (queue.clone(), self.context.caches.daemon_sets.clone());
        reflectors.nodes.handle(move |event| {
            if is_new_to_daemons(event) {
                sets.list().iter().for_each(|set| queue.add(Key::of(&set.metadata)));
            }
        });
    }

    fn new(context: Context) -> Self {
        let pods = OwnedPods::new(context.clone(), selector);
        Self { pods, history: History::new(context.clone()), backoffs: Backoffs::default(), context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(set) = self.context.caches.daemon_sets.get(&key.namespace, &key.name) else {
            self.pods.expectations.forget(&key);
            return Ok(Action::Done);
        };
        if selector(&set)?.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
            self.context.recorder.event(&*set, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let settled = self.pods.expectations.are_met(&key);
        let (template, revisions) = self.template(&set).await?;
        let pods = plan::by_node(self.pods.claim(&set).await?);
        let nodes = self.context.caches.nodes.list();
        let mut retry = None;
        if settled {
            retry = self.act(&key, &set, (&nodes, &pods), &template).await?;
            let live = |r: &ControllerRevision| {
                let hash = r.metadata.labels.get(HASH_LABEL);
                let used = |pod: &Arc<Pod>| pod.metadata.labels.get(HASH_LABEL) == hash;
                hash == Some(&template.hash) || pods.values().flatten().any(used)
            };
            self.history.truncate(&revisions, set.spec.revision_history_limit, live).await?;
        }
        let next = self.write_status(&set, (&nodes, &pods), &template, settled).await?;
        let again = retry.into_iter().chain(next).min();
        Ok(again.map_or(Action::Done, Action::RequeueAfter))
    }
}

fn selector(set: &DaemonSet) -> Result<Selector, Error> {
    Ok(Selector::from_object(set.spec.selector.as_ref())?)
}

/// Whether a node is there, gone or changed in a way that can matter for where daemons run.
fn is_new_to_daemons(event: &Event<Node>) -> bool {
    match event {
        Event::Applied { old: None, .. } | Event::Deleted(_) => true,
        Event::Applied { old: Some(old), new } => {
            old.metadata.labels != new.metadata.labels || old.spec.taints != new.spec.taints
        }
        Event::Synced | Event::Resync => false,
    }
}

impl DaemonSets {
    /// The current template's revision, made where it is new, and all revisions that were there.
    async fn template(&self, set: &DaemonSet) -> Result<(Template, Vec<Arc<ControllerRevision>>), Error> {
        let revisions = self.history.claim(set, &selector(set)?).await?;
        let wanted = Wanted {
            data: data_of(set),
            hash: template_hash(&set.spec.template, set.status.collision_count),
            labels: set.spec.template.metadata.labels.clone(),
            hash_label: HASH_LABEL,
        };
        match self.history.ensure(set, &revisions, wanted).await? {
            Found::Revision(current) => {
                let hash = current.metadata.labels.get(HASH_LABEL).unwrap_or(&current.metadata.name).clone();
                let generation = set.metadata.annotations.get(GENERATION).cloned();
                Ok((Template { hash, generation }, revisions))
            }
            Found::Collision => {
                let mut changed = set.clone();
                changed.status.collision_count = Some(changed.status.collision_count.unwrap_or(0) + 1);
                self.context.client.update_status(&changed).await.during("counting a name collision")?;
                Err(Error::Behind)
            }
        }
    }

    /// Creates and deletes pods; when a failed pod may be replaced, where that is not yet.
    async fn act(
        &self,
        key: &Key,
        set: &DaemonSet,
        (nodes, pods): (&[Arc<Node>], &plan::ByNode),
        template: &Template,
    ) -> Result<Option<Duration>, Error> {
        let mut placed = plan::place(set, nodes, pods, template, now());
        let retry = self.judge_finished(set, &mut placed);
        if placed.create.is_empty() && placed.delete.is_empty() && set.spec.update_strategy.r#type != "OnDelete" {
            placed = plan::roll(set, nodes, pods, template, now());
        }
        placed.create.truncate(BURST);
        placed.delete.truncate(BURST);
        let shape = daemon_pod(set, template);
        let made: Vec<Pod> = placed
            .create
            .iter()
            .map(|node| {
                let mut pod = shape.clone();
                tie(&mut pod.spec, node);
                pod
            })
            .collect();
        let created = self.pods.create(key, set, &made).await;
        self.pods.delete(key, set, &placed.delete).await?;
        created.map(|()| retry)
    }

    /// Pods that ended are deleted, so that new ones come; those that failed not too often.
    fn judge_finished(&self, set: &DaemonSet, placed: &mut Placed) -> Option<Duration> {
        let mut retry: Option<Duration> = None;
        for pod in std::mem::take(&mut placed.finished) {
            let meta = &pod.metadata;
            let node = crate::node_fit::named_node(&pod.spec).unwrap_or_default();
            let name = format!("{}/{} on node {node}", meta.namespace, meta.name);
            if pod.status.phase == "Failed" {
                if let Err(wait) = self.backoffs.try_again(&set.metadata.uid, node) {
                    retry = Some(retry.map_or(wait, |r| r.min(wait)));
                    continue;
                }
                let message = format!("Found failed daemon pod {name}, will try to kill it");
                self.context.recorder.event(set, EventType::Warning, "FailedDaemonPod", message);
            } else {
                let message = format!("Found succeeded daemon pod {name}, will try to delete it");
                self.context.recorder.event(set, EventType::Normal, "SucceededDaemonPod", message);
            }
            placed.delete.push(pod);
        }
        retry
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        (nodes, pods): (&[Arc<Node>], &plan::ByNode),
        template: &Template,
        settled: bool,
    ) -> Result<Option<Duration>, Error> {
        let status = status::plan(set, nodes, pods, template, (settled, now()));
        let waiting = set.spec.min_ready_seconds > 0 && status.number_ready != status.number_available;
        if status != set.status {
            let changed = DaemonSet { status, ..set.clone() };
            self.context.client.update_status(&changed).await.during("writing the status")?;
        }
        let seconds = u64::try_from(set.spec.min_ready_seconds).unwrap_or(0);
        Ok(waiting.then(|| Duration::from_secs(seconds)))
    }
}

/// A pod of the set, before it is tied to a node.
fn daemon_pod(set: &DaemonSet, template: &Template) -> Pod {
    let mut pod = pod_from_template(set, &set.spec.template);
    pod.metadata.labels.insert(HASH_LABEL.to_owned(), template.hash.clone());
    if let Some(generation) = &template.generation {
        pod.metadata.labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let mut tolerated = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if pod.spec.host_network {
        tolerated.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    for (key, effect) in tolerated {
        let made = tolerations::exists(key, effect);
        let same = |t: &api::core::v1::Toleration| {
            t.key == made.key && t.effect == made.effect && t.operator == made.operator && t.value == made.value
        };
        match pod.spec.tolerations.iter_mut().find(|t| same(t)) {
            Some(place) => *place = made,
            None => pod.spec.tolerations.push(made),
        }
    }
    pod
}
