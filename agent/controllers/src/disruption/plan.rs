//! Pods expected, healthy and to spare.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::core::v1::Pod;
use api::meta::v1::{Condition, Time};
use api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};

use crate::pods::{is_ready, scaled};

/// An eviction that did not lead to a deletion within so many seconds did not happen.
const EVICTION_SECONDS: i64 = 120;
const CONDITION: &str = "DisruptionAllowed";

/// What the controller of pods wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) uid: String,
    pub(super) replicas: i32,
}

/// The controller of a pod does not say how many it wants.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("found no scale of {kind} {name:?} that controls pod {pod:?}")]
pub(super) struct Unknown {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) pod: String,
}

/// Pods that there should be and that have to stay healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pods: i32,
    healthy: i32,
}

pub(super) fn expect(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale_of: &dyn Fn(&Pod) -> Result<Option<Scale>, Unknown>,
) -> Result<Expected, Unknown> {
    let wanted = || -> Result<i32, Unknown> {
        let mut seen = BTreeSet::new();
        let mut sum = 0;
        for pod in pods {
            if let Some(scale) = scale_of(pod)?
                && seen.insert(scale.uid)
            {
                sum += scale.replicas;
            }
        }
        Ok(sum)
    };
    if let Some(unavailable) = &budget.spec.max_unavailable {
        let pods = wanted()?;
        return Ok(Expected { pods, healthy: (pods - scaled(unavailable, pods, true)).max(0) });
    }
    match &budget.spec.min_available {
        Some(available) if available.r#type == 0 => {
            Ok(Expected { pods: i32::try_from(pods.len()).unwrap_or(i32::MAX), healthy: available.int_val })
        }
        Some(available) => {
            let pods = wanted()?;
            Ok(Expected { pods, healthy: scaled(available, pods, true) })
        }
        None => Ok(Expected { pods: i32::try_from(pods.len()).unwrap_or(i32::MAX), healthy: 0 }),
    }
}

/// The status, and the seconds after which evictions under way have to be looked at again.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    now: i64,
) -> (PodDisruptionBudgetStatus, Option<u64>) {
    let mut disrupted: BTreeMap<String, Time> = BTreeMap::new();
    let mut recheck: Option<u64> = None;
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(time) = budget.status.disrupted_pods.get(&pod.metadata.name) else { continue };
        let rest = time.unix().unwrap_or(0) + EVICTION_SECONDS - now;
        if rest > 0 {
            disrupted.insert(pod.metadata.name.clone(), *time);
            recheck = Some(recheck.map_or(rest.unsigned_abs(), |r| r.min(rest.unsigned_abs())));
        }
    }
    let counts = |pod: &&Arc<Pod>| {
        let alive = pod.metadata.deletion_timestamp.is_none();
        alive && !disrupted.contains_key(&pod.metadata.name) && is_ready(pod)
    };
    let healthy = i32::try_from(pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
    let allowed = if expected.pods <= 0 { 0 } else { (healthy - expected.healthy).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: disrupted,
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        conditions: budget.status.conditions.clone(),
    };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, (value, reason, ""), now);
    (status, recheck)
}

/// The status of a budget that cannot be worked out: nothing may be evicted.
pub(super) fn blocked(budget: &PodDisruptionBudget, why: &Unknown, now: i64) -> PodDisruptionBudgetStatus {
    let mut status = PodDisruptionBudgetStatus {
        disruptions_allowed: 0,
        observed_generation: budget.metadata.generation,
        ..budget.status.clone()
    };
    set_condition(&mut status, ("False", "SyncFailed", &why.to_string()), now);
    status
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, (value, reason, message): (&str, &str, &str), now: i64) {
    let old = status.conditions.iter().find(|c| c.r#type == CONDITION);
    let since = old.filter(|c| c.status == value).map_or_else(|| Time::from_unix(now), |c| c.last_transition_time);
    let made = Condition {
        r#type: CONDITION.to_owned(),
        status: value.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match status.conditions.iter_mut().find(|c| c.r#type == CONDITION) {
        Some(place) => *place = made,
        None => status.conditions.push(made),
    }
}

#[cfg(test)]
mod tests {
    use api::IntOrString;
    use api::core::v1::PodCondition;

    use super::*;

    fn pods(ready: usize, broken: usize) -> Vec<Arc<Pod>> {
        let pod = |index: usize| {
            let mut pod = Pod::default();
            pod.metadata.name = format!("p{index}");
            let status = if index < ready { "True" } else { "False" }.to_owned();
            pod.status.conditions = vec![PodCondition { r#type: "Ready".to_owned(), status, ..Default::default() }];
            Arc::new(pod)
        };
        (0..ready + broken).map(pod).collect()
    }

    fn budget(available: Option<&str>, unavailable: Option<&str>) -> PodDisruptionBudget {
        let value = |text: &str| match text.parse() {
            Ok(number) => IntOrString { r#type: 0, int_val: number, str_val: String::new() },
            Err(_) => IntOrString { r#type: 1, int_val: 0, str_val: text.to_owned() },
        };
        let mut budget = PodDisruptionBudget::default();
        budget.spec.min_available = available.map(value);
        budget.spec.max_unavailable = unavailable.map(value);
        budget
    }

    fn allowed(budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> i32 {
        let scale = |_: &Pod| Ok(Some(Scale { uid: "d".to_owned(), replicas: 4 }));
        status(budget, pods, expect(budget, pods, &scale).unwrap(), 1000).0.disruptions_allowed
    }

    #[test]
    fn what_is_healthy_beyond_the_need_may_go() {
        assert_eq!(allowed(&budget(Some("2"), None), &pods(3, 1)), 1);
        assert_eq!(allowed(&budget(Some("4"), None), &pods(3, 1)), 0);
        assert_eq!(allowed(&budget(Some("30%"), None), &pods(4, 0)), 2);
        assert_eq!(allowed(&budget(None, Some("1")), &pods(4, 0)), 1);
        assert_eq!(allowed(&budget(None, Some("1")), &pods(3, 1)), 0);
        assert_eq!(allowed(&budget(None, Some("50%")), &pods(4, 0)), 2);
        assert_eq!(allowed(&budget(Some("0"), None), &pods(0, 0)), 0);
    }

    #[test]
    fn an_eviction_under_way_counts_until_it_is_too_old() {
        let mut evicted = budget(Some("1"), None);
        evicted.status.disrupted_pods.insert("p0".to_owned(), Time::from_unix(990));
        assert_eq!(allowed(&evicted, &pods(2, 0)), 0);
        evicted.status.disrupted_pods.insert("p0".to_owned(), Time::from_unix(10));
        assert_eq!(allowed(&evicted, &pods(2, 0)), 1);
    }

    #[test]
    fn pods_of_unknown_controllers_block_everything() {
        let budget = budget(None, Some("1"));
        let unknown = || Unknown { kind: "K".to_owned(), name: "n".to_owned(), pod: "p".to_owned() };
        assert_eq!(expect(&budget, &pods(1, 0), &|_| Err(unknown())), Err(unknown()));
        let status = blocked(&budget, &unknown(), 0);
        assert_eq!((status.disruptions_allowed, status.conditions[0].reason.as_str()), (0, "SyncFailed"));
    }
}
