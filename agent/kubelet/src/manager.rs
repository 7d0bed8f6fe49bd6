//! The pods of this node: starts a worker for each, tells it what is wished, and cleans up what nobody wishes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::core::v1::{Pod, PodStatus};
use cri::v1;
use futures::StreamExt;
use lifecycle::Shutdown;
use reconcile::{Cache, Event, Subscription};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::ending;
use crate::observed::keys;
use crate::pod::{is_mirror, uid_of};
use crate::status::Verdict;
use crate::worker::{PodWorker, Wish, WorkerHandle};

/// The safety net under the runtime's events.
const RELIST: Duration = Duration::from_secs(10);
/// Wait before the stream of events is opened again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);
/// Ended workers that may wait to be heard.
const ENDED_LEN: usize = 64;
/// Changes of static pods that may wait.
pub(crate) const STATIC_LEN: usize = 64;

/// A change of the static pods.
#[derive(Clone, Debug)]
pub(crate) enum StaticChange {
    Applied(Arc<Pod>),
    Removed(Arc<Pod>),
}

/// What the server and the node's status ask of the pods.
#[derive(Clone, Default)]
pub(crate) struct PodTable {
    workers: Arc<Mutex<BTreeMap<String, Entry>>>,
}

struct Entry {
    pod: Arc<Pod>,
    handle: WorkerHandle,
}

impl PodTable {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of these pods, and what their workers would hear.
    #[cfg(test)]
    pub(crate) fn of_a_test(pods: &[Arc<Pod>]) -> (Self, Vec<tokio::sync::watch::Receiver<Wish>>) {
        let table = Self::default();
        let add = |pod: &Arc<Pod>| {
            let wish = Wish { pod: pod.clone(), is_gone: false, eviction: None, end: None };
            let (wishes, heard) = tokio::sync::watch::channel(wish);
            let status = tokio::sync::watch::channel(PodStatus::default()).1;
            let handle = WorkerHandle { wishes, wake: Arc::default(), status };
            table.lock().insert(uid_of(pod).to_owned(), Entry { pod: pod.clone(), handle });
            heard
        };
        let heard = pods.iter().map(add).collect();
        (table, heard)
    }

    /// All pods with their newest status.
    pub(crate) fn list(&self) -> Vec<(Arc<Pod>, PodStatus)> {
        self.lock().values().map(|e| (e.pod.clone(), e.handle.status.borrow().clone())).collect()
    }

    /// The pod of this name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let table = self.lock();
        let mut found = table.values().filter(|e| e.pod.metadata.namespace == namespace && e.pod.metadata.name == name);
        found.next().map(|e| e.pod.clone())
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<Pod>> {
        self.lock().get(uid).map(|e| e.pod.clone())
    }

    /// Puts a pod out.
    pub(crate) fn evict(&self, uid: &str, verdict: Verdict) {
        if let Some(entry) = self.lock().get(uid) {
            entry.handle.wishes.send_modify(|wish| wish.eviction = Some(verdict));
        }
    }

    /// Lets a pod end by then. What is answered, its name, comes once it has.
    pub(crate) fn end(&self, uid: &str, deadline: Instant) -> Option<impl Future<Output = String> + use<>> {
        let table = self.lock();
        let entry = table.get(uid)?;
        let name = format!("{}/{}", entry.pod.metadata.namespace, entry.pod.metadata.name);
        let wishes = entry.handle.wishes.clone();
        wishes.send_modify(|wish| wish.end = Some(deadline));
        Some(async move {
            wishes.closed().await;
            name
        })
    }

