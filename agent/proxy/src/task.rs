//! The running proxy: watches in, rule changes out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1 as core;
use api::discovery::v1::EndpointSlice;
use client::Client;
use jiff::Timestamp;
use lifecycle::{Shutdown, Tasks};
use nft::{Nft, Script};
use reconcile::{Cache, Event, Queue, QueueGuard, Reflector, ReflectorConfig};
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::frame::Frame;
use crate::health::{Condition, Ports, serve_proxy};
use crate::plan::{Node, Target, plan_service};
use crate::service::{Family, ServiceName, ServicePlan};

/// The slices of one Service.
const BY_SERVICE: &str = "by-service";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Headless Services and those of other proxies have no rules here.
const SLICE_SELECTOR: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// Set by autoscalers on nodes they are about to remove.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// Services taken into one transaction, so that a flood does not hold the first change back for long.
const BATCH: usize = 4096;
/// After the kernel refused the rules: waits between tries to put everything in place anew.
const RETRY: stdx::Backoff =
    stdx::Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30), jitter: 0.0 };
/// For watches and health ports to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither an address nor a name says which node this is.
    #[error("the proxy needs the name of its node")]
    NoNodeName,
}

/// Runs the proxy until `shutdown`. The rules stay in force afterwards, so that a restart interrupts nothing.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    if config.node_name.is_empty() {
        return Err(Error::NoNodeName);
    }
    let tasks = Tasks::new();
    let stop = shutdown.child();
    let views = Views::watch(&config, &client, &tasks, &stop);
    let (condition, updates) = watch::channel(Condition::default());
    if let Some(address) = config.health_address {
        tasks.spawn("proxy health", serve_proxy(address, updates, stop.clone()));
    }
    let mut proxy = Proxy::new(config, views, condition);
    tokio::select! {
        () = shutdown.wait() => {}
        () = proxy.serve() => {}
    }
    stop.trigger();
    proxy.ports.close(DRAIN).await;
    let left = tasks.drain(DRAIN).await;
    if !left.is_empty() {
        tracing::warn!(tasks = ?left, "did not end in time");
    }
    Ok(())
}

/// What is watched.
struct Views {
    services: Cache<core::Service>,
    slices: Cache<EndpointSlice>,
    nodes: Cache<core::Node>,
    dirty: Queue<ServiceName>,
    node_changed: Arc<Notify>,
}

impl Views {
    fn watch(config: &Config, client: &Client, tasks: &Tasks, stop: &Shutdown) -> Self {
        let dirty: Queue<ServiceName> = Queue::new();
        let node_changed = Arc::new(Notify::new());

        let queue = dirty.clone();
        let project = |service: &mut core::Service| service.metadata = slim(&mut service.metadata);
        let services = Reflector::new(client.clone(), ReflectorConfig { project, ..Default::default() })
            .on_event(move |event| changed(event, |service| queue.add(name_of(&service.metadata))));

        let queue = dirty.clone();
        let project = |slice: &mut EndpointSlice| {
            slice.metadata = slim(&mut slice.metadata);
            for endpoint in &mut slice.endpoints {
                endpoint.target_ref = None;
            }
        };
        let label_selector = SLICE_SELECTOR.to_owned();
        let slices = Reflector::new(client.clone(), ReflectorConfig { project, label_selector, ..Default::default() })
            .add_index(BY_SERVICE, |slice: &EndpointSlice| {
                service_of(slice).map(|name| name.to_string()).into_iter().collect()
            })
            .on_event(move |event| {
                changed(event, |slice| service_of(slice).into_iter().for_each(|name| queue.add(name)))
            });

        let notify = node_changed.clone();
        let field_selector = format!("metadata.name={}", config.node_name);
        let nodes = Reflector::new(client.clone(), ReflectorConfig { field_selector, ..Default::default() })
            .on_event(move |_event: &Event<core::Node>| notify.notify_one());

        let views =
            Self { services: services.cache(), slices: slices.cache(), nodes: nodes.cache(), dirty, node_changed };
        tasks.spawn("watch services", services.run(stop.clone()));
        tasks.spawn("watch endpoint slices", slices.run(stop.clone()));
        tasks.spawn("watch own node", nodes.run(stop.clone()));
        views
    }

    async fn wait_synced(&self) {
        self.services.wait_synced().await;
        self.slices.wait_synced().await;
        self.nodes.wait_synced().await;
    }

    fn plan(&self, name: &ServiceName, node: &Node) -> ServicePlan {
        let Some(service) = self.services.get(&name.namespace, &name.name) else { return ServicePlan::default() };
        plan_service(&service, &self.slices.by_index(BY_SERVICE, &name.to_string()), node)
    }
}

/// Calls `note` for the object before and the one after: a slice can change hands.
fn changed<K>(event: &Event<K>, note: impl Fn(&K)) {
    match event {
        Event::Applied { old, new } => {
            if let Some(old) = old {
                note(old);
            }
            note(new);
        }
        Event::Deleted(old) => note(old),
        // Differences found by a new list come as changes of their own.
        Event::Synced | Event::Resync => {}
    }
}

fn name_of(metadata: &api::meta::v1::ObjectMeta) -> ServiceName {
    ServiceName::new(metadata.namespace.as_str(), metadata.name.as_str())
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.get(SERVICE_LABEL)?;
    Some(ServiceName::new(slice.metadata.namespace.as_str(), name.as_str()))
}

