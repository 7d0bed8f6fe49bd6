//! `statefulset-controller`: pods with names that last, started and ended in order.
//!
//! ```text
//!   observe (pods by ordinal, revisions, claims) ─▶ plan ─▶ claims, create / delete / mend pods ─▶ status
//! ```

mod claims;
mod identity;
mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use api::apps::v1::{ControllerRevision, StatefulSet};
use api::core::v1::{PersistentVolumeClaim, Pod};
use api::labels::Selector;
use client::DeleteOptions;
use reconcile::{Action, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};
use crate::expectations::Writes;
use crate::history::{Found, History, Wanted, data_of, template_hash, template_of};
use crate::owned_pods::OwnedPods;
use identity::REVISION_LABEL;
use plan::Step;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Pause before looking again whether a claim of a former pod is gone.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct StatefulSets {
    context: Context,
    pods: OwnedPods<StatefulSet>,
    history: History,
    writes: Writes,
}

/// The templates that pods are made of.
pub(crate) struct Revisions {
    pub(crate) current: Arc<ControllerRevision>,
    pub(crate) update: Arc<ControllerRevision>,
    all: Vec<Arc<ControllerRevision>>,
}

fn selector(set: &StatefulSet) -> Result<Selector, Error> {
    Ok(Selector::from_object(set.spec.selector.as_ref())?)
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::stateful_sets, need::pods, need::revisions, need::claims];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.stateful_sets.handle(enqueue(queue));
        self.pods.watch(queue, reflectors, &self.context.caches.stateful_sets);
    }

    fn new(context: Context) -> Self {
        let pods = OwnedPods::new(context.clone(), selector).of_members(identity::is_member);
        Self { pods, history: History::new(context.clone()), writes: Writes::default(), context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(set) = self.context.caches.stateful_sets.get(&key.namespace, &key.name) else {
            self.pods.expectations.forget(&key);
            self.writes.forget(&key);
            return Ok(Action::Done);
        };
        if !self.writes.are_shown(&set.metadata) {
            return Err(Error::Behind);
        }
        let settled = self.pods.expectations.are_met(&key);
        let pods = self.pods.claim(&set).await?;
        let revisions = self.revisions(&set).await?;
        let now = now();
        let mut failure = None;
        let mut planned = plan::Plan::default();
        if settled && set.metadata.deletion_timestamp.is_none() {
            let current = template_of(&revisions.current).unwrap_or_else(|| set.spec.template.clone());
            planned = plan::plan(&set, &pods, (&revisions, &current), &self.claims(&set), now);
            failure = self.apply(&key, &set, &mut planned).await.err();
        }
        let status = status::plan(&set, &pods, &revisions, planned.updating, now);
        let waits = status::next_available(&set, &pods, now).map(Duration::from_secs);
        if status != set.status && (settled || status.replicas != set.status.replicas) {
            let changed = StatefulSet { status, ..(*set).clone() };
            let written = self.context.client.update_status(&changed).await.during("writing the status")?;
            self.writes.wrote(&written.metadata);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.truncate(&set, &revisions, &pods).await?;
        let again = waits.into_iter().chain(planned.claims_linger.then_some(CLAIM_PAUSE)).min();
        Ok(again.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl StatefulSets {
    fn claims(&self, set: &StatefulSet) -> impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>> + use<> {
        let (claims, namespace) = (self.context.caches.claims.clone(), set.metadata.namespace.clone());
        move |name| claims.get(&namespace, name)
    }

    /// The revision that pods had and the one they shall have.
    async fn revisions(&self, set: &StatefulSet) -> Result<Revisions, Error> {
        let all = self.history.claim(set, &selector(set)?).await?;
        let wanted = Wanted {
            data: data_of(set),
            hash: template_hash(&set.spec.template, set.status.collision_count),
            labels: set.spec.template.metadata.labels.clone(),
            hash_label: HASH_LABEL,
        };
        match self.history.ensure(set, &all, wanted).await? {
            Found::Revision(update) => {
                let current = all.iter().find(|r| r.metadata.name == set.status.current_revision);
                Ok(Revisions { current: current.unwrap_or(&update).clone(), update, all })
            }
            Found::Collision => {
                let mut changed = set.clone();
                changed.status.collision_count = Some(changed.status.collision_count.unwrap_or(0) + 1);
                self.context.client.update_status(&changed).await.during("counting a name collision")?;
                Err(Error::Behind)
            }
        }
    }

    async fn truncate(&self, set: &StatefulSet, revisions: &Revisions, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let used = |r: &ControllerRevision| {
            let name = &r.metadata.name;
            let has_pods = pods.iter().any(|pod| pod.metadata.labels.get(REVISION_LABEL) == Some(name));
            *name == revisions.current.metadata.name || *name == revisions.update.metadata.name || has_pods
        };
        self.history.truncate(&revisions.all, set.spec.revision_history_limit, used).await
    }

    async fn apply(&self, key: &Key, set: &StatefulSet, planned: &mut plan::Plan) -> Result<(), Error> {
        for step in std::mem::take(&mut planned.steps) {
            match step {
                Step::Create(pod) => self.create(key, set, &pod).await?,
                Step::Delete(pod) => self.delete(key, set, &pod).await?,
                Step::MakeClaims(pod) => self.make_claims(set, &pod).await?,
                Step::Mend(mended) => {
                    self.make_claims(set, &mended).await?;
                    let done = self.context.client.update(&*mended).await.map(drop);
                    self.tell(set, ("update", "SuccessfulUpdate", "FailedUpdate"), &mended, done.as_ref().err());
                    done.during("mending a pod")?;
                }
                Step::Own(claim) => {
                    self.context.client.update(&*claim).await.during("writing a claim's owners")?;
                }
            }
        }
        Ok(())
    }

    async fn create(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        self.make_claims(set, pod).await?;
        self.pods.expectations.expect_creations(key, 1);
        let done = self.context.client.create(pod).await.map(drop);
        if done.is_err() {
            self.pods.expectations.created(key);
        }
        self.tell(set, ("create", "SuccessfulCreate", "FailedCreate"), pod, done.as_ref().err());
        done.during("creating a pod")
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let meta = &pod.metadata;
        self.pods.expectations.expect_deletion(key, &meta.uid);
        let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
        let done = self.context.client.delete::<Pod>(Some(&meta.namespace), &meta.name, &options).await;
        if done.is_err() {
            self.pods.expectations.deleted(key, &meta.uid);
        }
        let done = done.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) });
        self.tell(set, ("delete", "SuccessfulDelete", "FailedDelete"), pod, done.as_ref().err());
        done.during("deleting a pod")
    }

    /// Makes the claims that a pod's volumes need and that are not there.
    async fn make_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        for claim in claims::of_pod(set, pod) {
            let name = &claim.metadata.name;
            if self.context.caches.claims.get(&claim.metadata.namespace, name).is_some() {
                continue;
            }
            let (pod, owner) = (&pod.metadata.name, &set.metadata.name);
            match self.context.client.create(&claim).await {
                Ok(_) => {
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {owner} success");
                    self.context.recorder.event(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let message =
                        format!("create Claim {name} for Pod {pod} in StatefulSet {owner} failed error: {error}");
                    self.context.recorder.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(error).during("creating a claim");
                }
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        set: &StatefulSet,
        (verb, good, bad): (&str, &'static str, &'static str),
        pod: &Pod,
        error: Option<&client::Error>,
    ) {
        let what = format!("{verb} Pod {} in StatefulSet {}", pod.metadata.name, set.metadata.name);
        match error {
            None => self.context.recorder.event(set, EventType::Normal, good, format!("{what} successful")),
            Some(error) => {
                self.context.recorder.event(set, EventType::Warning, bad, format!("{what} failed error: {error}"));
            }
        }
    }
}
