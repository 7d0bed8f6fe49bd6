//! Which objects a quota with scopes is about.

use crate::core::v1::{PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement};

/// What can be in a scope.
#[derive(Clone, Copy, Debug)]
pub enum Scoped<'a> {
    /// By deadline, quality of service, priority class or affinity.
    Pod(&'a Pod),
    /// By its volume attributes class.
    Claim(&'a PersistentVolumeClaim),
    /// In no scope.
    Other,
}

/// Whether all scopes of the quota take the object in; a quota without scopes takes everything in.
#[must_use]
pub fn take_in(quota: &ResourceQuota, object: Scoped<'_>) -> bool {
    let selected = quota.spec.scope_selector.as_ref().map(|s| s.match_expressions.as_slice()).unwrap_or_default();
    match object {
        Scoped::Pod(pod) => {
            quota.spec.scopes.iter().all(|scope| is_in(scope, pod)) && selected.iter().all(|r| selects(r, pod))
        }
        Scoped::Claim(claim) => {
            let has_class = || attributes_classes(claim).next().is_some();
            quota.spec.scopes.iter().all(|scope| scope == CLASS_SCOPE && has_class())
                && selected.iter().all(|r| r.scope_name == CLASS_SCOPE && selects_claim(r, claim))
        }
        Scoped::Other => quota.spec.scopes.is_empty() && selected.is_empty(),
    }
}

const CLASS_SCOPE: &str = "VolumeAttributesClass";

/// The volume attributes classes that a claim has, wants, or is being given.
pub fn attributes_classes(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let changing = claim.status.modify_volume_status.as_ref().map(|s| s.target_volume_attributes_class_name.as_str());
    let current = claim.status.current_volume_attributes_class_name.as_deref();
    [claim.spec.volume_attributes_class_name.as_deref(), current, changing]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
}

fn selects_claim(requirement: &ScopedResourceSelectorRequirement, claim: &PersistentVolumeClaim) -> bool {
    let mut names = attributes_classes(claim).peekable();
    if names.peek().is_none() {
        return accepts(requirement, "");
    }
    names.any(|name| accepts(requirement, name))
}

fn selects(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    match requirement.scope_name.as_str() {
        "PriorityClass" => accepts(requirement, &pod.spec.priority_class_name),
        scope => is_in(scope, pod),
    }
}

/// Whether a requirement takes a name; the empty one stands for none.
fn accepts(requirement: &ScopedResourceSelectorRequirement, name: &str) -> bool {
    let listed = || requirement.values.iter().any(|value| value == name);
    match requirement.operator.as_str() {
        "In" => !name.is_empty() && listed(),
        "NotIn" => name.is_empty() || !listed(),
        "Exists" => !name.is_empty(),
        "DoesNotExist" => name.is_empty(),
        _ => false,
    }
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

/// Whether the pod has to end by a time.
#[must_use]
pub fn ends(pod: &Pod) -> bool {
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

type Amounts = std::collections::BTreeMap<String, crate::Quantity>;

trait Resources {
    fn resources_list(&self) -> Option<[&Amounts; 2]>;
}

impl Resources for crate::core::v1::Container {
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
