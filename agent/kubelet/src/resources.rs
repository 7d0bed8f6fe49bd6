//! Quantities, quality of service and cgroup numbers. Pure.

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{Container, Pod, ResourceRequirements};
use api::quantity::Amount;
use cgroups::PodLimits;
use cri::v1::LinuxContainerResources;

use crate::allocation::Amounts;
use crate::pod::{ContainerKind, PodView};

/// The scheduler period of cpu limits, in microseconds.
const CPU_PERIOD: i64 = 100_000;
/// The smallest quota the kernel takes.
const MIN_QUOTA: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Priority from which on a pod counts as critical for the node.
pub(crate) const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Quality of service of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A quantity's value, rounded up.
pub(crate) fn whole(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.string).map_or(0, |amount| amount.value())
}

/// A quantity's value in thousandths, rounded up.
pub(crate) fn milli(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.string).map_or(0, |amount| amount.milli())
}

/// The pod's quality of service: the one the API server noted, else computed.
pub(crate) fn qos_of(pod: &Pod) -> Qos {
    match pod.status.qos_class.as_str() {
        "Guaranteed" => return Qos::Guaranteed,
        "Burstable" => return Qos::Burstable,
        "BestEffort" => return Qos::BestEffort,
        _ => {}
    }
    if let Some(resources) = pod.spec.resources.as_ref().filter(|r| !r.requests.is_empty() || !r.limits.is_empty()) {
        return qos_of_resources(&[resources]);
    }
    let all: Vec<_> = pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|c| &c.resources).collect();
    qos_of_resources(&all)
}

fn qos_of_resources(all: &[&ResourceRequirements]) -> Qos {
    let is_set = |map: &BTreeMap<String, Quantity>, name: &str| map.get(name).is_some_and(|q| milli(q) > 0);
    let mut any = false;
    let mut guaranteed = true;
    for resources in all {
        for name in ["cpu", "memory"] {
            let (limit, request) = (is_set(&resources.limits, name), is_set(&resources.requests, name));
            any |= limit || request;
            let is_equal = match (resources.limits.get(name), resources.requests.get(name)) {
                (Some(limit), Some(request)) => milli(limit) == milli(request),
                (Some(_), None) => true,
                (None, Some(_) | None) => false,
            };
            guaranteed &= limit && is_equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// `cpu.shares` for this many thousandths of a processor.
pub(crate) fn cpu_shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota per period for this many thousandths of a processor; 0 for none.
pub(crate) fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * CPU_PERIOD / 1000).max(MIN_QUOTA) }
}

fn get_milli(map: &BTreeMap<String, Quantity>, name: &str) -> Option<i64> {
    map.get(name).map(milli)
}

fn get_whole(map: &BTreeMap<String, Quantity>, name: &str) -> Option<i64> {
    map.get(name).map(whole)
}

/// What the runtime is told for one container.
pub(crate) fn container_resources(view: &PodView, spec: &Container, machine_memory: i64) -> LinuxContainerResources {
    let cpu_limit = get_milli(&spec.resources.limits, "cpu");
    let cpu_request = get_milli(&spec.resources.requests, "cpu").or(cpu_limit).unwrap_or(0);
    let memory_limit = get_whole(&spec.resources.limits, "memory").unwrap_or(0);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: cpu_quota(cpu_limit.unwrap_or(0)),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        memory_swap_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score(view, spec, machine_memory),
        ..LinuxContainerResources::default()
    }
}

/// How readily the kernel kills this container when memory runs out.
pub(crate) fn oom_score(view: &PodView, spec: &Container, machine_memory: i64) -> i64 {
    if view.spec().priority.is_some_and(|p| p >= SYSTEM_CRITICAL) {
        return -997;
    }
    match qos_of(&view.pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = get_whole(&spec.resources.requests, "memory").unwrap_or(0);
            if machine_memory <= 0 {
                return 999;
            }
            let score = 1000 - 1000 * request / machine_memory;
            if score < 3 { 3 } else { score.min(999) }
        }
    }
}

/// Sums over a pod's containers; a limit counts only if every container has one.
pub(crate) fn pod_limits(view: &PodView) -> PodLimits {
    let cpu_request = aggregate(view, &|c| Some(request_or_limit(c, "cpu", milli).unwrap_or(0)), "cpu", milli);
    let cpu_limit = aggregate(view, &|c| get_milli(&c.resources.limits, "cpu"), "cpu", milli);
    let memory_limit = aggregate(view, &|c| get_whole(&c.resources.limits, "memory"), "memory", whole);
    let own = view.spec().resources.as_ref();
    let cpu_limit = own.and_then(|r| get_milli(&r.limits, "cpu")).or(cpu_limit);
    let memory_limit = own.and_then(|r| get_whole(&r.limits, "memory")).or(memory_limit);
    let cpu_request = own.and_then(|r| get_milli(&r.requests, "cpu")).or(cpu_request);
    PodLimits {
        cpu_shares: cpu_shares(cpu_request.unwrap_or(0)),
        cpu_quota: cpu_quota(cpu_limit.unwrap_or(0)),
        memory: memory_limit.unwrap_or(0),
    }
}

/// Thousandths of processors and bytes of memory that the pod asks for.
pub(crate) fn pod_requests(view: &PodView) -> (i64, i64) {
    let own = view.spec().resources.as_ref();
    let request = |name: &str, value: fn(&Quantity) -> i64| {
        let of_pod = own.and_then(|r| r.requests.get(name).or_else(|| r.limits.get(name)).map(value));
        of_pod.or_else(|| aggregate(view, &|c| Some(request_or_limit(c, name, value).unwrap_or(0)), name, value))
    };
    (request("cpu", milli).unwrap_or(0), request("memory", whole).unwrap_or(0))
}

