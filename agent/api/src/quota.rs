//! What an object takes of a ResourceQuota: the words that admission and the quota controller share.

mod scopes;

pub use scopes::{Scoped, attributes_classes, ends, take_in};

use std::collections::BTreeMap;

use crate::Quantity;
use crate::core::v1::{Container, PersistentVolumeClaim, Pod, Service};
use crate::quantity::{Amount, Format};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The objects that a resource of a quota speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family<'a> {
    /// Pods, or what they ask for.
    Pods,
    /// Services, or what they take of nodes and providers.
    Services,
    /// Volume claims, or what they ask for.
    Claims,
    /// The number of objects of a kind.
    Objects {
        /// API group.
        group: &'a str,
        /// Resource.
        plural: &'a str,
    },
}

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that are counted under their mere plural, too.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];
/// Resources whose limits and requests containers of a pod under quota have to name.
const MUST_BE_NAMED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

impl<'a> Family<'a> {
    /// The family of a resource; `None` where nothing is known about it.
    #[must_use]
    pub fn of(resource: &'a str) -> Option<Self> {
        if let Some(counted) = resource.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return Some(Self::of_kind(group, plural));
        }
        let plain = resource.split_once(STORAGE_CLASS).map_or(resource, |(_, of_class)| of_class);
        match plain {
            "persistentvolumeclaims" | "requests.storage" => Some(Self::Claims),
            _ if plain.len() < resource.len() => None,
            "services" | "services.loadbalancers" | "services.nodeports" => Some(Self::Services),
            "pods" => Some(Self::Pods),
            plain if PLAIN_COUNTS.contains(&plain) => Some(Self::Objects { group: "", plural: plain }),
            plain => of_containers(plain).map(|_| Self::Pods),
        }
    }

    /// The family that objects of a kind belong to.
    #[must_use]
    pub fn of_kind(group: &'a str, plural: &'a str) -> Self {
        match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            _ => Self::Objects { group, plural },
        }
    }
}

/// The list and the name in it that a resource of a quota is about: requests or (`true`) limits of containers.
fn of_containers(resource: &str) -> Option<(bool, &str)> {
    match resource.split_once('.') {
        Some(("requests", name)) => Some((false, name)),
        Some(("limits", name @ ("cpu" | "memory" | "ephemeral-storage"))) => Some((true, name)),
        _ if matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-") => {
            Some((false, resource))
        }
        _ => None,
    }
}

/// A number of objects.
#[must_use]
pub fn units(count: usize) -> Amount {
    Amount::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::Decimal)
}

/// Amounts together.
pub fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    amounts.fold(units(0), |total, amount| total.plus(&amount))
}

/// What a pod takes of a resource of [`Family::Pods`]. One that is over takes nothing but its place in the store.
#[must_use]
pub fn of_pod(resource: &str, pod: &Pod) -> Amount {
    if resource == "count/pods" {
        return units(1);
    }
    if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return units(0);
    }
    match of_containers(resource) {
        Some((limits, name)) => at_peak(pod, limits, name),
        None => units(1),
    }
}

/// What a Service takes of a resource of [`Family::Services`].
#[must_use]
pub fn of_service(resource: &str, service: &Service) -> Amount {
    match resource {
        "services.loadbalancers" => units(usize::from(service.spec.r#type == "LoadBalancer")),
        "services.nodeports" => units(node_ports(service)),
        _ => units(1),
    }
}

/// What a claim takes of a resource of [`Family::Claims`].
#[must_use]
pub fn of_claim(resource: &str, claim: &PersistentVolumeClaim) -> Amount {
    let (class, plain) = resource.split_once(STORAGE_CLASS).map_or((None, resource), |(c, plain)| (Some(c), plain));
    let own = claim.metadata.annotations.get("volume.beta.kubernetes.io/storage-class");
    let own = own.or(claim.spec.storage_class_name.as_ref());
    if class.is_some() && class != own.map(String::as_str) {
        return units(0);
    }
    if plain != "requests.storage" {
        return units(1);
    }
    let amount = |list: &Amounts| list.get("storage").map(Quantity::amount);
    let Some(asked) = amount(&claim.spec.resources.requests) else { return units(0) };
    let given = amount(&claim.status.allocated_resources).filter(|given| *given > asked);
    let most = given.unwrap_or(asked);
    // Whole bytes: a quota's used amounts have to be valid themselves.
    Amount::from_units(most.value(), most.format)
}

/// The containers that do not name a resource they have to, by resource. Pods with resources of their own need not.
#[must_use]
pub fn unnamed<'p>(resources: &[&'static str], pod: &'p Pod) -> BTreeMap<&'static str, Vec<&'p str>> {
    let mut missing: BTreeMap<&'static str, Vec<&'p str>> = BTreeMap::new();
    if pod.spec.resources.as_ref().is_some_and(|own| !own.requests.is_empty() || !own.limits.is_empty()) {
        return missing;
    }
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        for resource in resources {
            let Some((limits, name)) = of_containers(resource) else { continue };
            if !list_of(container, limits).contains_key(name) {
                missing.entry(resource).or_default().push(&container.name);
            }
        }
    }
    missing.values_mut().for_each(|names| names.sort_unstable());
    missing
}

/// The resource, if containers have to name it.
#[must_use]
pub fn must_be_named(resource: &str) -> Option<&'static str> {
    MUST_BE_NAMED.into_iter().find(|known| *known == resource)
}

fn list_of(container: &Container, limits: bool) -> &Amounts {
    if limits { &container.resources.limits } else { &container.resources.requests }
}

/// What one pod takes: its containers together, or where that is more, an init container with the sidecars that
/// were started before it.
fn at_peak(pod: &Pod, limits: bool, name: &str) -> Amount {
    let in_list = |list: &Amounts| list.get(name).map_or_else(|| units(0), Quantity::amount);
    let of = |container: &Container| in_list(list_of(container, limits));
    let mut running = sum(pod.spec.containers.iter().map(of));
    let (mut sidecars, mut start) = (units(0), units(0));
    for container in &pod.spec.init_containers {
        let own = of(container);
        let with_sidecars = sidecars.plus(&own);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = with_sidecars;
            running = running.plus(&own);
        }
        if with_sidecars > start {
            start = with_sidecars;
        }
    }
    let whole = pod.spec.resources.as_ref().map(|r| if limits { &r.limits } else { &r.requests });
    let most = match whole.and_then(|list| list.get(name)) {
        Some(amount) => amount.amount(),
        None if start > running => start,
        None => running,
    };
    // Without a request or limit of its own a pod is not charged for the overhead of a limit either.
    if limits && most.is_zero() { most } else { most.plus(&in_list(&pod.spec.overhead)) }
}

/// Ports on nodes that a Service has or will have.
fn node_ports(service: &Service) -> usize {
    let ports = &service.spec.ports;
    match service.spec.r#type.as_str() {
        "NodePort" => ports.len(),
        "LoadBalancer" if service.spec.allocate_load_balancer_node_ports == Some(false) => {
            ports.iter().filter(|port| port.node_port != 0).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    }
}
