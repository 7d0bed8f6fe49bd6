//! What a namespace uses of a quota.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Quantity;
use api::core::v1::{Container, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use api::quantity::{Amount, Format};

use super::scopes;
use crate::pods::is_finished;

type Amounts = BTreeMap<String, Quantity>;

/// Counts the objects of a kind, by group and plural.
pub(super) type Count = Box<dyn Fn(&str, &str) -> usize + Send + Sync>;

/// What there is in a namespace.
pub(super) struct Holdings {
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) services: Vec<Arc<Service>>,
    pub(super) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(super) count: Count,
}

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that are counted under their mere plural, too.
const PLAIN_COUNTS: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

/// The used amount of everything the quota limits.
pub(super) fn plan(quota: &ResourceQuota, holdings: &Holdings) -> Amounts {
    let scoped = scopes::has_any(quota);
    let counted = |pod: &&Arc<Pod>| !is_finished(pod) && scopes::take_in(quota, pod);
    let pods: Vec<&Arc<Pod>> = holdings.pods.iter().filter(counted).collect();
    let used = |resource: &String| {
        // What is no pod is in no scope.
        let amount = of_pods(resource, &pods)
            .or_else(|| if scoped { None } else { of_others(resource, holdings) })
            .unwrap_or_else(|| units(0));
        (resource.clone(), Quantity::from(amount))
    };
    quota.spec.hard.keys().map(used).collect()
}

fn units(count: usize) -> Amount {
    Amount::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::Decimal)
}

fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    amounts.fold(units(0), |total, amount| total.plus(&amount))
}

/// The amount of a resource that pods take; `None` where it is none of theirs.
fn of_pods(resource: &str, pods: &[&Arc<Pod>]) -> Option<Amount> {
    if resource == "pods" {
        return Some(units(pods.len()));
    }
    let (limits, name) = match resource.split_once('.') {
        Some(("requests", "storage")) => return None,
        Some(("requests", name)) => (false, name),
        Some(("limits", name)) => (true, name),
        _ if matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-") => {
            (false, resource)
        }
        _ => return None,
    };
    Some(sum(pods.iter().map(|pod| of_pod(pod, limits, name))))
}

/// What one pod takes: its containers together, or where that is more, an init container with the sidecars that
/// were started before it.
fn of_pod(pod: &Pod, limits: bool, name: &str) -> Amount {
    let in_list = |list: &Amounts| list.get(name).map_or_else(|| units(0), Quantity::amount);
    let of = |container: &Container| {
        in_list(if limits { &container.resources.limits } else { &container.resources.requests })
    };
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

/// The amount of what is no pod; `None` where nothing is known about the resource.
fn of_others(resource: &str, holdings: &Holdings) -> Option<Amount> {
    if let Some(counted) = resource.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(units((holdings.count)(group, plural)));
    }
    if let Some((class, resource)) = resource.split_once(STORAGE_CLASS) {
        let of_class = |claim: &&Arc<PersistentVolumeClaim>| claim.spec.storage_class_name.as_deref() == Some(class);
        let claims: Vec<_> = holdings.claims.iter().filter(of_class).cloned().collect();
        return of_claims(resource, &claims);
    }
    match resource {
        "services" => Some(units(holdings.services.len())),
        "services.loadbalancers" => {
            Some(units(holdings.services.iter().filter(|s| s.spec.r#type == "LoadBalancer").count()))
        }
        "services.nodeports" => Some(units(holdings.services.iter().map(|s| node_ports(s)).sum())),
        plain if PLAIN_COUNTS.contains(&plain) => Some(units((holdings.count)("", plain))),
        other => of_claims(other, &holdings.claims),
    }
}

fn of_claims(resource: &str, claims: &[Arc<PersistentVolumeClaim>]) -> Option<Amount> {
    let asked = |claim: &Arc<PersistentVolumeClaim>| claim.spec.resources.requests.get("storage").map(Quantity::amount);
    match resource {
        "persistentvolumeclaims" => Some(units(claims.len())),
        "requests.storage" => Some(sum(claims.iter().filter_map(asked))),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str) -> Container {
        let mut container = Container::default();
        container.resources.requests.insert("cpu".to_owned(), Quantity::new(cpu));
        container
    }

    fn pod(cpu: &str, init: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.spec.containers = vec![container(cpu)];
        pod.spec.init_containers = vec![container(init)];
        Arc::new(pod)
    }

    fn holdings(pods: Vec<Arc<Pod>>) -> Holdings {
        Holdings { pods, services: Vec::new(), claims: Vec::new(), count: Box::new(|_, _| 3) }
    }

    fn used(scopes: &[&str], holdings: &Holdings, resources: &[&str]) -> Vec<String> {
        let mut quota = ResourceQuota::default();
        quota.spec.scopes = scopes.iter().map(|s| (*s).to_owned()).collect();
        quota.spec.hard = resources.iter().map(|r| ((*r).to_owned(), Quantity::new("10"))).collect();
        let used = plan(&quota, holdings);
        resources.iter().map(|resource| used[*resource].string.clone()).collect()
    }

    #[test]
    fn pods_take_what_they_need_at_their_peak() {
        let mut ended = (*pod("4", "0")).clone();
        ended.status.phase = "Succeeded".to_owned();
        let there = holdings(vec![pod("500m", "1"), pod("250m", "0"), Arc::new(ended)]);
        assert_eq!(used(&[], &there, &["pods", "cpu", "requests.cpu", "limits.cpu"]), ["2", "1250m", "1250m", "0"]);
    }

    #[test]
    fn objects_are_counted() {
        let mut service = Service::default();
        service.spec.r#type = "NodePort".to_owned();
        service.spec.ports = vec![api::core::v1::ServicePort::default()];
        let there = Holdings { services: vec![Arc::new(service)], ..holdings(Vec::new()) };
        let resources =
            ["services", "services.nodeports", "secrets", "count/deployments.apps", "persistentvolumeclaims"];
        assert_eq!(used(&[], &there, &resources), ["1", "1", "3", "3", "0"]);
    }

    #[test]
    fn scopes_count_their_pods_only() {
        let plain = Arc::new(Pod::default());
        let mut ending = (*pod("1", "0")).clone();
        ending.spec.active_deadline_seconds = Some(5);
        let there = holdings(vec![plain, Arc::new(ending)]);
        for (scope, count) in
            [("BestEffort", "1"), ("NotBestEffort", "1"), ("Terminating", "1"), ("PriorityClass", "0")]
        {
            assert_eq!(used(&[scope], &there, &["pods"]), [count], "{scope}");
        }
        assert_eq!(used(&["Terminating", "BestEffort"], &there, &["pods"]), ["0"]);
    }
}
