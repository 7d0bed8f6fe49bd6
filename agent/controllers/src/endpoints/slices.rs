//! EndpointSlices: at most a hundred endpoints each, by address family and by the ports they lead to.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::v1::{Node, ObjectReference, Pod, Service};
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::{MANAGED_BY_LABEL, MANAGER, SERVICE_NAME_LABEL, hostname, target_port};
use crate::owner::controller_reference;
use crate::pods::{is_finished, is_ready};

/// Endpoints a slice holds at most, as upstream's default.
const MAX_ENDPOINTS: usize = 100;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// A change of the Service's slices.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// Whether a pod's change can change endpoints.
pub(super) fn matters(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        (
            pod.status.pod_ips.clone(),
            is_ready(pod),
            is_finished(pod),
            pod.metadata.deletion_timestamp,
            pod.spec.node_name.clone(),
        )
    };
    facts(old) != facts(new)
}

pub(super) fn zone(node: &Node) -> Option<&String> {
    node.metadata.labels.get(ZONE_LABEL)
}

/// What has to change so that the slices hold the pods' addresses.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    nodes: &dyn Fn(&str) -> Option<Arc<Node>>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut families: Vec<&str> = service.spec.ip_families.iter().map(String::as_str).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    for slice in existing.iter().filter(|s| !families.contains(&s.address_type.as_str())) {
        changes.push(Change::Delete(slice.clone()));
    }
    for family in families {
        let wanted = group(service, pods, family, nodes);
        let mut mine: Vec<&Arc<EndpointSlice>> = existing.iter().filter(|s| s.address_type == family).collect();
        plan_family(service, family, wanted, &mut mine, &mut changes);
        changes.extend(mine.into_iter().map(|s| Change::Delete(s.clone())));
    }
    changes
}

type Groups = BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)>;

fn group(service: &Service, pods: &[Arc<Pod>], family: &str, nodes: &dyn Fn(&str) -> Option<Arc<Node>>) -> Groups {
    let mut groups = Groups::new();
    for pod in pods.iter().filter(|pod| !is_finished(pod)) {
        let Some(address) = address(pod, family) else { continue };
        let ports = ports(service, pod);
        let entry = groups.entry(format!("{ports:?}")).or_insert_with(|| (ports, Vec::new()));
        entry.1.push(endpoint(service, pod, address, nodes));
    }
    if groups.is_empty() {
        // A Service without pods keeps one empty slice, so that watchers know that there are none.
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }
    groups.values_mut().for_each(|(_, endpoints)| endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses)));
    groups
}

/// Reuses slices of equal ports first, then any; makes what is missing.
fn plan_family(
    service: &Service,
    family: &str,
    wanted: Groups,
    mine: &mut Vec<&Arc<EndpointSlice>>,
    changes: &mut Vec<Change>,
) {
    for (_, (ports, endpoints)) in wanted {
        let mut chunks: Vec<Vec<Endpoint>> = endpoints.chunks(MAX_ENDPOINTS).map(<[Endpoint]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        for chunk in chunks {
            let reusable = mine.iter().position(|s| s.ports == ports).or(if mine.is_empty() { None } else { Some(0) });
            let old = reusable.map(|at| mine.remove(at));
            let slice = slice(service, family, ports.clone(), chunk, old.map(|o| &**o));
            match old {
                None => changes.push(Change::Create(Box::new(slice))),
                Some(old) if **old != slice => changes.push(Change::Update(Box::new(slice))),
                Some(_) => {}
            }
        }
    }
}

fn slice(
    service: &Service,
    family: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    old: Option<&EndpointSlice>,
) -> EndpointSlice {
    let mut slice = old.cloned().unwrap_or_default();
    let meta = &service.metadata;
    if old.is_none() {
        slice.metadata.generate_name = format!("{}-", meta.name);
        slice.metadata.namespace.clone_from(&meta.namespace);
    }
    slice.metadata.labels.clone_from(&meta.labels);
    slice.metadata.labels.insert(SERVICE_NAME_LABEL.to_owned(), meta.name.clone());
    slice.metadata.labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    if service.spec.cluster_ip == "None" {
        slice.metadata.labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    slice.metadata.owner_references = vec![controller_reference(service)];
    slice.address_type = family.to_owned();
    slice.ports = ports;
    slice.endpoints = endpoints;
    slice
}

fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let mut addresses = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    addresses.find(|ip| ip.contains(':') == (family == "IPv6"))
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let port = |port: &api::core::v1::ServicePort| {
        target_port(pod, port).map(|number| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(number),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service.spec.ports.iter().filter_map(port).collect()
}

fn endpoint(service: &Service, pod: &Pod, address: &str, nodes: &dyn Fn(&str) -> Option<Arc<Node>>) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node = nodes(&pod.spec.node_name);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) },
        hostname: hostname(pod, service),
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.clone()),
        target_ref: Some(pod_reference(pod)),
        zone: node.as_deref().and_then(zone).cloned(),
        ..Endpoint::default()
    }
}

pub(super) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: "Pod".to_owned(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use api::core::v1::{PodCondition, PodIp, ServicePort};

    use super::*;

    fn service() -> Service {
        let mut service = Service::default();
        service.metadata.name = "s".to_owned();
        service.spec.ports = vec![ServicePort { port: 80, protocol: "TCP".to_owned(), ..Default::default() }];
        service
    }

    fn pod(ip: &str, ready: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.status.pod_ips = vec![PodIp { ip: ip.to_owned() }];
        let status = if ready { "True" } else { "False" }.to_owned();
        pod.status.conditions = vec![PodCondition { r#type: "Ready".to_owned(), status, ..Default::default() }];
        Arc::new(pod)
    }

    fn planned(pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
        plan(&service(), pods, existing, &|_| None)
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let changes = planned(&[], &[]);
        assert!(matches!(&changes[..], [Change::Create(slice)] if slice.endpoints.is_empty()));
    }

    #[test]
    fn a_second_look_changes_nothing() {
        let pods = [pod("10.0.0.1", true), pod("10.0.0.2", false)];
        let changes = planned(&pods, &[]);
        let [Change::Create(slice)] = &changes[..] else { panic!("{changes:?}") };
        let ready: Vec<_> = slice.endpoints.iter().map(|e| e.conditions.ready).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        assert_eq!(planned(&pods, &[Arc::new((**slice).clone())]), vec![]);
    }

    #[test]
    fn more_than_a_hundred_endpoints_take_several_slices() {
        let pods: Vec<_> = (0..150).map(|i| pod(&format!("10.0.0.{i}"), true)).collect();
        assert_eq!(planned(&pods, &[]).len(), 2);
    }

    #[test]
    fn surplus_slices_go() {
        let old = Arc::new(EndpointSlice { address_type: "IPv4".to_owned(), ..Default::default() });
        let changes = planned(&[pod("10.0.0.1", true)], &[old.clone(), old]);
        assert!(matches!(&changes[..], [Change::Update(_), Change::Delete(_)]), "{changes:?}");
    }
}
