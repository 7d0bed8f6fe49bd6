//! Ports of the node that pods have taken: two pods cannot have the same one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::pod::{ContainerKind, PodView};

/// One port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    /// Empty for every address.
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn clashes_with(&self, other: &Self) -> bool {
        let same_address = self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip;
        same_address && self.protocol == other.protocol && self.port == other.port
    }
}

/// The ports that the node's pods have, by uid.
#[derive(Default)]
pub(crate) struct HostPorts {
    taken: Mutex<BTreeMap<String, Vec<HostPort>>>,
}

impl HostPorts {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<HostPort>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the ports of a pod that already was on this node.
    pub(crate) fn note(&self, view: &PodView) {
        self.lock().insert(view.uid().to_owned(), wanted(view));
    }

    /// Takes the ports of a new pod. Returns whether all were free.
    pub(crate) fn take(&self, view: &PodView) -> bool {
        let ports = wanted(view);
        let mut taken = self.lock();
        let mut others = taken.iter().filter(|(uid, _)| uid.as_str() != view.uid()).flat_map(|(_, ports)| ports);
        if others.any(|other| ports.iter().any(|port| port.clashes_with(other))) {
            return false;
        }
        taken.insert(view.uid().to_owned(), ports);
        true
    }

    /// The pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

fn wanted(view: &PodView) -> Vec<HostPort> {
    let lasting = view.containers.iter().filter(|c| matches!(c.kind, ContainerKind::Regular | ContainerKind::Sidecar));
    let ports = lasting.flat_map(|c| &c.spec.ports).filter(|port| port.host_port > 0);
    ports
        .map(|port| HostPort {
            ip: if matches!(port.host_ip.as_str(), "0.0.0.0" | "::") { String::new() } else { port.host_ip.clone() },
            protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
            port: port.host_port,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::core::v1::{Container, ContainerPort, Pod};

    use super::*;

    fn pod(uid: &str, ip: &str, protocol: &str, port: i32) -> PodView {
        let mut pod = Pod::default();
        uid.clone_into(&mut pod.metadata.uid);
        let port = ContainerPort {
            host_port: port,
            container_port: port,
            host_ip: ip.to_owned(),
            protocol: protocol.to_owned(),
            ..ContainerPort::default()
        };
        pod.spec.containers = vec![Container { ports: vec![port], ..Container::default() }];
        PodView::new(Arc::new(pod))
    }

    #[test]
    fn a_port_belongs_to_one_pod() {
        let ports = HostPorts::default();
        assert!(ports.take(&pod("a", "127.0.0.1", "TCP", 80)));
        assert!(ports.take(&pod("a", "127.0.0.1", "TCP", 80)), "its own");
        assert!(ports.take(&pod("b", "192.0.2.1", "TCP", 80)));
        assert!(ports.take(&pod("c", "127.0.0.1", "UDP", 80)));
        assert!(!ports.take(&pod("d", "0.0.0.0", "TCP", 80)));
        assert!(!ports.take(&pod("d", "127.0.0.1", "", 80)));
        assert!(ports.take(&pod("d", "", "TCP", 0)), "none asked for");
        ports.release("a");
        ports.release("b");
        assert!(ports.take(&pod("d", "", "TCP", 80)));
    }
}
