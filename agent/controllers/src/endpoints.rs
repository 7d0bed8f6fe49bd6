//! `endpointslice-controller` and `endpoints-controller`: which pods stand behind a Service.

mod legacy;
mod mirror;
mod slices;

pub(crate) use mirror::Mirrors;

use std::sync::Arc;

use api::core::v1::{Pod, Service, ServicePort};
use api::discovery::v1::EndpointSlice;
use api::labels::Selector;
use client::DeleteOptions;
use reconcile::{Action, Cache, Event, Queue};

use crate::caches::{BY_SERVICE, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue};
use crate::error::{During, Error};
use slices::Change;

/// Label that tells a slice's Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label that tells who keeps a slice.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Keeps the EndpointSlices of Services with selectors.
pub(crate) struct EndpointSlices {
    context: Context,
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::services, need::pods, need::nodes, need::slices];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        watch_services(queue, reflectors, &self.context);
        let own = queue.clone();
        reflectors.slices.handle(move |event| {
            let Some(slice) = crate::controller::subject(event) else { return };
            if let Some(service) = slice.metadata.labels.get(SERVICE_NAME_LABEL) {
                own.add(Key::new(&slice.metadata.namespace, service));
            }
        });
        // A node's zone is part of its pods' endpoints; nodes of services are not indexed, so all are looked at.
        let (own, services) = (queue.clone(), self.context.caches.services.clone());
        reflectors.nodes.handle(move |event| {
            if let Event::Applied { old: Some(old), new } = event
                && slices::zone(old) != slices::zone(new)
            {
                services.list().iter().for_each(|s| own.add(Key::of(&s.metadata)));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let existing = own_slices(&caches.slices, &key);
        let service = caches.services.get(&key.namespace, &key.name);
        let changes = match service.filter(|s| has_pods(s)) {
            None => existing.into_iter().map(Change::Delete).collect(),
            Some(service) => {
                let pods = selected(&caches.pods, &service);
                let nodes = |name: &str| caches.nodes.get("", name);
                slices::plan(&service, &pods, &existing, &nodes)
            }
        };
        for change in changes {
            self.apply(change).await?;
        }
        Ok(Action::Done)
    }
}

impl EndpointSlices {
    async fn apply(&self, change: Change) -> Result<(), Error> {
        let client = &self.context.client;
        let (result, step) = match change {
            Change::Create(slice) => (client.create(&*slice).await.map(|_| ()), "creating an EndpointSlice"),
            Change::Update(slice) => (client.update(&*slice).await.map(|_| ()), "updating an EndpointSlice"),
            Change::Delete(slice) => {
                let (namespace, name) = (Some(slice.metadata.namespace.as_str()), slice.metadata.name.as_str());
                let options = DeleteOptions::default();
                (client.delete::<EndpointSlice>(namespace, name, &options).await, "deleting an EndpointSlice")
            }
        };
        match result {
            // A namespace that is being deleted takes its slices along.
            Err(error) if error.is_forbidden() || error.is_not_found() => Ok(()),
            other => other.during(step),
        }
    }
}

/// Keeps the Endpoints of Services with selectors.
pub(crate) struct EndpointsObjects {
    context: Context,
}

impl Controller for EndpointsObjects {
    const NAME: &'static str = "endpoints-controller";
    const WORKERS: usize = 5;
    const NEEDS: &'static [Need] = &[need::services, need::pods, need::endpoints];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        watch_services(queue, reflectors, &self.context);
        reflectors.endpoints.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let existing = caches.endpoints.get(&key.namespace, &key.name);
        let Some(service) = caches.services.get(&key.namespace, &key.name) else { return self.remove(existing).await };
        if !has_pods(&service) {
            return Ok(Action::Done);
        }
        let pods = selected(&caches.pods, &service);
        let Some(wanted) = legacy::plan(&service, &pods, existing.as_deref()) else { return Ok(Action::Done) };
        let result = match existing {
            None => self.context.client.create(&wanted).await,
            Some(_) => self.context.client.update(&wanted).await,
        };
        match result {
            Err(error) if !error.is_forbidden() && !error.is_not_found() => Err(error).during("writing Endpoints"),
            _ => Ok(Action::Done),
        }
    }
}

impl EndpointsObjects {
    /// Endpoints go with their Service; those of a leader election, and those somebody made by hand, stay.
    async fn remove(&self, existing: Option<Arc<api::core::v1::Endpoints>>) -> Result<Action, Error> {
        let Some(existing) = existing.filter(|e| e.metadata.labels.contains_key(legacy::MANAGED_LABEL)) else {
            return Ok(Action::Done);
        };
        let (namespace, name) = (Some(existing.metadata.namespace.as_str()), existing.metadata.name.as_str());
        let options = DeleteOptions { uid: Some(existing.metadata.uid.clone()), ..DeleteOptions::default() };
        match self.context.client.delete::<api::core::v1::Endpoints>(namespace, name, &options).await {
            Err(error) if !error.is_not_found() => Err(error).during("deleting Endpoints"),
            _ => Ok(Action::Done),
        }
    }
}

/// Services under their own names, and the Services that select a pod that changes.
fn watch_services(queue: &Queue<Key>, reflectors: &mut Reflectors, context: &Context) {
    reflectors.services.handle(enqueue(queue));
    let (queue, services) = (queue.clone(), context.caches.services.clone());
    reflectors.pods.handle(move |event| match event {
        Event::Applied { old, new } => {
            if let Some(old) = old
                && old.metadata.labels == new.metadata.labels
                && !slices::matters(old, new)
            {
                return;
            }
            old.iter().chain([new]).for_each(|pod| enqueue_selecting(pod, &services, &queue));
        }
        Event::Deleted(pod) => enqueue_selecting(pod, &services, &queue),
        Event::Synced | Event::Resync => {}
    });
}

fn enqueue_selecting(pod: &Pod, services: &Cache<Service>, queue: &Queue<Key>) {
    let selecting =
        |s: &&Arc<Service>| has_pods(s) && Selector::from_map(&s.spec.selector).matches(&pod.metadata.labels);
    let found = services.list_namespace(&pod.metadata.namespace);
    found.iter().filter(selecting).for_each(|service| queue.add(Key::of(&service.metadata)));
}

fn has_pods(service: &Service) -> bool {
    !service.spec.selector.is_empty() && service.spec.r#type != "ExternalName"
}

fn selected(pods: &Cache<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    let selector = Selector::from_map(&service.spec.selector);
    let mut found = pods.list_namespace(&service.metadata.namespace);
    found.retain(|pod| selector.matches(&pod.metadata.labels));
    found
}

fn own_slices(slices: &Cache<EndpointSlice>, key: &Key) -> Vec<Arc<EndpointSlice>> {
    let mut own = slices.by_index(BY_SERVICE, &format!("{}/{}", key.namespace, key.name));
    own.retain(|s| s.metadata.labels.get(MANAGED_BY_LABEL).is_some_and(|m| m == MANAGER));
    own
}

/// The port of a pod that a service port leads to; `None` where the pod has no port of that name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        target if target.r#type == 1 => {
            let containers = pod
                .spec
                .containers
                .iter()
                .chain(pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always")));
            let mut ports = containers.flat_map(|c| &c.ports);
            ports.find(|p| p.name == target.str_val && p.protocol == port.protocol).map(|p| p.container_port)
        }
        target if target.int_val > 0 => Some(target.int_val),
        _ => Some(port.port),
    }
}

/// Name that DNS gives the pod in its subdomain, where the subdomain is this Service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let own = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    own.then(|| pod.spec.hostname.clone())
}
