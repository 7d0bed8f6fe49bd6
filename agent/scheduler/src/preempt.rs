//! Making room: which pods of lower priority would have to go for a pod to fit, and where that hurts least.

use std::cmp::Reverse;
use std::sync::Arc;

use api::labels::Selector;
use api::policy::v1::PodDisruptionBudget;

use crate::decide::{NO_VICTIMS, NOT_HELPFUL, Refusal, fits, histogram};
use crate::labels::selector;
use crate::pod::PodInfo;
use crate::snapshot::{NodeId, Snapshot};

/// More candidates are not looked at: each costs many questions.
const MAX_CANDIDATES: usize = 100;

/// A disruption budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    namespace: String,
    selector: Selector,
    allowed: i64,
}

impl Budget {
    pub(crate) fn of(api: &PodDisruptionBudget) -> Self {
        Self {
            namespace: api.metadata.namespace.clone(),
            selector: selector(api.spec.selector.as_ref()),
            allowed: i64::from(api.status.disruptions_allowed),
        }
    }

    fn covers(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace && !pod.labels.is_empty() && self.selector.matches(&pod.labels)
    }
}

/// What came of looking for victims.
#[derive(Clone, Debug)]
pub(crate) enum Preemption {
    /// With these pods gone, the pod fits on the node.
    Evict { node: String, victims: Vec<Arc<PodInfo>> },
    /// Victims are leaving already.
    Wait(String),
    /// Nothing helps; why.
    Useless(String),
}

struct Candidate {
    node: NodeId,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Looks for victims. The snapshot is changed on the way and restored before returning.
pub(crate) fn plan_preemption(
    pod: &PodInfo,
    snapshot: &mut Snapshot,
    refusal: &Refusal,
    budgets: &[Budget],
) -> Preemption {
    if !pod.preempts {
        return Preemption::Useless("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if victims_are_leaving(pod, snapshot, refusal) {
        return Preemption::Wait("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let hopeful = refusal.rejections.iter().filter(|(_, rejection)| rejection.resolvable);
    let hopeful: Vec<NodeId> = hopeful.map(|(id, _)| *id).collect();
    let mut candidates = Vec::new();
    for id in &hopeful {
        candidates.extend(select_victims(pod, snapshot, *id, budgets));
        if candidates.len() >= MAX_CANDIDATES {
            break;
        }
    }
    match candidates.into_iter().min_by_key(pain) {
        Some(best) => Preemption::Evict { node: snapshot.node(best.node).name.clone(), victims: best.victims },
        None => {
            let hopeless = refusal.nodes - hopeful.len();
            let reasons = std::iter::repeat_n(NO_VICTIMS, hopeful.len());
            let reasons: Vec<_> = reasons.chain(std::iter::repeat_n(NOT_HELPFUL, hopeless)).collect();
            let counted = histogram(reasons.iter().map(AsRef::as_ref));
            Preemption::Useless(format!("0/{} nodes are available: {counted}.", refusal.nodes))
        }
    }
}

fn victims_are_leaving(pod: &PodInfo, snapshot: &Snapshot, refusal: &Refusal) -> bool {
    let Some(id) = snapshot.find(&pod.nominated_node) else { return false };
    // A node that no longer suits at all: look elsewhere.
    if refusal.rejections.get(&id).is_some_and(|rejection| !rejection.resolvable) {
        return false;
    }
    snapshot.node(id).pods.iter().any(|other| other.deleting && other.priority < pod.priority)
}

/// The fewest and least important pods that have to leave the node.
fn select_victims(pod: &PodInfo, snapshot: &mut Snapshot, id: NodeId, budgets: &[Budget]) -> Option<Candidate> {
    let name = snapshot.node(id).name.clone();
    let lower = snapshot.node(id).pods.iter().filter(|other| other.priority < pod.priority);
    let mut lower: Vec<Arc<PodInfo>> = lower.cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(|other| (Reverse(other.priority), other.started));
    for other in &lower {
        snapshot.remove_pod(&other.key);
    }
    let mut candidate = Candidate { node: id, victims: Vec::new(), violations: 0 };
    if !fits(pod, snapshot, id) {
        restore(snapshot, &lower, &name);
        return None;
    }
    let (violating, others) = split_by_budget(&lower, budgets);
    // Those under a budget may stay first, then the rest, the more important ones before the others.
    for (other, violates) in violating.iter().map(|one| (one, true)).chain(others.iter().map(|one| (one, false))) {
        snapshot.place_pod(other.clone(), &name);
        if !fits(pod, snapshot, id) {
            snapshot.remove_pod(&other.key);
            candidate.victims.push(other.clone());
            candidate.violations += usize::from(violates);
        }
    }
    restore(snapshot, &candidate.victims, &name);
    Some(candidate)
}

fn restore(snapshot: &mut Snapshot, pods: &[Arc<PodInfo>], node: &str) {
    for pod in pods {
        snapshot.place_pod(pod.clone(), node);
    }
}

type Pods = Vec<Arc<PodInfo>>;

/// The pods whose eviction a budget forbids, and the others.
fn split_by_budget(pods: &[Arc<PodInfo>], budgets: &[Budget]) -> (Pods, Pods) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.covers(pod)) {
            *left -= 1;
            violates |= *left < 0;
            debug_assert!(!budget.namespace.is_empty());
        }
        violates
    })
}

