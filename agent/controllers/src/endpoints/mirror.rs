//! `endpointslice-mirroring-controller`: Endpoints that users write by hand, as slices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::core::v1::{EndpointAddress, Endpoints, Service};
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use client::DeleteOptions;
use reconcile::{Action, Queue};

use super::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::caches::{BY_SERVICE, Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, subject};
use crate::error::{During, Error};
use crate::owner::controller_reference;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something about the Endpoints object alone.
const OWN_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Addresses of a subset that are mirrored at most, as upstream.
const MAX_ENDPOINTS: usize = 1000;

pub(crate) struct Mirrors {
    context: Context,
}

impl Controller for Mirrors {
    const NAME: &'static str = "endpointslice-mirroring-controller";
    const NEEDS: &'static [Need] = &[need::endpoints, need::services, need::slices];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.endpoints.handle(enqueue(queue));
        reflectors.services.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.slices.handle(move |event| {
            if let Some(slice) = subject(event).filter(|slice| is_ours(slice))
                && let Some(service) = slice.metadata.labels.get(SERVICE_NAME_LABEL)
            {
                queue.add(Key::new(&slice.metadata.namespace, service));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let mut existing = caches.slices.by_index(BY_SERVICE, &format!("{}/{}", key.namespace, key.name));
        existing.retain(|slice| is_ours(slice));
        let service = caches.services.get(&key.namespace, &key.name);
        let endpoints = caches.endpoints.get(&key.namespace, &key.name);
        let mirrored = endpoints.filter(|endpoints| is_mirrored(endpoints, service.as_deref()));
        let wanted = mirrored.map(|endpoints| plan(&endpoints)).unwrap_or_default();
        self.apply(wanted, existing).await
    }
}

impl Mirrors {
    async fn apply(&self, wanted: Vec<EndpointSlice>, mut existing: Vec<Arc<EndpointSlice>>) -> Result<Action, Error> {
        let client = &self.context.client;
        for slice in wanted {
            let fits = |old: &Arc<EndpointSlice>| old.address_type == slice.address_type && old.ports == slice.ports;
            let any = |old: &Arc<EndpointSlice>| old.address_type == slice.address_type;
            let reused = existing.iter().position(fits).or_else(|| existing.iter().position(any));
            let Some(old) = reused.map(|at| existing.remove(at)) else {
                client.create(&slice).await.during("creating a mirrored slice")?;
                continue;
            };
            let mut changed = (*old).clone();
            changed.metadata.labels = slice.metadata.labels;
            changed.metadata.annotations = slice.metadata.annotations;
            changed.metadata.owner_references = slice.metadata.owner_references;
            (changed.ports, changed.endpoints) = (slice.ports, slice.endpoints);
            if changed != *old {
                client.update(&changed).await.during("updating a mirrored slice")?;
            }
        }
        for slice in existing {
            let meta = &slice.metadata;
            let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
            match client.delete::<EndpointSlice>(Some(&meta.namespace), &meta.name, &options).await {
                Err(error) if !error.is_not_found() => return Err(error).during("deleting a mirrored slice"),
                _ => {}
            }
        }
        Ok(Action::Done)
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGER)
}

/// Endpoints of a Service that selects no pods, unless they ask to be left alone.
fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let left_alone = meta.labels.get(SKIP_LABEL).is_some_and(|v| v == "true") || meta.annotations.contains_key(LEADER);
    !left_alone && service.is_some_and(|service| service.spec.selector.is_empty())
}

type Groups = BTreeMap<(String, &'static str), (Vec<EndpointPort>, Vec<Endpoint>)>;

/// The slices of these Endpoints: one per family and set of ports.
fn plan(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut groups = Groups::new();
    for subset in &endpoints.subsets {
        let port = |port: &api::core::v1::EndpointPort| EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        };
        let ports: Vec<EndpointPort> = subset.ports.iter().map(port).collect();
        let ready = subset.addresses.iter().map(|address| (address, true));
        let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)));
        for (address, ready) in all.take(MAX_ENDPOINTS) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            let entry = groups.entry((format!("{ports:?}"), family)).or_insert_with(|| (ports.clone(), Vec::new()));
            entry.1.push(endpoint(address, ready));
        }
    }
    let slices = groups.into_iter().map(|((_, family), (ports, group))| slice(endpoints, family, ports, group));
    slices.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
        hostname: Some(address.hostname.clone()).filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(owner: &Endpoints, family: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut slice = EndpointSlice { address_type: family.to_owned(), ports, endpoints, ..EndpointSlice::default() };
    let meta = &owner.metadata;
    slice.metadata.generate_name = format!("{}-", meta.name);
    slice.metadata.namespace.clone_from(&meta.namespace);
    slice.metadata.labels.clone_from(&meta.labels);
    slice.metadata.labels.insert(SERVICE_NAME_LABEL.to_owned(), meta.name.clone());
    slice.metadata.labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    slice.metadata.annotations.clone_from(&meta.annotations);
    OWN_ANNOTATIONS.iter().for_each(|own| {
        slice.metadata.annotations.remove(*own);
    });
    slice.metadata.owner_references = vec![controller_reference(owner)];
    slice
}

#[cfg(test)]
mod tests {
    use api::core::v1::EndpointSubset;

    use super::*;

    #[test]
    fn each_family_and_set_of_ports_gets_a_slice() {
        let address = |ip: &str| EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() };
        let port = |port| api::core::v1::EndpointPort { port, ..Default::default() };
        let mut endpoints = Endpoints::default();
        endpoints.metadata.name = "e".to_owned();
        endpoints.subsets = vec![
            EndpointSubset {
                addresses: vec![address("10.0.0.1"), address("fd00::1")],
                not_ready_addresses: vec![address("10.0.0.2")],
                ports: vec![port(80)],
            },
            EndpointSubset { addresses: vec![address("10.0.0.1")], ports: vec![port(90)], ..Default::default() },
        ];
        let slices = plan(&endpoints);
        let sizes: Vec<_> = slices.iter().map(|s| (s.address_type.as_str(), s.endpoints.len())).collect();
        assert_eq!(sizes, [("IPv4", 2), ("IPv6", 1), ("IPv4", 1)]);
        assert_eq!(slices[0].endpoints[1].conditions.ready, Some(false));
        assert!(!is_mirrored(&endpoints, None));
        assert!(is_mirrored(&endpoints, Some(&Service::default())));
        endpoints.metadata.labels.insert(SKIP_LABEL.to_owned(), "true".to_owned());
        assert!(!is_mirrored(&endpoints, Some(&Service::default())));
    }
}
