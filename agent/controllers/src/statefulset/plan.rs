//! The next steps of a set: in order of ordinals, or all at once where the set asks for that.

use std::sync::Arc;

use api::apps::v1::StatefulSet;
use api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};

use super::identity::{make, mended, ordinal_of, revision_of, wanted};
use super::{Revisions, claims};
use crate::pods::{Availability, availability, is_finished, is_ready};

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Create(Box<Pod>),
    Delete(Arc<Pod>),
    /// Makes the claims a pending pod waits for.
    MakeClaims(Arc<Pod>),
    /// Gives a pod back its identity and volumes.
    Mend(Box<Pod>),
    /// Writes a claim's owners.
    Own(Box<PersistentVolumeClaim>),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// A pod is deleted because its template is old.
    pub(super) updating: bool,
    /// A claim of a former pod has to go first.
    pub(super) claims_linger: bool,
}

/// Whether to go on with the next pod.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Go,
    Stop,
}

struct Planner<'a, C> {
    set: &'a StatefulSet,
    update: &'a str,
    claims: &'a C,
    /// One after the other.
    ordered: bool,
    now: i64,
    plan: Plan,
}

enum Replica {
    There(Arc<Pod>),
    New(Box<Pod>),
}

/// Plans a set that is not being deleted. `current` is the template of the current revision.
pub(super) fn plan<C>(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    (revisions, current): (&Revisions, &PodTemplateSpec),
    claims: &C,
    now: i64,
) -> Plan
where
    C: Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
{
    let ordered = set.spec.pod_management_policy != "Parallel";
    let update = revisions.update.metadata.name.as_str();
    let mut planner = Planner { set, update, claims, ordered, now, plan: Plan::default() };
    let ordinal = |pod: &Pod| ordinal_of(set, pod);
    let replicas: Vec<Replica> = wanted(set)
        .map(|n| match pods.iter().find(|pod| ordinal(pod) == Some(n)) {
            Some(pod) => Replica::There(pod.clone()),
            None => Replica::New(Box::new(new_pod(set, n, revisions, current))),
        })
        .collect();
    let mut condemned: Vec<Arc<Pod>> =
        pods.iter().filter(|pod| ordinal(pod).is_some_and(|n| !wanted(set).contains(&n))).cloned().collect();
    condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    if planner.go(&replicas, &condemned) == Next::Go && set.spec.update_strategy.r#type != "OnDelete" {
        planner.update(&replicas);
    }
    planner.plan
}

/// A new pod is of the former revision as long as an update has not come to its ordinal.
fn new_pod(set: &StatefulSet, ordinal: i32, revisions: &Revisions, current: &PodTemplateSpec) -> Pod {
    let strategy = &set.spec.update_strategy;
    let kept = match &strategy.rolling_update {
        Some(rolling) => rolling.partition.unwrap_or(0),
        None if strategy.r#type == "RollingUpdate" => set.status.current_replicas,
        None => 0,
    };
    if ordinal < wanted(set).start + kept {
        return make(set, ordinal, current, &revisions.current.metadata.name);
    }
    make(set, ordinal, &set.spec.template, &revisions.update.metadata.name)
}

impl<C> Planner<'_, C>
where
    C: Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
{
    fn go(&mut self, replicas: &[Replica], condemned: &[Arc<Pod>]) -> Next {
        for replica in replicas {
            if self.replica(replica) == Next::Stop && self.ordered {
                return Next::Stop;
            }
        }
        let there = replicas.iter().filter_map(|replica| match replica {
            Replica::There(pod) => Some(pod),
            Replica::New(_) => None,
        });
        // The one pod that may be deleted although it does not work; new pods come before it.
        let has_new = replicas.iter().any(|replica| matches!(replica, Replica::New(_)));
        let broken = there.chain(condemned.iter().rev()).find(|pod| self.is_unavailable(pod)).filter(|_| !has_new);
        condemned.iter().for_each(|pod| self.own_claims(pod));
        for pod in condemned {
            if self.condemned(pod, broken) == Next::Stop && self.ordered {
                return Next::Stop;
            }
        }
        Next::Go
    }

    fn is_available(&self, pod: &Pod) -> bool {
        availability(pod, self.set.spec.min_ready_seconds, self.now) == Availability::Available
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || is_going(pod)
    }

    fn replica(&mut self, replica: &Replica) -> Next {
        let pod = match replica {
            Replica::There(pod) => pod,
            Replica::New(pod) => {
                let stale = |name: &String| (self.claims)(name).is_some_and(|c| claims::is_stale(self.set, pod, &c));
                if claims::names(self.set, pod).iter().any(stale) {
                    self.plan.claims_linger = true;
                } else {
                    self.plan.steps.push(Step::Create(pod.clone()));
                }
                return Next::Stop;
            }
        };
        if is_finished(pod) {
            if !is_going(pod) {
                self.plan.steps.push(Step::Delete(pod.clone()));
            }
            return Next::Stop;
        }
        if pod.status.phase == "Pending" && claims::names(self.set, pod).iter().any(|n| (self.claims)(n).is_none()) {
            self.plan.steps.push(Step::MakeClaims(pod.clone()));
        }
        let works = !is_going(pod) && is_running_and_ready(pod) && self.is_available(pod);
        if self.ordered && !works {
            return Next::Stop;
        }
        if let Some(mended) = mended(self.set, pod) {
            self.plan.steps.push(Step::Mend(Box::new(mended)));
        }
        self.own_claims(pod);
        Next::Go
    }

    fn own_claims(&mut self, pod: &Pod) {
        for claim in claims::names(self.set, pod).iter().filter_map(|name| (self.claims)(name)) {
            if let Some(owners) = claims::owners(self.set, pod, &claim) {
                let mut owned = (*claim).clone();
                owned.metadata.owner_references = owners;
                self.plan.steps.push(Step::Own(Box::new(owned)));
            }
        }
    }

    fn condemned(&mut self, pod: &Arc<Pod>, broken: Option<&Arc<Pod>>) -> Next {
        if is_going(pod) {
            return if self.ordered { Next::Stop } else { Next::Go };
        }
        let works = is_running_and_ready(pod) && self.is_available(pod);
        if works || !self.ordered || broken.is_some_and(|b| b.metadata.uid == pod.metadata.uid) {
            self.plan.steps.push(Step::Delete(pod.clone()));
        }
        Next::Stop
    }

    /// Deletes the last pod of an old template, once all after it work.
    fn update(&mut self, replicas: &[Replica]) {
        let rolling = self.set.spec.update_strategy.rolling_update.as_ref();
        let first = rolling.and_then(|r| r.partition).and_then(|p| usize::try_from(p).ok()).unwrap_or(0);
        for replica in replicas.iter().skip(first).rev() {
            let Replica::There(pod) = replica else { return };
            if revision_of(pod) != self.update && !is_going(pod) {
                self.plan.steps.push(Step::Delete(pod.clone()));
                self.plan.updating = true;
                return;
            }
            if self.is_unavailable(pod) {
                return;
            }
        }
    }
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.status.phase == "Running" && is_ready(pod)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
