//! Resources that the node has granted its pods, which may be less than what their specs ask for by now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::Quantity;
use api::core::v1::{Container, Pod, ResourceRequirements};
use tokio::sync::watch;

use crate::pod::PodView;
use crate::resources::{milli, pod_requests, whole};

/// Resources of a pod and of those of its containers that can be resized.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allocation {
    pub(crate) pod: Option<ResourceRequirements>,
    pub(crate) containers: BTreeMap<String, ResourceRequirements>,
}

/// The numbers of resources that a resize can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu: (i64, i64),
    pub(crate) memory: (i64, i64),
}

impl Amounts {
    pub(crate) fn of(resources: &ResourceRequirements) -> Self {
        let of = |name: &str, value: fn(&Quantity) -> i64| {
            let get = |map: &BTreeMap<String, Quantity>| map.get(name).map_or(0, value);
            (get(&resources.requests), get(&resources.limits))
        };
        Self { cpu: of("cpu", milli), memory: of("memory", whole) }
    }
}

impl Allocation {
    /// Everything that the pod asks for.
    pub(crate) fn of(pod: &Pod) -> Self {
        let containers = resizable(pod).map(|c| (c.name.clone(), c.resources.clone())).collect();
        Self { pod: pod.spec.resources.clone(), containers }
    }

    /// What the pod had according to its status: a kubelet that starts finds containers that run with that.
    pub(crate) fn recorded(pod: &Pod) -> Self {
        let mut known = Self::of(pod);
        let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        for status in statuses.filter(|s| s.state.running.is_some()) {
            if let (Some(asked), Some(had)) = (known.containers.get_mut(&status.name), &status.resources) {
                had.clone_into(asked);
            }
        }
        if let (Some(asked), Some(had)) = (known.pod.as_mut(), &pod.status.resources) {
            for (asked, had) in [(&mut asked.requests, &had.requests), (&mut asked.limits, &had.limits)] {
                for (name, quantity) in asked.iter_mut() {
                    had.get(name).unwrap_or(quantity).clone().clone_into(quantity);
                }
            }
        }
        known
    }

    /// The pod with these resources instead of those it asks for.
    pub(crate) fn granted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if *self == Self::of(pod) {
            return pod.clone();
        }
        let mut granted = Pod::clone(pod);
        granted.spec.resources.clone_from(&self.pod);
        for container in granted.spec.init_containers.iter_mut().chain(&mut granted.spec.containers) {
            if let Some(resources) = self.containers.get(&container.name) {
                container.resources.clone_from(resources);
            }
        }
        Arc::new(granted)
    }

    /// Whether both come to the same amounts.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let amounts = |own: &Self| own.containers.values().map(Amounts::of).collect::<Vec<_>>();
        self.containers.keys().eq(other.containers.keys())
            && amounts(self) == amounts(other)
            && self.pod_amounts() == other.pod_amounts()
    }

    pub(crate) fn pod_amounts(&self) -> Option<Amounts> {
        self.pod.as_ref().map(Amounts::of)
    }
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

/// Thousandths of processors and bytes of memory that a pod takes on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    cpu: i64,
    memory: i64,
}

impl Share {
    /// What the containers of a pod request together.
    pub(crate) fn of(view: &PodView) -> Self {
        let (cpu, memory) = pod_requests(view);
        Self { cpu, memory }
    }
}

/// Why a pod cannot get more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// It asks for more than the node has.
    Impossible(String),
    /// Other pods have what it asks for.
    Taken(String),
}

/// What all pods of the node have been granted.
pub(crate) struct Grants {
    shares: Mutex<BTreeMap<String, Share>>,
    freed: watch::Sender<()>,
}

impl Default for Grants {
    fn default() -> Self {
        Self { shares: Mutex::default(), freed: watch::Sender::new(()) }
    }
}

impl Grants {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a pod has that came with it.
    pub(crate) fn note(&self, uid: &str, share: Share) {
        self.lock().insert(uid.to_owned(), share);
    }