/// Broken budgets, then the highest victim, then their sum and number, then the youngest of the highest.
fn pain(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<i64>) {
    let highest = candidate.victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    // Shifted so that more victims are never better because their priorities are negative.
    let sum = candidate.victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
    let of_highest = candidate.victims.iter().filter(|pod| pod.priority == highest);
    let earliest = of_highest.map(|pod| pod.started).min().unwrap_or(i64::MAX);
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Decision, Search, decide};
    use crate::fixtures::{node, pod};

    fn refusal(pod: &PodInfo, snapshot: &Snapshot) -> Refusal {
        match decide(pod, snapshot, Search::default()) {
            Decision::Refuse(refusal) => refusal,
            Decision::Assign { node, .. } => panic!("fits on {node}"),
        }
    }

    fn names(preemption: &Preemption) -> (String, Vec<String>) {
        match preemption {
            Preemption::Evict { node, victims } => {
                let mut names: Vec<String> = victims.iter().map(|pod| pod.name.clone()).collect();
                names.sort();
                (node.clone(), names)
            }
            Preemption::Wait(why) | Preemption::Useless(why) => (why.clone(), Vec::new()),
        }
    }

    fn two_nodes() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in ["n1", "n2"] {
            snapshot.apply_node(&node(name).cpu("2").build());
        }
        snapshot.place_pod(pod("low").cpu("1").priority(1).info(), "n1");
        snapshot.place_pod(pod("lower").cpu("1").priority(0).info(), "n1");
        snapshot.place_pod(pod("middle").cpu("2").priority(5).info(), "n2");
        snapshot
    }

    #[test]
    fn the_least_important_pods_go_and_the_snapshot_stays() {
        let mut snapshot = two_nodes();
        for (cpu, node, victims) in [("1", "n1", &["lower"][..]), ("2", "n1", &["low", "lower"])] {
            let wanted = pod("new").cpu(cpu).priority(10).info();
            let refused = refusal(&wanted, &snapshot);
            let plan = plan_preemption(&wanted, &mut snapshot, &refused, &[]);
            assert_eq!(names(&plan), (node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()));
            assert_eq!(snapshot.placed().count(), 3);
        }
    }

    #[test]
    fn without_lower_pods_nothing_helps() {
        let mut snapshot = two_nodes();
        snapshot.apply_node(&node("n3").cpu("100m").build());
        let wanted = pod("new").cpu("1").priority(0).info();
        let refused = refusal(&wanted, &snapshot);
        let plan = plan_preemption(&wanted, &mut snapshot, &refused, &[]);
        assert_eq!(
            names(&plan).0,
            "0/3 nodes are available: 1 Preemption is not helpful for scheduling, \
             2 No preemption victims found for incoming pod."
        );
    }

    #[test]
    fn a_budget_moves_the_harm_elsewhere() {
        let mut snapshot = Snapshot::default();
        for name in ["n1", "n2"] {
            snapshot.apply_node(&node(name).cpu("1").build());
        }
        snapshot.place_pod(pod("guarded").cpu("1").label("app", "guarded").info(), "n1");
        snapshot.place_pod(pod("free").cpu("1").priority(3).label("app", "free").info(), "n2");
        let budget =
            Budget { namespace: "default".to_owned(), selector: Selector::parse("app=guarded").unwrap(), allowed: 0 };
        let wanted = pod("new").cpu("1").priority(10).info();
        let refused = refusal(&wanted, &snapshot);
        let plan = plan_preemption(&wanted, &mut snapshot, &refused, &[budget]);
        assert_eq!(names(&plan), ("n2".to_owned(), vec!["free".to_owned()]));
    }

    #[test]
    fn leaving_victims_are_waited_for() {
        let mut snapshot = two_nodes();
        snapshot.place_pod(pod("lower").cpu("1").deleting().info(), "n1");
        let wanted = pod("new").cpu("1").priority(10).nominated("n1").info();
        let refused = refusal(&wanted, &snapshot);
        assert!(matches!(plan_preemption(&wanted, &mut snapshot, &refused, &[]), Preemption::Wait(_)));
    }
}