    fn wake(&self, uid: &str) {
        if let Some(entry) = self.lock().get(uid) {
            entry.handle.wake.notify_one();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// The manager's own task.
pub(crate) struct Manager {
    node: Arc<NodeContext>,
    table: PodTable,
    ended: (mpsc::Sender<String>, mpsc::Receiver<String>),
    /// What the runtime had of each pod when last listed.
    listed: HashMap<String, Vec<(String, i32)>>,
    is_api_synced: bool,
}

/// Where pods come from.
pub(crate) struct PodSources {
    pub(crate) api: Subscription<Pod>,
    pub(crate) cache: Cache<Pod>,
    pub(crate) statics: mpsc::Receiver<StaticChange>,
}

impl Manager {
    pub(crate) fn new(node: Arc<NodeContext>, table: PodTable) -> Self {
        Self { node, table, ended: mpsc::channel(ENDED_LEN), listed: HashMap::new(), is_api_synced: false }
    }

    /// Runs until the shutdown, and ends the pods if the machine ends.
    pub(crate) async fn run(mut self, mut sources: PodSources, shutdown: Shutdown) {
        let (woken, mut wakes) = mpsc::channel(ENDED_LEN);
        self.node.tasks.spawn("runtime events", follow_events(self.node.clone(), woken));
        let mut relist = tokio::time::interval(RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.wait() => break,
                Some(change) = sources.api.next() => self.take_api(change, &sources.cache),
                Some(change) = sources.statics.recv() => match change {
                    StaticChange::Applied(pod) => self.wish(pod, false),
                    StaticChange::Removed(pod) => self.wish(pod, true),
                },
                Some(uid) = wakes.recv() => self.table.wake(&uid),
                Some(uid) = self.ended.1.recv() => self.forget(&uid),
                _tick = relist.tick() => self.relist().await,
            }
        }
        // Nobody starts a pod any more.
        if let Some(ending) = &self.node.config.ending {
            ending::end(&self.table, &**ending).await;
        }
    }

    fn take_api(&mut self, change: Event<Pod>, cache: &Cache<Pod>) {
        match change {
            Event::Applied { new, .. } => self.take_pod(new),
            Event::Deleted(pod) => {
                if !is_mirror(&pod) {
                    self.wish(pod, true);
                }
            }
            Event::Synced | Event::Resync => {
                let pods = cache.list();
                self.drop_absent(&pods);
                pods.into_iter().for_each(|pod| self.take_pod(pod));
                self.is_api_synced = true;
            }
        }
    }

    fn take_pod(&mut self, pod: Arc<Pod>) {
        if !is_mirror(&pod) {
            self.wish(pod, false);
        }
    }

    /// Pods that the API server does not have any more.
    fn drop_absent(&self, present: &[Arc<Pod>]) {
        let gone: Vec<Arc<Pod>> = {
            let table = self.table.lock();
            let absent =
                |e: &&Entry| !crate::pod::is_static(&e.pod) && !present.iter().any(|p| uid_of(p) == uid_of(&e.pod));
            table.values().filter(absent).map(|e| e.pod.clone()).collect()
        };
        for pod in gone {
            self.tell(&pod, true);
        }
    }

    fn wish(&mut self, pod: Arc<Pod>, is_gone: bool) {
        if self.tell(&pod, is_gone) || is_gone {
            return;
        }
        let uid = uid_of(&pod).to_owned();
        let wish = Wish { pod: pod.clone(), is_gone: false, eviction: None, end: None };
        let (worker, handle) = PodWorker::new(self.node.clone(), wish);
        let ended = self.ended.0.clone();
        let done = uid.clone();
        self.node.tasks.spawn("pod worker", async move {
            worker.run().await;
            if ended.send(done).await.is_err() {
                tracing::debug!("the manager ended before a worker");
            }
        });
        self.table.lock().insert(uid, Entry { pod, handle });
    }

    /// Tells a pod's worker of its newest state. Returns whether there is one.
    fn tell(&self, pod: &Arc<Pod>, is_gone: bool) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(uid_of(pod)) else { return false };
        entry.pod = pod.clone();
        entry.handle.wishes.send_modify(|wish| {
            wish.pod = pod.clone();
            wish.is_gone = is_gone;
        });
        true
    }

    fn forget(&mut self, uid: &str) {
        self.table.lock().remove(uid);
        self.listed.remove(uid);
    }

    /// Compares with what the runtime has, in case an event was lost.
    async fn relist(&mut self) {
        let runtime = &self.node.runtime;
        let lists = tokio::try_join!(runtime.list_sandboxes(HashMap::new()), runtime.list_containers(HashMap::new()));
        let (sandboxes, containers) = match lists {
            Ok(lists) => lists,
            Err(error) => {
                tracing::warn!(%error, "runtime not listed");
                return;
            }
        };
        let mut now: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        let items = sandboxes.iter().map(|s| (&s.labels, &s.id, s.state));
        for (labels, id, state) in items.chain(containers.iter().map(|c| (&c.labels, &c.id, c.state))) {
            if let Some(uid) = labels.get(keys::POD_UID) {
                now.entry(uid.clone()).or_default().push((id.clone(), state));
            }
        }
        now.values_mut().for_each(|list| list.sort());
        for uid in now.keys().chain(self.listed.keys()) {
            if now.get(uid) != self.listed.get(uid) {
                self.table.wake(uid);
            }
        }
        if self.is_api_synced {
            self.remove_orphans(&sandboxes).await;
        }
        self.listed = now;
    }

    /// Ends pods that run although nobody wishes them.
    async fn remove_orphans(&self, sandboxes: &[v1::PodSandbox]) {
        for sandbox in sandboxes {
            let Some(uid) = sandbox.labels.get(keys::POD_UID) else { continue };
            if self.table.by_uid(uid).is_some() {
                continue;
            }
            // Only what was there the last time, too: a pod may just be coming.
            if !self.listed.contains_key(uid) {
                continue;
            }
            tracing::info!(uid, "ending a pod that nobody wishes");
            let runtime = &self.node.runtime;
            let ended = async {
                runtime.stop_sandbox(&sandbox.id).await?;
                runtime.remove_sandbox(&sandbox.id).await
            };
            if let Err(error) = ended.await {
                tracing::warn!(uid, %error, "orphaned pod not removed");
            }
            crate::orphans::remove_orphan_files(&self.node, uid).await;
        }
    }
}

/// Wakes the workers of pods about which the runtime reports something.
async fn follow_events(node: Arc<NodeContext>, woken: mpsc::Sender<String>) {
    loop {
        let work = async {
            match node.runtime.events().await {
                Ok(mut events) => {
                    while let Some(event) = events.next().await {
                        let Ok(event) = event else { break };
                        if let Some(uid) = event_uid(&event)
                            && woken.send(uid).await.is_err()
                        {
                            return;
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "no events from the runtime"),
            }
        };
        tokio::select! {
            () = node.shutdown.wait() => return,
            () = work => {}
        }
        tokio::select! {
            () = node.shutdown.wait() => return,
            () = tokio::time::sleep(EVENTS_RETRY) => {}
        }
    }
}

fn event_uid(event: &v1::ContainerEventResponse) -> Option<String> {
    let sandbox = event.pod_sandbox_status.as_ref()?;
    Some(sandbox.metadata.as_ref()?.uid.clone())
}
