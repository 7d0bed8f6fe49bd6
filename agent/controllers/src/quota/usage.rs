//! What a namespace uses of a quota.

use std::sync::Arc;

use api::Quantity;
use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use api::quota::{Amounts, Family, Scoped, of_claim, of_pod, of_service, sum, take_in, units};

/// Counts the objects of a kind, by group and plural.
pub(super) type Count = Box<dyn Fn(&str, &str) -> usize + Send + Sync>;

/// What there is in a namespace.
pub(super) struct Holdings {
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) services: Vec<Arc<Service>>,
    pub(super) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(super) count: Count,
}

/// The used amount of everything the quota limits.
pub(super) fn plan(quota: &ResourceQuota, holdings: &Holdings) -> Amounts {
    let pods: Vec<_> = holdings.pods.iter().filter(|pod| take_in(quota, Scoped::Pod(pod))).collect();
    let claims: Vec<_> = holdings.claims.iter().filter(|claim| take_in(quota, Scoped::Claim(claim))).collect();
    let counts_others = take_in(quota, Scoped::Other);
    let used = |resource: &String| {
        let amount = match Family::of(resource) {
            Some(Family::Pods) => sum(pods.iter().map(|pod| of_pod(resource, pod))),
            Some(Family::Claims) => sum(claims.iter().map(|claim| of_claim(resource, claim))),
            Some(Family::Services) if counts_others => {
                sum(holdings.services.iter().map(|service| of_service(resource, service)))
            }
            Some(Family::Objects { group, plural }) if counts_others => units((holdings.count)(group, plural)),
            _ => units(0),
        };
        (resource.clone(), Quantity::from(amount))
    };
    quota.spec.hard.keys().map(used).collect()
}

#[cfg(test)]
mod tests {
    use api::core::v1::Container;

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