/// For each resource the looser of two limits; 0 is none.
pub(crate) fn loosest(a: PodLimits, b: PodLimits) -> PodLimits {
    let looser = |a: i64, b: i64| if a == 0 || b == 0 { 0 } else { a.max(b) };
    PodLimits {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota: looser(a.cpu_quota, b.cpu_quota),
        memory: looser(a.memory, b.memory),
    }
}

/// What the runtime is told for a container that runs with limits; a limit that is no more is lifted.
pub(crate) fn changed_resources(
    view: &PodView,
    spec: &Container,
    machine_memory: i64,
    before: Amounts,
) -> LinuxContainerResources {
    let mut resources = container_resources(view, spec, machine_memory);
    if resources.cpu_quota == 0 && before.cpu.1 > 0 {
        resources.cpu_quota = -1;
    }
    if resources.memory_limit_in_bytes == 0 && before.memory.1 > 0 {
        resources.memory_limit_in_bytes = -1;
        resources.memory_swap_limit_in_bytes = -1;
    }
    resources
}

fn request_or_limit(c: &Container, name: &str, value: fn(&Quantity) -> i64) -> Option<i64> {
    c.resources.requests.get(name).or_else(|| c.resources.limits.get(name)).map(value)
}

/// The most the pod needs at any time: regular containers and sidecars together, or one init container and the
/// sidecars before it. None if any container that counts has no value.
fn aggregate(
    view: &PodView,
    of: &dyn Fn(&Container) -> Option<i64>,
    name: &str,
    value: fn(&Quantity) -> i64,
) -> Option<i64> {
    let mut regular: Option<i64> = Some(0);
    for container in view.of_kind(ContainerKind::Regular) {
        regular = regular.zip(of(&container.spec)).map(|(a, b)| a + b);
    }
    let mut sidecars: Option<i64> = Some(0);
    let mut peak: Option<i64> = Some(0);
    for container in view.init() {
        let own = of(&container.spec);
        let with_before = sidecars.zip(own).map(|(a, b)| a + b);
        if container.kind == ContainerKind::Sidecar {
            sidecars = with_before;
        }
        peak = peak.zip(with_before).map(|(a, b)| a.max(b));
    }
    let steady = regular.zip(sidecars).map(|(a, b)| a + b);
    let overhead = view.spec().overhead.get(name).map_or(0, value);
    steady.zip(peak).map(|(a, b)| a.max(b) + if a > 0 || b > 0 { overhead } else { 0 })
}

/// What a container asks for, by name, as `resourceFieldRef` sees it; limits fall back to what the node can give.
pub(crate) fn resource_field(
    container: &Container,
    resource: &str,
    divisor: &Quantity,
    allocatable: &BTreeMap<String, Quantity>,
) -> Option<String> {
    let (side, name) = resource.split_once('.')?;
    let quantity = match side {
        "limits" => {
            let own = container.resources.limits.get(name).filter(|q| milli(q) > 0);
            own.or_else(|| allocatable.get(name)).cloned()
        }
        "requests" => container.resources.requests.get(name).cloned(),
        _ => return None,
    }
    .unwrap_or_default();
    let divisor_milli = if divisor.string.is_empty() || milli(divisor) == 0 { 1000 } else { milli(divisor) };
    let value = if name == "cpu" {
        div_up(milli(&quantity), divisor_milli)
    } else {
        div_up(whole(&quantity), (divisor_milli / 1000).max(1))
    };
    Some(value.to_string())
}

fn div_up(value: i64, divisor: i64) -> i64 {
    value / divisor + i64::from(value % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity { string: text.to_owned() }
    }

    fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
        let map = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), quantity(v))).collect();
        ResourceRequirements { requests: map(requests), limits: map(limits), claims: Vec::new() }
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let both = [("cpu", "1"), ("memory", "1Gi")];
        let none = resources(&[], &[]);
        let full = resources(&both, &both);
        let some = resources(&[("cpu", "100m")], &[]);
        assert_eq!(qos_of_resources(&[&none]), Qos::BestEffort);
        assert_eq!(qos_of_resources(&[&full]), Qos::Guaranteed);
        assert_eq!(qos_of_resources(&[&full, &some]), Qos::Burstable);
        assert_eq!(qos_of_resources(&[&full, &none]), Qos::Burstable);
    }

    #[test]
    fn cpu_numbers_are_those_of_the_kernel() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(100), 102);
        assert_eq!(cpu_shares(1000), 1024);
        assert_eq!(cpu_quota(0), 0);
        assert_eq!(cpu_quota(5), 1000);
        assert_eq!(cpu_quota(100), 10_000);
    }

    #[test]
    fn resource_fields_are_divided_and_rounded_up() {
        let container =
            Container { resources: resources(&[("cpu", "250m")], &[("memory", "65Mi")]), ..Container::default() };
        let node = BTreeMap::from([("cpu".to_owned(), quantity("2"))]);
        let field = |name: &str, divisor: &str| resource_field(&container, name, &quantity(divisor), &node);
        assert_eq!(field("requests.cpu", ""), Some("1".to_owned()));
        assert_eq!(field("requests.cpu", "1m"), Some("250".to_owned()));
        assert_eq!(field("limits.cpu", ""), Some("2".to_owned()));
        assert_eq!(field("limits.memory", "1Mi"), Some("65".to_owned()));
        assert_eq!(field("requests.memory", ""), Some("0".to_owned()));
    }
}