/// The few fields of metadata that matter here.
fn slim(metadata: &mut api::meta::v1::ObjectMeta) -> api::meta::v1::ObjectMeta {
    api::meta::v1::ObjectMeta {
        namespace: std::mem::take(&mut metadata.namespace),
        name: std::mem::take(&mut metadata.name),
        labels: std::mem::take(&mut metadata.labels),
        uid: std::mem::take(&mut metadata.uid),
        resource_version: std::mem::take(&mut metadata.resource_version),
        ..Default::default()
    }
}

struct Proxy {
    config: Config,
    views: Views,
    nft: Nft,
    node: Node,
    node_ports: Vec<IpAddr>,
    frame: Frame,
    condition: watch::Sender<Condition>,
    ports: Ports,
}

impl Proxy {
    fn new(config: Config, views: Views, condition: watch::Sender<Condition>) -> Self {
        let nft = config.nft.as_ref().map_or_else(Nft::default, Nft::at);
        let frame = Frame::new(&config, &[]);
        let (node, node_ports, ports) = (Node::default(), Vec::new(), Ports::default());
        Self { config, views, nft, node, node_ports, frame, condition, ports }
    }

    /// Never returns.
    async fn serve(&mut self) {
        self.views.wait_synced().await;
        self.observe_node();
        self.rebuild().await;
        loop {
            let changed = tokio::select! {
                (name, guard) = self.views.dirty.next() => Some((name, guard)),
                () = self.views.node_changed.notified() => None,
            };
            match changed {
                Some(first) => self.follow(first).await,
                None if self.observe_node() => self.rebuild().await,
                None => {}
            }
        }
    }

    /// Looks at the own Node. Returns whether something that rules depend on is different.
    fn observe_node(&mut self) -> bool {
        let object = self.views.nodes.get("", &self.config.node_name);
        let zone = object.as_ref().and_then(|object| object.metadata.labels.get(ZONE_LABEL).cloned());
        let local_addresses = self.config.local_addresses.clone();
        let node = Node { name: self.config.node_name.clone(), zone, local_addresses };
        let node_ports = node_port_addresses(&self.config, object.as_deref());
        let is_leaving = object.is_some_and(|object| {
            object.metadata.deletion_timestamp.is_some()
                || object.spec.taints.iter().any(|taint| taint.key == LEAVING_TAINT)
        });
        self.condition.send_modify(|condition| condition.is_leaving = is_leaving);
        let differs = node != self.node || node_ports != self.node_ports;
        self.node = node;
        self.node_ports = node_ports;
        differs
    }

    /// Plans everything anew and puts it in place of what is there.
    async fn rebuild(&mut self) {
        let mut frame = Frame::new(&self.config, &self.node_ports);
        let names = self.views.services.list().into_iter().map(|service| name_of(&service.metadata));
        let plans: BTreeMap<_, _> = names.map(|name| (name.clone(), self.views.plan(&name, &self.node))).collect();
        drop(frame.update(plans));
        self.frame = frame;
        self.replace().await;
        self.follow_health();
    }

    /// Takes in the Services that wait.
    async fn follow(&mut self, first: (ServiceName, QueueGuard<ServiceName>)) {
        let mut batch = vec![first];
        while batch.len() < BATCH && !self.views.dirty.is_empty() {
            batch.push(self.views.dirty.next().await);
        }
        let plans: Vec<_> =
            batch.iter().map(|(name, _guard)| (name.clone(), self.views.plan(name, &self.node))).collect();
        let script = self.frame.update(plans);
        if let Err(error) = self.nft.run(&script).await {
            tracing::error!(error = %stdx::chain(&error), "cannot change the rules, replacing them all");
            self.replace().await;
        } else {
            self.note_current();
        }
        self.follow_health();
    }

    /// Puts everything in place, however long it takes.
    async fn replace(&mut self) {
        let script: Script = self.frame.replace_script();
        for attempt in 0.. {
            match self.nft.run(&script).await {
                Ok(()) => break,
                Err(error) => {
                    self.condition.send_modify(|condition| condition.current_since = None);
                    tracing::error!(error = %stdx::chain(&error), attempt, "cannot put the rules in place");
                    tokio::time::sleep(RETRY.base(attempt)).await;
                }
            }
        }
        self.note_current();
    }

    fn note_current(&self) {
        self.condition.send_modify(|condition| condition.current_since = Some(Timestamp::now()));
    }

    fn follow_health(&mut self) {
        let wishes = self.frame.plans().filter_map(|(name, plan)| {
            let health = plan.health?;
            Some(Target { service: name.clone(), port: health.port, local_endpoints: health.local_endpoints })
        });
        let wishes = wishes.collect();
        self.ports.follow(wishes);
    }
}

/// The addresses that answer node ports: those in the configured ranges, or the primary one of each family.
fn node_port_addresses(config: &Config, node: Option<&core::Node>) -> Vec<IpAddr> {
    let mut own = config.node_addresses.clone();
    if own.is_empty() {
        let addresses = node.map(|node| node.status.addresses.as_slice()).unwrap_or_default();
        own.extend(
            addresses
                .iter()
                .filter(|address| address.r#type == "InternalIP")
                .filter_map(|a| a.address.parse::<IpAddr>().ok()),
        );
    }
    if config.node_port_addresses.is_empty() {
        return Family::BOTH
            .iter()
            .filter_map(|family| own.iter().find(|a| Family::of(a) == *family).copied())
            .collect();
    }
    own.retain(|address| config.node_port_addresses.iter().any(|range| range.contains(address)));
    own
}
