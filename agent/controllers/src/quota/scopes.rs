//! Which pods a quota with scopes is about.

use api::core::v1::{Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement};

/// Whether the quota counts parts of what there is only.
pub(super) fn has_any(quota: &ResourceQuota) -> bool {
    !quota.spec.scopes.is_empty() || quota.spec.scope_selector.as_ref().is_some_and(|s| !s.match_expressions.is_empty())
}

/// Whether all scopes of the quota take the pod in.
pub(super) fn take_in(quota: &ResourceQuota, pod: &Pod) -> bool {
    let plain = quota.spec.scopes.iter().all(|scope| is_in(scope, pod));
    let selected = quota.spec.scope_selector.as_ref().map(|s| s.match_expressions.as_slice()).unwrap_or_default();
    plain && selected.iter().all(|requirement| matches(requirement, pod))
}

fn is_in(scope: &str, pod: &Pod) -> bool {
    match scope {
        "Terminating" => ends(pod),
        "NotTerminating" => !ends(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => !pod.spec.priority_class_name.is_empty(),
        "CrossNamespacePodAffinity" => looks_abroad(pod),
        _ => false,
    }
}

fn matches(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    if requirement.scope_name != "PriorityClass" {
        return is_in(&requirement.scope_name, pod);
    }
    let class = &pod.spec.priority_class_name;
    match requirement.operator.as_str() {
        "In" => requirement.values.contains(class),
        "NotIn" => !requirement.values.contains(class),
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

/// Whether the pod has to end by a time.
fn ends(pod: &Pod) -> bool {
    pod.spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0)
}

/// Whether no container asks for or is limited in CPU or memory.
fn is_best_effort(pod: &Pod) -> bool {
    let spec = &pod.spec;
    let lists = spec.init_containers.iter().chain(&spec.containers).filter_map(|c| c.resources_list());
    let whole = spec.resources.as_ref().map(|r| [&r.requests, &r.limits]);
    let mut amounts = lists.chain(whole).flatten().flatten();
    !amounts.any(|(name, amount)| matches!(name.as_str(), "cpu" | "memory") && !amount.amount().is_zero())
}

type Amounts = std::collections::BTreeMap<String, api::Quantity>;

trait Resources {
    fn resources_list(&self) -> Option<[&Amounts; 2]>;
}

impl Resources for api::core::v1::Container {
    fn resources_list(&self) -> Option<[&Amounts; 2]> {
        Some([&self.resources.requests, &self.resources.limits])
    }
}

/// Whether the pod wants to be near or far from pods of other namespaces.
fn looks_abroad(pod: &Pod) -> bool {
    let abroad = |term: &PodAffinityTerm| !term.namespaces.is_empty() || term.namespace_selector.is_some();
    let Some(affinity) = &pod.spec.affinity else { return false };
    let near = affinity.pod_affinity.as_ref().is_some_and(|a| {
        let preferred = &a.preferred_during_scheduling_ignored_during_execution;
        a.required_during_scheduling_ignored_during_execution.iter().any(abroad)
            || preferred.iter().any(|term| abroad(&term.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.as_ref().is_some_and(|a| {
        let preferred = &a.preferred_during_scheduling_ignored_during_execution;
        a.required_during_scheduling_ignored_during_execution.iter().any(abroad)
            || preferred.iter().any(|term| abroad(&term.pod_affinity_term))
    });
    near || far
}
