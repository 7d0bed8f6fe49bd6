//! The Endpoints object, which EndpointSlices replace but clients still read.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};

use super::slices::pod_reference;
use super::{hostname, target_port};
use crate::pods::{is_finished, is_ready};

/// Label of Endpoints that this controller made.
pub(super) const MANAGED_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Addresses an object holds at most.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The object as it should be, `None` where it already is.
pub(super) fn plan(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, pods);
    let mut wanted = existing.cloned().unwrap_or_default();
    let meta = &service.metadata;
    wanted.metadata.name.clone_from(&meta.name);
    wanted.metadata.namespace.clone_from(&meta.namespace);
    wanted.metadata.labels.clone_from(&meta.labels);
    wanted.metadata.labels.insert(MANAGED_LABEL.to_owned(), MANAGER.to_owned());
    if service.spec.cluster_ip == "None" {
        wanted.metadata.labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    wanted.metadata.annotations.remove(OVER_CAPACITY);
    if truncated {
        wanted.metadata.annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    wanted.subsets = subsets;
    (existing != Some(&wanted)).then_some(wanted)
}

/// One subset per set of ports; addresses in order.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let v6 = service.spec.ip_families.first().is_some_and(|f| f == "IPv6");
    let mut count = 0;
    for pod in pods.iter().filter(|p| !is_finished(p)) {
        let address = pod.status.pod_ips.iter().find(|ip| ip.ip.contains(':') == v6);
        let Some(address) = address else { continue };
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if leaving && !service.spec.publish_not_ready_addresses {
            continue;
        }
        count += 1;
        if count > MAX_ADDRESSES {
            break;
        }
        let ports = ports(service, pod);
        let subset = groups.entry(format!("{ports:?}")).or_default();
        subset.ports = ports;
        let made = EndpointAddress {
            ip: address.ip.clone(),
            hostname: hostname(pod, service).unwrap_or_default(),
            node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.clone()),
            target_ref: Some(pod_reference(pod)),
        };
        let ready = service.spec.publish_not_ready_addresses || is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.push(made);
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    for subset in &mut subsets {
        subset.addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        subset.not_ready_addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    (subsets, count > MAX_ADDRESSES)
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let port = |port: &api::core::v1::ServicePort| {
        target_port(pod, port).map(|number| EndpointPort {
            name: port.name.clone(),
            port: number,
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service.spec.ports.iter().filter_map(port).collect()
}
