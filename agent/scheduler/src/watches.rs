//! The kinds a decision depends on, as caches and changes.

use api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::policy::v1::PodDisruptionBudget;
use client::Client;
use lifecycle::Shutdown;
use reconcile::{Cache, Event, Reflector, ReflectorConfig, Subscription};
use tokio::task::JoinSet;

use crate::pod;

/// Pods that have ended hold nothing.
const RUNNING_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// The kinds a decision depends on.
pub(crate) struct Watches {
    reflectors: Option<Reflectors>,
    pub(crate) pods: Watch<Pod>,
    pub(crate) nodes: Watch<Node>,
    pub(crate) namespaces: Watch<Namespace>,
    pub(crate) claims: Watch<PersistentVolumeClaim>,
    pub(crate) volumes: Watch<PersistentVolume>,
    pub(crate) budgets: Watch<PodDisruptionBudget>,
}

type Reflectors = (
    Reflector<Pod>,
    Reflector<Node>,
    Reflector<Namespace>,
    Reflector<PersistentVolumeClaim>,
    Reflector<PersistentVolume>,
    Reflector<PodDisruptionBudget>,
);

pub(crate) struct Watch<K> {
    events: Subscription<K>,
    pub(crate) cache: Cache<K>,
    /// Everything the server had at the start was taken in.
    complete: bool,
}

fn watch<K: api::Resource>(client: &Client, config: ReflectorConfig<K>) -> (Reflector<K>, Watch<K>) {
    let mut reflector = Reflector::new(client.clone(), config);
    let watch = Watch { events: reflector.subscribe(), cache: reflector.cache(), complete: false };
    (reflector, watch)
}

impl<K: api::Resource> Watch<K> {
    /// The next change; never, once the reflector has ended.
    pub(crate) async fn next(&mut self) -> Event<K> {
        match self.events.next().await {
            Some(event) => {
                self.complete |= match event {
                    Event::Synced => true,
                    Event::Resync => self.cache.is_synced(),
                    Event::Applied { .. } | Event::Deleted(_) => false,
                };
                event
            }
            None => std::future::pending().await,
        }
    }
}

impl Watches {
    pub(crate) fn new(client: &Client) -> Self {
        let pods = ReflectorConfig {
            field_selector: RUNNING_PODS.to_owned(),
            project: pod::project,
            ..ReflectorConfig::default()
        };
        let (pod_reflector, pods) = watch(client, pods);
        let (node_reflector, nodes) = watch(client, ReflectorConfig::default());
        let (namespace_reflector, namespaces) = watch(client, ReflectorConfig::default());
        let (claim_reflector, claims) = watch(client, ReflectorConfig::default());
        let (volume_reflector, volumes) = watch(client, ReflectorConfig::default());
        let (budget_reflector, budgets) = watch(client, ReflectorConfig::default());
        let reflectors =
            (pod_reflector, node_reflector, namespace_reflector, claim_reflector, volume_reflector, budget_reflector);
        Self { reflectors: Some(reflectors), pods, nodes, namespaces, claims, volumes, budgets }
    }

    pub(crate) fn start(&mut self, tasks: &mut JoinSet<()>, shutdown: &Shutdown) {
        let Some((pods, nodes, namespaces, claims, volumes, budgets)) = self.reflectors.take() else { return };
        tasks.spawn(pods.run(shutdown.clone()));
        tasks.spawn(nodes.run(shutdown.clone()));
        tasks.spawn(namespaces.run(shutdown.clone()));
        tasks.spawn(claims.run(shutdown.clone()));
        tasks.spawn(volumes.run(shutdown.clone()));
        tasks.spawn(budgets.run(shutdown.clone()));
    }

    pub(crate) fn complete(&self) -> bool {
        self.pods.complete
            && self.nodes.complete
            && self.namespaces.complete
            && self.claims.complete
            && self.volumes.complete
            && self.budgets.complete
    }
}