    /// Gives a pod what it asks for, if the node has it.
    pub(crate) fn change(
        &self,
        uid: &str,
        share: Share,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Result<(), Shortage> {
        let mut shares = self.lock();
        let before = shares.get(uid).copied().unwrap_or_default();
        let others = || shares.iter().filter(|(other, _)| other.as_str() != uid).map(|(_, share)| share);
        let rows = [
            ("cpu", share.cpu, before.cpu, others().map(|s| s.cpu).sum::<i64>(), milli as fn(&Quantity) -> i64),
            ("memory", share.memory, before.memory, others().map(|s| s.memory).sum(), whole),
        ];
        for (name, wanted, had, used, value) in rows {
            let Some(capacity) = allocatable.get(name).map(value).filter(|_| wanted > had) else { continue };
            let what = format!("{name}, requested: {wanted}");
            if wanted > capacity {
                let text = format!("Node didn't have enough capacity: {what}, capacity: {capacity}");
                return Err(Shortage::Impossible(text));
            }
            if wanted + used > capacity {
                let text = format!("Node didn't have enough resource: {what}, used: {used}, capacity: {capacity}");
                return Err(Shortage::Taken(text));
            }
        }
        shares.insert(uid.to_owned(), share);
        drop(shares);
        if share.cpu < before.cpu || share.memory < before.memory {
            self.freed.send_replace(());
        }
        Ok(())
    }

    /// The pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        if self.lock().remove(uid).is_some() {
            self.freed.send_replace(());
        }
    }

    /// Tells when something was given back.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use api::core::v1::{ContainerState, ContainerStateRunning, ContainerStatus};

    use super::*;

    fn asks(cpu: &str, memory: &str) -> ResourceRequirements {
        let map =
            BTreeMap::from([("cpu".to_owned(), Quantity::new(cpu)), ("memory".to_owned(), Quantity::new(memory))]);
        ResourceRequirements { requests: map.clone(), limits: map, claims: Vec::new() }
    }

    fn pod(cpu: &str, memory: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.spec.containers =
            vec![Container { name: "a".to_owned(), resources: asks(cpu, memory), ..Container::default() }];
        Arc::new(pod)
    }

    fn share(cpu: &str, memory: &str) -> Share {
        Share::of(&PodView::new(pod(cpu, memory)))
    }

    #[test]
    fn a_pod_keeps_what_it_was_granted() {
        let allocation = Allocation::of(&pod("1", "1Gi"));
        let wanted = pod("2", "1Gi");
        assert_eq!(allocation.granted(&wanted).spec.containers[0].resources, asks("1", "1Gi"));
        assert!(!allocation.equals(&Allocation::of(&wanted)));
        assert!(allocation.equals(&Allocation::of(&pod("1000m", "1024Mi"))));
        assert!(Arc::ptr_eq(&Allocation::of(&wanted).granted(&wanted), &wanted));
    }

    #[test]
    fn a_new_kubelet_finds_grants_in_the_status() {
        let mut wanted = Pod::clone(&pod("2", "1Gi"));
        wanted.status.container_statuses = vec![ContainerStatus {
            name: "a".to_owned(),
            resources: Some(asks("1", "1Gi")),
            state: ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() },
            ..ContainerStatus::default()
        }];
        assert_eq!(Allocation::recorded(&wanted).containers["a"], asks("1", "1Gi"));
        wanted.status.container_statuses[0].state = ContainerState::default();
        assert_eq!(Allocation::recorded(&wanted).containers["a"], asks("2", "1Gi"));
    }

    #[test]
    fn grants_are_bounded_by_the_node() {
        let node = asks("4", "4Gi").requests;
        let grants = Grants::default();
        grants.note("a", share("1", "1Gi"));
        grants.note("b", share("2", "1Gi"));
        let mut freed = grants.freed();
        assert!(matches!(grants.change("a", share("5", "1Gi"), &node), Err(Shortage::Impossible(_))));
        assert_eq!(
            grants.change("a", share("3", "1Gi"), &node),
            Err(Shortage::Taken(
                "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000".to_owned()
            ))
        );
        assert_eq!(grants.change("a", share("2", "1Gi"), &node), Ok(()));
        assert!(!freed.has_changed().unwrap());
        grants.release("b");
        assert!(freed.has_changed().unwrap());
        freed.mark_unchanged();
        assert_eq!(grants.change("a", share("3", "1Gi"), &node), Ok(()));
        // Less is always given, even on a node that has become too small.
        assert_eq!(grants.change("a", share("2", "1Gi"), &BTreeMap::new()), Ok(()));
        assert!(freed.has_changed().unwrap());
    }
}
